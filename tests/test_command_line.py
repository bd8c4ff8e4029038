"""Refusals: one line on stderr, exit status 2, nothing written or overwritten."""
import json
import os
import pickle
import zipfile

import chainer
import numpy as np
import pytest

import experiment
import experiment.grid
import train_baseline
import train_manifoldmixup
from experiment.model_files import save_npz
from experiment.options import parse_args
from experiment.recipes import RECIPES, text
from model import ARCHITECTURES, BaseResNet50


def refused(capsys, monkeypatch, *arguments, script=train_manifoldmixup):
    """The line on stderr with which the script refuses its arguments."""
    monkeypatch.setattr('sys.argv', [script.__file__, *map(str, arguments)])
    with pytest.raises(SystemExit) as end, experiment.one_line_errors():
        script.main()
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.count('\n') == 1 and message.startswith(os.path.basename(script.__file__))
    return message


@pytest.mark.parametrize('arguments, named', [
    (('--dataset', 'no-such-set'), ['no-such-set', 'cifar10', 'digits']),
    (('--recipe', 'thesis'), ['thesis', 'blog', 'standard', 'paper', 'fast']),
    (('--arch', 'no-such-net'), ['no-such-net', 'resnet50']),
    (('--engine', 'warp'), ['warp', 'fast', 'stock']),
    (('--dtype', 'float16'), ['float16', 'float32', 'mixed16']),
    (('--device', 'cpu', '--dtype', 'mixed16'), ['--dtype', 'mixed16', 'float32', 'GPU']),
    (('--stem', 'no-such-stem'), ['no-such-stem', 'imagenet', 'cifar']),
    (('--loss', 'mse'), ['mse', 'ce', 'bce']),
    (('--optimizer', 'lamb'), ['lamb', 'adam', 'sgd']),
    (('--schedule', 'root'), ['root', 'linear', 'cosine', 'step', 'step-thirds', 'constant']),
    (('--warmup', '-1'), ['-1', 'from 0']),
    (('--warmup', 'nan'), ['nan', 'from 0']),
    (('--epoch', '5', '--warmup', '5'), ['--warmup: given 5', 'less than the 5 of --epoch']),
    (('--augment', 'cutout'), ['cutout', 'blog', 'standard', 'none']),
    (('--normalize', 'whiten'), ['whiten', 'unit', 'standard', 'caffe']),
    (('--layer-mix', '0,6'), ['6', '0 to 5', 'resnet50']),
    (('--layer-mix', '-1'), ['-1', '0 to 5']),
    (('--layer-mix', 'all'), ['all', '0,1,2']),
    (('--layer-mix', ''), ["''", '0,1,2']),
    (('--lam-per', 'pixel'), ['pixel', 'batch', 'example']),
    (('--mixup-alpha', '-0.1'), ['-0.1', '0, or 1e-300 to 1e300']),
    (('--mixup-alpha', 'nan'), ['nan', '0, or 1e-300 to 1e300']),
    (('--mixup-alpha', 'inf'), ['inf', '0, or 1e-300 to 1e300']),
    (('--mixup-alpha', '1e-310'), ['1e-310', '0, or 1e-300 to 1e300']),
    (('--mixup-alpha', '1e301'), ['1e301', '0, or 1e-300 to 1e300']),
    (('--epoch', '0'), ['0', 'from 1']),
    (('--epoch', '1' + 30 * '0'), ['1000', 'from 1 to 1000000']),
    (('--epoch', 400 * '1'), ['1111', 'from 1 to 1000000']),  # no float is so large
    (('--batchsize', '1.5'), ['1.5', 'from 1']),
    (('--learnrate', '0'), ['0', 'above 0']),
    (('--weight-decay', '-1'), ['-1', 'from 0']),
    (('--seed', '4294967296'), ['4294967296', '0 to 4294967295']),
    (('--snapshot-every', '-1'), ['-1', 'from 0']),
    (('--device', 'gpu'), ['gpu', 'cpu', 'auto']),
    (('--device', '-1'), ['-1', 'cpu', 'auto']),
    (('--batch', '3'), ['--batch']),
    (('--dataset', 'digits', '--size', '64'), ['--size 64', 'digits', '32 x 32']),
    (('--size', '1'), ['1', 'from 8']),
    (('--dataset', 'digits', '--batchsize', '2000'), ['2000', '1 to 1437']),
    (('--dataset', 'digits', '--pretrained', 'none.npz'), ['--pretrained', 'none.npz']),
    (('--dataset', 'digits', '--data-archive', 'x.tar.gz'), ['--data-archive', 'digits']),
])
def test_an_invalid_option_is_refused(capsys, monkeypatch, tmp_path, arguments, named):
    out = tmp_path / 'out'
    message = refused(capsys, monkeypatch, *arguments, '--out', out)
    for name in named:
        assert name in message
    assert not os.path.exists(out)


