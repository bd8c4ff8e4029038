"""The command line of both scripts: every option, once, with its default."""
import argparse
import math
import os

from engine import ENGINES
from experiment.augmentation import AUGMENTATIONS
from experiment.batches import NORMALIZATIONS
from experiment.computation import DTYPES
from experiment.dataset import NAMES
from experiment.errors import Invalid
from experiment.optimizer import OPTIMIZERS, SCHEDULES
from experiment.recipes import RECIPES, described, values

DocstringHelp = argparse.RawDescriptionHelpFormatter  # keeps the lines of a docstring


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises Invalid, hence ends in one line, where the usage is wrong."""

    def error(self, message):
        raise Invalid(f'{message}; see --help')


def number(kind, valid, condition):
    """Return an argument type: ``kind(text)``, refused unless ``condition`` holds for it."""
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (-math.inf < value < math.inf and condition(value)):
            raise argparse.ArgumentTypeError(f'given {text!r}, valid: {valid}')
        return value
    return parse


def layer_set(text):
    """Turn ``'0,1,2'`` into ``[0, 1, 2]``, sorted and without repetitions."""
    try:
        return sorted({int(layer) for layer in text.split(',')})
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'given {text!r}, valid: layers separated by commas, such as 0,1,2') from None


WHOLE = number(int, 'a whole number from the number of classes to the size of the training set',
               lambda n: n > 0)
COUNT = number(int, 'a whole number from 1 to 1000000', lambda n: 1 <= n <= 1000000)
RATE = number(float, 'a number above 0', lambda x: x > 0)
NOT_NEGATIVE = number(float, 'a number from 0', lambda x: x >= 0)
ALPHA = number(float, '0, or 1e-300 to 1e300', lambda x: x == 0 or 1e-300 <= x <= 1e300)
SEED = number(int, '0 to 4294967295', lambda n: 0 <= n < 2 ** 32)


def parse_args(description, method, architectures, argv=None):
    """Parse and check the options of a run; nothing is written yet.

    Args:
        description (str): The script's docstring.
        method (str): ``'manifoldmixup'``, which has the mixup's own options, or ``'baseline'``.
        architectures (dict): ``--arch`` to network class, whose ``layers`` may mix.
        argv (list of str): The command line; ``sys.argv`` where it is None.

    Returns:
        argparse.Namespace: Every option with its value, ``method``, and ``defaults``, what the
            options would be if only ``--recipe`` were given.

    Raises:
        Invalid: If an option is unknown or its value not valid.
    """
    def by_recipe(name):
        return f'default: {described(name)}'

    parser = Parser(description=description, allow_abbrev=False, formatter_class=DocstringHelp)

    data = parser.add_argument_group('data')
    data.add_argument(
        '--dataset', default='cifar10', metavar='NAME',
        help=f'{", ".join(NAMES)}, or a directory with train/CLASS/IMAGE and '
             'test/CLASS/IMAGE: images of any format that Pillow decodes, turned as their EXIF '
             'says; what is hidden is passed over (default: %(default)s)')
    data.add_argument(
        '--data-archive', metavar='FILE',
        help='a cifar-10-python.tar.gz or cifar-100-python.tar.gz to read instead of downloading, '
             'the same batches in another tar or zip, or a folder of them; of svhn, a folder, tar '
             'or zip that holds train_32x32.mat and test_32x32.mat')
    data.add_argument(
        '--train-size', type=WHOLE, metavar='N',
        help='train on N images alone, of each class as many, the same for every --seed; a larger '
             'N contains a smaller one (default: all)')
    data.add_argument(
        '--validate-on', default='test', metavar='test|rest|rest:N|DIR',
        help='what validation figures are measured on: the test set; the rest of the training '
             'set, which --train-size leaves, or N images of it; or a directory with CLASS/IMAGE. '
             'All but the first keep choices from the test set (default: %(default)s)')
    data.add_argument(
        '--size', type=number(int, 'a whole number from 8', lambda n: n >= 8), default=32,
        metavar='PIXELS',
        help="side of a directory's images, which are resized to it (default: %(default)s)")
    data.add_argument(
        '--augment', choices=AUGMENTATIONS,
        help='blog: quarter turns, flips in x and y; standard: pad 4, crop, flip in x '
             f'({by_recipe("augment")})')
    data.add_argument(
        '--normalize', choices=NORMALIZATIONS,
        help='unit: to [0, 1]; standard: to mean 0 and variance 1 of each channel; caffe: BGR in '
             '[0, 255] minus the mean of ImageNet, what --pretrained weights expect '
             '(default: standard with --augment standard, else unit)')

    network = parser.add_argument_group('network')
    network.add_argument(
        '--arch', choices=architectures, help=f'({by_recipe("arch")})')
    network.add_argument(
        '--stem', metavar='imagenet|cifar',
        help='imagenet: 7x7 convolution with stride 2 and pooling; cifar: 3x3 convolution '
             f'({by_recipe("stem")}; the first that the network has where it lacks that)')
    network.add_argument(
        '--pretrained', metavar='FILE.npz',
        help="initial weights: Chainer's ResNet-50-model.npz, or the model.npz of a run, whose "
             'classifier is taken if it fits (default: random)')

    if method == 'manifoldmixup':
        mixup = parser.add_argument_group('mixup')
        mixup.add_argument(
            '--mixup-alpha', type=ALPHA, metavar='ALPHA',
            help=f'lam ~ Beta(ALPHA, ALPHA); 0: no mixing ({by_recipe("mixup_alpha")})')
        mixup.add_argument(
            '--lam-per', choices=('batch', 'example'), default='batch',
            help='whether one lam is drawn for each batch or for each example '
                 '(default: %(default)s)')
        mixup.add_argument(
            '--layer-mix', type=layer_set, metavar='LAYERS',
            help='layers of which one is drawn to mix each batch, such as 0,1,2; 0 alone is '
                 f'input mixup ({by_recipe("layer_mix")})')

    training = parser.add_argument_group('training')
    training.add_argument(
        '--recipe', choices=RECIPES, default='blog',
        help="blog: the blog post's run; standard: what is usual for CIFAR; paper: the paper's "
             'run; fast: 30 epochs in one cycle of the learning rate; decides which default to '
             'take of options that name several (default: %(default)s)')
    training.add_argument(
        '--epoch', type=COUNT, help=f'sweeps over the training set ({by_recipe("epoch")})')
    training.add_argument(
        '--batchsize', type=COUNT, help=f'images in a batch ({by_recipe("batchsize")})')
    training.add_argument(
        '--loss', choices=('ce', 'bce'), default='ce',
        help="ce: cross-entropy of the softmax; bce: the paper's authors', binary cross-entropy "
             'of the softmax, averaged over the classes (default: %(default)s)')
    training.add_argument(
        '--optimizer', choices=OPTIMIZERS,
        help='sgd has Nesterov momentum 0.9, momentum the classical one, also 0.9 '
             f'({by_recipe("optimizer")})')
    training.add_argument(
        '--learnrate', type=RATE, help='default: ' + ', '.join(
            f'{rate} ({name})' for name, rate in OPTIMIZERS.items()))
    training.add_argument(
        '--weight-decay', type=NOT_NEGATIVE, metavar='RATE',
        help=f'on every parameter but those of BN ({by_recipe("weight_decay")})')
    training.add_argument(
        '--schedule', choices=SCHEDULES,
        help='linear, cosine: learning rate down to 0; step: divided by 10 after 1/2 and 3/4 of '
             f'the epochs that follow the warm-up; step-thirds: after 1/3 and 2/3 '
             f'({by_recipe("schedule")})')
    training.add_argument(
        '--warmup', type=NOT_NEGATIVE, metavar='EPOCHS',
        help='first the learning rate rises linearly over so many epochs '
             f'({by_recipe("warmup")}, but at most half of --epoch)')
    training.add_argument(
        '--seed', type=SEED, default=0,
        help='of weights, data order, augmentation and mixup (default: %(default)s)')
    training.add_argument(
        '--device', default='auto', metavar='cpu|ID|auto',
        help='cpu, the number of a GPU, or auto: the first GPU where there is one '
             '(default: %(default)s)')
    training.add_argument(
        '--dtype', choices=DTYPES, default='float32',
        help='mixed16, on a GPU: float16 with weights, statistics and sums in float32 and dynamic '
             'loss scaling (default: %(default)s)')
    training.add_argument(
        '--engine', choices=(*ENGINES, 'auto'), default='auto',
        help='fast: the same up to rounding, in less time; stock: Chainer as it is; auto: '
             'fast, but stock on a GPU without cuDNN (default: %(default)s)')
    training.add_argument(
        '--graph', choices=('on', 'off', 'auto'), default='auto',
        help='whether training steps and evaluations are recorded as CUDA graphs and replayed; '
             'auto: wherever the fast engine runs on a GPU (default: %(default)s)')
    training.add_argument(
        '--autotune', action='store_true',
        help='measure the algorithms of cuDNN and take the fastest: repeated runs then differ by '
             'rounding (default: those that give the same bits each time)')

    run = parser.add_argument_group('run')
    run.add_argument(
        '--out', metavar='DIR',
        help='where the results of the run go (default: runs/DATASET-RECIPE-METHOD-SEED)')
    run.add_argument(
        '--resume', action='store_true',
        help='continue from the newest snapshot in --out, with the same options')
    run.add_argument(
        '--snapshot-every', type=number(int, 'a whole number from 0', lambda n: n >= 0),
        default=10, metavar='EPOCHS',
        help='0: only when the run is interrupted (default: %(default)s)')
    run.add_argument(
        '--estimate', type=COUNT, metavar='RUNS',
        help='print how long that many such runs would take, and stop')

    args = parser.parse_args(argv)
    args.method = method
    fill_in(args, architectures)
    check_network(args, architectures[args.arch])
    return args


def fill_in(args, architectures):
    """Give the options that depend on others their defaults."""
    args.arch = args.arch or RECIPES[args.recipe]['arch']
    defaults = values(args.recipe, args.arch)
    stems = architectures[args.arch].stems
    if defaults['stem'] not in stems:
        defaults['stem'] = stems[0]
    args.epoch = args.epoch or defaults['epoch']
    defaults['warmup'] = min(defaults['warmup'], args.epoch / 2)
    for name, value in defaults.items():
        if name in args and getattr(args, name) is None:  # the baseline has no options of the mixup
            setattr(args, name, value)
    if args.learnrate is None:
        args.learnrate = OPTIMIZERS[args.optimizer]
    if args.normalize is None:
        args.normalize = 'standard' if args.augment == 'standard' else 'unit'
    if args.out is None:
        dataset = os.path.basename(os.path.abspath(args.dataset)).lstrip('.') or 'data'
        args.out = f'runs/{dataset}-{args.recipe}-{args.method}-{args.seed}'
    if args.warmup >= args.epoch:
        raise Invalid(f'--warmup: given {args.warmup:g}, valid: from 0 to less than the '
                      f'{args.epoch} of --epoch')
    if not args.out:
        raise Invalid('--out: given an empty name, valid: that of a directory')


def check_network(args, network):
    """Whether a network class has the stem and the layers; all of these where none are given."""
    if args.stem not in network.stems:
        raise Invalid(f'--stem: given {args.stem!r}, valid: {", ".join(network.stems)}, the stems '
                      f'of {args.arch}')
    if args.method == 'baseline':
        return
    layers = network.layers
    args.layer_mix = args.layer_mix or list(layers)
    for layer in args.layer_mix:
        if layer not in layers:
            raise Invalid(f'--layer-mix: given {layer}, valid: {layers[0]} to {layers[-1]}, '
                          f'the layers of {args.arch}')