@pytest.mark.skipif(experiment.device.cuda.available, reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_refused(capsys, monkeypatch, tmp_path):
    message = refused(capsys, monkeypatch, '--device', '0', '--out', tmp_path / 'out')
    assert 'no GPU' in message and '--device cpu' in message


@pytest.mark.parametrize('option', ['--mixup-alpha', '--layer-mix'])
def test_the_baseline_has_no_mixup_options(capsys, monkeypatch, option):
    assert option in refused(capsys, monkeypatch, option, '1', script=train_baseline)


@pytest.mark.parametrize('name', ['run.json', 'log', 'model.npz', 'model_best.npz', 'loss.png',
                                  'snapshot_iter_12'])
def test_a_directory_that_holds_a_run_is_not_overwritten(capsys, monkeypatch, tmp_path, name):
    (tmp_path / name).write_text('kept')
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--out', tmp_path)
    assert str(tmp_path) in message and '--resume' in message
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == 'kept'


def test_a_file_as_output_directory_is_refused(capsys, monkeypatch, tmp_path):
    (tmp_path / 'out').write_text('kept')
    assert 'directory' in refused(capsys, monkeypatch, '--out', tmp_path / 'out')


def test_an_output_directory_that_cannot_be_made_is_refused(capsys, monkeypatch, tmp_path):
    (tmp_path / 'file').write_text('kept')
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--out', tmp_path / 'file' / 'a')
    assert '--out' in message and 'cannot be written' in message


@pytest.mark.parametrize('arguments, named', [
    (('--seed', '7'), '--seeds'), (('--resume',), '--resume'), (('--estimate', '3'), '--estimate'),
    (('--seeds', '-1'), '0 to 4294967295'),
    (('--seeds', '1', '1'), '--seeds: given one twice'),
    (('--methods', 'baseline', 'baseline'), '--methods: given one twice'),
    (('--methods', 'cutmix'), 'inputmixup'), (('--jobs', '0'), '1 to 1000000'),
    (('--input-alpha', '-1'), '--input-alpha')])
def test_the_grid_refuses_what_it_decides_itself(capsys, monkeypatch, tmp_path, arguments, named):
    monkeypatch.setattr('sys.argv', ['grid.py', '--out', str(tmp_path / 'out'), *arguments])
    with pytest.raises(SystemExit) as end, experiment.one_line_errors():
        experiment.grid.main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count('\n') == 1 and named in message
    assert not os.path.exists(tmp_path / 'out')


def test_a_finished_run_without_a_snapshot_is_not_to_be_removed(capsys, monkeypatch, tmp_path):
    resumable(tmp_path)
    (tmp_path / 'log').write_text('[{"epoch": 300}]')
    (tmp_path / 'model.npz').write_text('kept')
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--epoch', '400', '--resume',
                      '--out', tmp_path)
    assert 'finished' in message and 'remove' not in message


def test_resuming_where_there_is_no_run_is_refused(capsys, monkeypatch, tmp_path):
    assert 'holds no run' in refused(capsys, monkeypatch, '--resume', '--out', tmp_path / 'none')


def resumable(folder, **changes):
    """A run directory as ``--dataset digits`` has made it, but for the changes."""
    args = parse_args('', 'manifoldmixup', ARCHITECTURES, ['--dataset', 'digits', '--out', 'none'])
    options = {**experiment.run_directory.options(args), **changes}
    record = {'method': args.method, 'options': options, 'starts': []}
    (folder / 'run.json').write_text(json.dumps(record))
    return folder


def test_resuming_with_other_options_is_refused(capsys, monkeypatch, tmp_path):
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out',
                      resumable(tmp_path, batchsize=17))
    assert 'batchsize = 17, given 256' in message
    assert 'error: --resume: the run in' in message  # by which grid.py knows it


def test_a_schedule_is_not_stretched_by_resuming(capsys, monkeypatch, tmp_path):
    resumable(tmp_path, schedule='cosine')
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--schedule', 'cosine',
                      '--epoch', '400', '--resume', '--out', tmp_path)
    assert 'epoch = 300, given 400' in message


def test_resuming_by_the_other_script_is_refused(capsys, monkeypatch, tmp_path):
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out',
                      resumable(tmp_path), script=train_baseline)
    assert 'method = manifoldmixup, given baseline' in message


@pytest.mark.parametrize('text', ['', '{', '[]', '{"method": "baseline"}', 'null', '[' * 100000])
def test_a_damaged_record_is_refused(capsys, monkeypatch, tmp_path, text):
    (tmp_path / 'run.json').write_text(text)
    assert 'run.json' in refused(capsys, monkeypatch, '--resume', '--out', tmp_path)


@pytest.mark.parametrize('changes', [
    {'data': None}, {'data': []}, {'data': {}}, {'data': 5}, {'data': {'train': 5}},
    {'data': {'classes': [], 'train': {}, 'test': {}}}, {'starts': None}, {'starts': {}},
    {'data': {'classes': [1], 'train': {'images': 1, 'sha256': ''},
              'test': {'images': 1, 'sha256': ''}}},
    {'options': []}, {'options': {'epoch': 'x'}}, {'method': 3}])
def test_a_record_of_other_contents_is_refused(capsys, monkeypatch, tmp_path, changes):
    record = json.loads((resumable(tmp_path) / 'run.json').read_text())
    (tmp_path / 'run.json').write_text(json.dumps({**record, **changes}))
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out', tmp_path)
    assert 'run.json cannot be read as the record of a run' in message


@pytest.mark.parametrize('log', ['', '{', 'null', '[{"epoch": "x"}]', '[' * 100000])
def test_a_finished_run_with_a_damaged_log_is_not_trained_again(capsys, monkeypatch, tmp_path, log):
    resumable(tmp_path)
    (tmp_path / 'log').write_text(log)
    (tmp_path / 'model.npz').write_text('kept')
    refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out', tmp_path)
    assert (tmp_path / 'model.npz').read_text() == 'kept'


def test_a_record_without_an_option_of_today_is_refused(capsys, monkeypatch, tmp_path):
    record = json.loads((resumable(tmp_path) / 'run.json').read_text())
    del record['options']['dtype']
    (tmp_path / 'run.json').write_text(json.dumps(record))
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out', tmp_path)
    assert 'dtype = None, given float32' in message


@pytest.mark.parametrize('content', [b'', b'not a zip', b'PK\x03\x04damaged'])
def test_a_damaged_snapshot_is_refused(capsys, monkeypatch, tmp_path, content):
    (resumable(tmp_path) / 'snapshot_iter_5').write_bytes(content)
    message = refused(capsys, monkeypatch, '--dataset', 'digits', '--resume', '--out', tmp_path)
    assert 'snapshot_iter_5' in message


def test_the_newest_snapshot_is_the_one_of_the_highest_iteration(tmp_path):
    for iteration in 90, 1000, 200:
        (tmp_path / f'snapshot_iter_{iteration}').touch()
    (tmp_path / 'tmpsnapshot_iter_2000').touch()
    first, *_ = experiment.run_directory.snapshots(str(tmp_path))
    assert first.endswith('snapshot_iter_1000')
    assert experiment.run_directory.snapshots(str(tmp_path / 'none')) == []


def save_base(path, network, **changes):
    arrays = {name.lstrip('/'): parameter.array for name, parameter in network.namedparams()}
    for path_, link in network.namedlinks():
        if hasattr(link, 'avg_mean'):
            for name in 'avg_mean', 'avg_var', 'N':
                arrays[f'{path_}/{name}'.lstrip('/')] = getattr(link, name)
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def assert_same_weights(one, other):
    for (name, a), (_, b) in zip(sorted(one.namedparams()), sorted(other.namedparams())):
        np.testing.assert_array_equal(a.array, b.array, err_msg=name)


def refused_weights(path, network=None):
    """The message with which --pretrained refuses a file."""
    with pytest.raises(experiment.errors.Invalid, match='--pretrained: ') as error:
        experiment.load_pretrained(str(path), network or ARCHITECTURES['resnet50']())
    message = str(error.value)
    assert str(path) in message and 'allow_pickle' not in message
    assert 'valid: the model.npz of a run' in message
    assert 'ResNet-50-model.npz' in message and 'install/README.md#imagenet-weights' in message
    return message


def test_pretrained_weights_fill_the_base_and_leave_the_classifier(capsys, tmp_path):
    source, target = BaseResNet50(), ARCHITECTURES['resnet50']()
    fc6 = target.fc6.W.array.copy()
    save_base(tmp_path / 'resnet.npz', source, **{'fc6/W': np.zeros((1000, 2048), 'f')})
    experiment.load_pretrained(str(tmp_path / 'resnet.npz'), target)
    assert_same_weights(source, target.base)
    np.testing.assert_array_equal(target.fc6.W.array, fc6)
    assert capsys.readouterr().out == (
        f"Initial weights: {tmp_path}/resnet.npz, weights in Chainer's layout; the classifier "
        'starts from random weights\n')


@pytest.mark.slow
@pytest.mark.parametrize('n_class, described', [
    (10, 'the classifier starts from its weights too'),
    (7, 'the classifier starts from random weights: fc6/W has shape (10, 2048) in the file, '
        '(7, 2048) here')])
def test_a_model_of_a_run_fills_all_that_fits_its_classes(capsys, tmp_path, n_class, described):
    source, target = ARCHITECTURES['resnet50'](), ARCHITECTURES['resnet50'](n_class)
    source.base.bn1.avg_mean[:] = 3
    path = str(tmp_path / 'model.npz')
    save_npz(path, source)
    fc6 = target.fc6.copy('copy')
    state = str(np.random.get_state())
    experiment.load_pretrained(path, target)
    assert str(np.random.get_state()) == state
    assert_same_weights(source.base, target.base)
    assert_same_weights(source.fc6 if n_class == 10 else fc6, target.fc6)
    assert (target.base.bn1.avg_mean == 3).all()
    assert capsys.readouterr().out == f'Initial weights: {path}, a model of a run; {described}\n'


@pytest.mark.parametrize('network', [BaseResNet50] + [
    pytest.param(network, marks=[] if name == 'preactresnet18' else [pytest.mark.slow])
    for name, network in ARCHITECTURES.items() if name != 'resnet50'])
def test_a_network_without_a_backbone_takes_a_model_of_a_run(tmp_path, network):
    source, target = network(), network()
    save_npz(str(tmp_path / 'model.npz'), source)
    experiment.load_pretrained(str(tmp_path / 'model.npz'), target)
    assert_same_weights(source, target)


def test_every_network_takes_a_model_of_other_classes_but_for_the_classifier(capsys, tmp_path):
    source, target = ARCHITECTURES['resnet18'](10), ARCHITECTURES['resnet18'](7)
    fc = target.fc.copy('copy')
    save_npz(str(tmp_path / 'model.npz'), source)
    experiment.load_pretrained(str(tmp_path / 'model.npz'), target)
    for name in 'conv1', 'bn1', 'res2', 'res3', 'res4', 'res5':
        assert_same_weights(source[name], target[name])
    assert_same_weights(fc, target.fc)
    assert 'random weights: fc/W has shape (10, 512) in the file' in capsys.readouterr().out


@pytest.mark.parametrize('architecture, named', [
    ('preactresnet18', 'conv1/W has shape (64, 3, 7, 7) in the file, (64, 3, 3, 3) here'),
    ('resnet18', 'there is no fc/W in it')])
def test_imagenet_weights_of_another_network_are_refused(tmp_path, architecture, named):
    save_base(tmp_path / 'resnet.npz', BaseResNet50())
    assert named in refused_weights(tmp_path / 'resnet.npz', ARCHITECTURES[architecture]())


def test_an_array_of_another_shape_is_refused_by_a_network_without_a_backbone(tmp_path):
    source = BaseResNet50()
    save_base(tmp_path / 'other.npz', source, **{'bn1/beta': np.zeros(65, 'f')})
    assert 'bn1/beta has shape (65,)' in refused_weights(tmp_path / 'other.npz', BaseResNet50())


@pytest.mark.slow
@pytest.mark.parametrize('changes, named', [
    ({'res4/b2/conv2/W': None, 'res4/b2/bn1/N': None}, 'there is no res4/b2/bn1/N in it'),
    ({'conv1/W': np.zeros((64, 1, 1, 1), 'f')}, '(64, 1, 1, 1)'),
    ({'conv1/W': np.zeros((64, 3, 3, 3), 'f')}, '(64, 3, 7, 7)'),
    ({'bn1/avg_mean': np.zeros(1, 'f')}, 'bn1/avg_mean'),
    ({'bn1/avg_mean': np.full(64, 'text')}, 'cannot be read'),
    ({'bn1/N': np.array(None)}, 'bn1/N in it holds Python objects, which are not loaded'),
])
def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path, changes, named):
    save_base(tmp_path / 'other.npz', BaseResNet50(), **changes)
    assert named in refused_weights(tmp_path / 'other.npz')


@pytest.mark.slow
@pytest.mark.parametrize('stem, n_class, lost, named', [
    ('cifar', 10, '', 'base/conv1/W has shape (64, 3, 3, 3) in the file, (64, 3, 7, 7) here'),
    ('cifar', 7, '', 'base/conv1/W has shape (64, 3, 3, 3) in the file, (64, 3, 7, 7) here'),
    ('imagenet', 10, 'fc6/b', 'there is no fc6/b in it'),
    ('imagenet', 10, 'base/res5/a/bn1/beta', 'there is no base/res5/a/bn1/beta in it'),
    ('imagenet', 10, 'base', 'there is no bn1/N in it')])
def test_a_model_of_a_run_that_does_not_fit_is_refused(tmp_path, stem, n_class, lost, named):
    network = ARCHITECTURES['resnet50'](n_class, stem)
    weights = chainer.serializers.npz.serialize(network)
    np.savez(tmp_path / 'model.npz', **{name: array for name, array in weights.items()
                                        if not lost or not name.startswith(lost)})
    assert named in refused_weights(tmp_path / 'model.npz')


def test_a_snapshot_as_pretrained_weights_is_told_from_a_model(tmp_path):
    with open(tmp_path / 'snapshot_iter_3', 'wb') as file:
        np.savez(file, **{'updater/model:main/predictor/base/conv1/W': np.zeros(3)})
    message = refused_weights(tmp_path / 'snapshot_iter_3')
    assert 'it is a snapshot of a run, which only --resume takes; valid: the model.npz' in message


def write_npy(path):
    with open(path, 'wb') as file:
        np.save(file, np.zeros(3))


def write_zip(path):
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', 'as PyTorch writes it')


def write_cut_off(path):
    np.savez(path, **{'conv1/W': np.zeros(9999)})
    os.truncate(path, 9999)


def write_damaged(path):
    np.savez(path, **{'base/conv1/W': np.zeros((64, 3, 7, 7), 'f'), 'base/bn1/N': 3})
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)


def write_long_header(path):
    fields = np.dtype([(f'{i:0100}', 'f') for i in range(200)])  # NumPy: "fully trust the file"
    np.savez(path, **{'conv1/W': np.zeros(3, fields)})


@pytest.mark.slow
@pytest.mark.parametrize('write, named', [
    (lambda path: None, 'there is no file'),
    (os.mkdir, 'cannot be read: Is a directory'),
    (lambda path: path.write_bytes(b''), 'it is empty'),
    (lambda path: path.write_text('layer { name: "conv1" }'), 'it is not an npz file'),
    (lambda path: path.write_bytes(pickle.dumps({'conv1/W': 3})), 'it is not an npz file'),
    (write_npy, 'it is not an npz file'), (write_zip, 'there are no arrays in it'),
    (write_cut_off, 'it is cut off'), (write_damaged, 'base/conv1/W in it is damaged'),
    (write_long_header, 'conv1/W in it is damaged')])
def test_a_file_that_is_no_npz_is_refused_in_plain_words(tmp_path, write, named):
    write(tmp_path / 'weights.npz')
    assert named in refused_weights(tmp_path / 'weights.npz')


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)
    save_base(tmp_path / 'trap.npz', BaseResNet50(),
              **{'conv1/W': np.array([Trap()], dtype=object)})
    with pytest.raises(experiment.errors.Invalid):
        experiment.load_pretrained(str(tmp_path / 'trap.npz'), ARCHITECTURES['resnet50']())
    assert not os.path.exists(tmp_path / 'executed')


def test_help_names_every_default(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['train_manifoldmixup.py', '--help'])
    with pytest.raises(SystemExit):
        train_manifoldmixup.main()
    text = ' '.join(capsys.readouterr().out.split())
    for option in ('dataset', 'data-archive', 'train-size', 'validate-on', 'arch', 'stem',
                   'pretrained', 'recipe', 'epoch', 'batchsize', 'loss', 'optimizer', 'learnrate',
                   'weight-decay', 'schedule', 'warmup', 'augment', 'seed', 'device', 'out',
                   'resume', 'snapshot-every', 'mixup-alpha', 'lam-per', 'layer-mix', 'engine'):
        assert f'--{option}' in text
    assert 'default: 300 (blog), 200 (standard), 1200 (paper), 30 (fast), 400 (paper with ' in text
    assert '(default: 0.2 (blog, standard, fast), 2.0 (paper))' in text
    assert '(default: all (blog, standard, fast), 0,2,3 (paper), 0,2 (paper with wrn' in text


def test_the_default_recipe_is_that_of_the_blog_post():
    args = parse_args('', 'manifoldmixup', ARCHITECTURES, ['--out', 'none'])
    assert (args.recipe, args.dataset, args.epoch, args.batchsize) == ('blog', 'cifar10', 300, 256)
    assert (args.optimizer, args.learnrate, args.weight_decay) == ('adam', 0.001, 0)
    assert (args.augment, args.normalize, args.stem) == ('blog', 'unit', 'imagenet')
    assert (args.mixup_alpha, args.lam_per, args.layer_mix) == (0.2, 'batch', [0, 1, 2, 3, 4, 5])


def by_recipe(recipe, *arguments, method='baseline'):
    return parse_args('', method, ARCHITECTURES, ['--recipe', recipe, '--out', 'none', *arguments])


def test_the_standard_recipe_is_sgd_with_weight_decay():
    args = by_recipe('standard')
    assert (args.optimizer, args.learnrate, args.weight_decay) == ('sgd', 0.1, 1e-4)
    assert (args.augment, args.normalize, args.stem) == ('standard', 'standard', 'cifar')
    assert (args.schedule, args.warmup) == ('cosine', 5)


def test_the_papers_recipe_is_that_of_its_preactresnets():
    args = by_recipe('paper', method='manifoldmixup')
    assert (args.arch, args.epoch, args.batchsize) == ('preactresnet18', 1200, 100)
    assert (args.optimizer, args.learnrate, args.weight_decay) == ('momentum', 0.1, 1e-4)
    assert (args.schedule, args.warmup, args.loss) == ('step-thirds', 0, 'ce')
    assert (args.augment, args.normalize, args.stem) == ('standard', 'standard', 'cifar')
    assert (args.mixup_alpha, args.layer_mix) == (2, [0, 2, 3])


def test_the_papers_recipe_has_values_of_its_own_for_a_wide_resnet():
    preact, wide = (vars(by_recipe('paper', '--arch', arch, method='manifoldmixup'))
                    for arch in ('preactresnet18', 'wrn28-10'))
    assert {name: wide[name] for name in wide if wide[name] != preact[name]} == {
        'arch': 'wrn28-10', 'epoch': 400, 'schedule': 'step', 'layer_mix': [0, 2]}
    given = by_recipe('paper', '--arch', 'wrn28-10', '--epoch', '7', '--layer-mix', '1',
                      '--schedule', 'cosine', method='manifoldmixup')
    assert (given.epoch, given.layer_mix, given.schedule) == (7, [1], 'cosine')


def test_the_fast_recipe_is_one_cycle_of_30_epochs():
    args = by_recipe('fast')
    assert (args.arch, args.epoch, args.batchsize) == ('preactresnet18', 30, 128)
    assert (args.optimizer, args.learnrate, args.weight_decay) == ('sgd', 0.1, 5e-4)
    assert (args.schedule, args.warmup, args.augment) == ('linear', 6, 'standard')


@pytest.mark.parametrize('recipe', RECIPES)
def test_every_value_of_a_recipe_can_be_given_on_the_command_line(recipe):
    args = by_recipe(recipe, method='manifoldmixup')
    given = [f'--{name.replace("_", "-")}={text(getattr(args, name))}' for name in RECIPES[recipe]]
    for other in RECIPES:
        again = by_recipe(other, *given, method='manifoldmixup')
        assert vars(again) == {**vars(args), 'recipe': other}


def test_a_network_without_the_recipes_stem_takes_its_own_first_one():
    assert by_recipe('blog', '--arch', 'wrn28-10').stem == 'cifar'
    assert by_recipe('blog').stem == 'imagenet'
    with pytest.raises(experiment.errors.Invalid, match="--stem: given 'imagenet', valid: cifar, "):
        by_recipe('blog', '--arch', 'wrn28-10', '--stem', 'imagenet')


@pytest.mark.parametrize('epoch, warmup', [('1', .5), ('9', 4.5), ('10', 5), ('300', 5)])
def test_a_recipes_warm_up_is_at_most_half_of_the_training(epoch, warmup):
    assert by_recipe('standard', '--epoch', epoch).warmup == warmup
    assert by_recipe('standard', '--epoch', epoch, '--warmup', '.9').warmup == .9


def test_an_option_given_wins_over_its_recipe():
    args = by_recipe('standard', '--stem', 'imagenet', '--weight-decay', '0', '--optimizer', 'adam',
                     '--warmup', '0')
    assert (args.stem, args.weight_decay, args.warmup) == ('imagenet', 0, 0)
    assert args.learnrate == 0.001
