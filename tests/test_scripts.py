"""Both scripts and compare.py as a user runs them, on CIFAR-10 images."""
import ast
import difflib
import functools
import json
import os
import signal
import subprocess
import sys
import time

import chainer
import numpy as np
import pytest

import engine
import experiment
import train_baseline
import train_manifoldmixup
from experiment import estimate, grid
from experiment.dataset import load
from mixup import LOSSES
from model import ResNet50

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = {'baseline': train_baseline, 'manifoldmixup': train_manifoldmixup}
FILES = {'run.json', 'log', 'loss.png', 'accuracy.png', 'model.npz', 'model_best.npz'}


@pytest.fixture(scope='module')
def images(cifar10_images, tmp_path_factory):
    """60 training and 25 test images; batches of 10 leave an odd one of 5."""
    return cifar10_images(tmp_path_factory.mktemp('images'), 60, 25)


def options(images, out, epoch=2):
    return ['--dataset', images, '--batchsize', '10', '--epoch', str(epoch), '--device', 'cpu',
            '--out', str(out)]


def run(script, *arguments):
    """A script in a process of its own, as a user starts it."""
    return subprocess.run([sys.executable, script, *arguments], cwd=ROOT, text=True,
                          capture_output=True)


def call(method, *arguments):
    """A script in this process; its exit status, 0 where it ends by itself."""
    before = sys.argv
    sys.argv = [f'train_{method}.py', *arguments]
    try:
        with experiment.one_line_errors():
            SCRIPTS[method].main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before
    return 0


def read_log(out):
    with open(os.path.join(out, 'log')) as file:
        return json.load(file)


def assert_same_run(one, other):
    """Assert that two runs of two epochs are bit-identical but for the time."""
    logs = [[{key: value for key, value in entry.items() if key != 'elapsed_time'}
             for entry in read_log(out)] for out in (one, other)]
    assert logs[0] == logs[1] and len(logs[0]) == 2
    for name in 'model.npz', 'model_best.npz':
        with np.load(os.path.join(one, name)) as a, np.load(os.path.join(other, name)) as b:
            assert set(a.files) == set(b.files) and len(a.files) > 250
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(scope='module')
def runs(images, tmp_path_factory):
    """A finished run of each script, and what it printed."""
    parent = tmp_path_factory.mktemp('runs')
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENBLAS_VERBOSE', '0')
        for method in SCRIPTS:
            found[method] = run(f'train_{method}.py', *options(images, parent / method))
    return parent, found


@pytest.mark.parametrize('method', SCRIPTS)
def test_a_run_prints_its_device_and_a_line_an_epoch(runs, method):
    process = runs[1][method]
    lines = process.stdout.splitlines()
    assert process.returncode == 0
    assert process.stderr == ''
    assert lines[0].startswith('Device: CPU (') and 'NumPy' in lines[0]
    assert lines[0].endswith(', engine fast')
    assert lines[3].startswith('Data: ') and '60 images to train' in lines[3]
    assert any('lower than validation/main/accuracy' in line for line in lines) == (
        method == 'manifoldmixup')
    *_, header, first, second = (line.split() for line in lines)
    assert header == ['epoch', 'main/loss', 'main/accuracy', 'validation/main/loss',
                      'validation/main/accuracy', 'elapsed_time']
    assert (first[0], second[0]) == ('1', '2')
    assert '\033' not in process.stdout


@pytest.mark.parametrize('method', SCRIPTS)
def test_a_run_leaves_its_record_log_plots_and_models_behind(runs, images, method):
    out = runs[0] / method
    assert set(os.listdir(out)) == FILES
    for name in 'loss.png', 'accuracy.png':
        assert (out / name).read_bytes().startswith(b'\x89PNG')
    log = read_log(out)
    assert [entry['iteration'] for entry in log] == [6, 12]
    for entry in log:
        assert {'epoch', 'elapsed_time', 'lr', 'main/loss', 'main/accuracy',
                'validation/main/loss', 'validation/main/accuracy'} <= entry.keys()
    record = json.loads((out / 'run.json').read_text())
    assert record['method'] == method
    assert record['options']['batchsize'] == 10 and record['options']['optimizer'] == 'adam'
    assert ('mixup_alpha' in record['options']) == (method == 'manifoldmixup')
    assert set(record['seeds']) == {'weights', 'mixup', 'order', 'augmentation'}
    train, test = load(images)
    assert record['data']['classes'] == [str(i) for i in range(10)]
    assert record['data']['train'] == train.record()
    assert record['data']['test'] == {'validate_on': 'test', **test.record()}
    assert sum(record['data']['train']['per_class']) == 60
    start, = record['starts']
    assert record['options']['engine'] == 'fast'
    assert start['environment'] == {**engine.environment.in_effect(), 'OPENBLAS_VERBOSE': '0'}
    assert start['iteration'] == 0 and start['versions']['chainer'].startswith('7.8.1')
    assert start['command'].startswith(f'python train_{method}.py --dataset')


@pytest.mark.parametrize('method', SCRIPTS)
def test_the_final_model_has_the_validation_figures_of_the_last_epoch(runs, images, method):
    network = ResNet50()
    chainer.serializers.load_npz(str(runs[0] / method / 'model.npz'), network)
    _, test = load(images)
    x = test.images.astype('f') / 255
    with chainer.using_config('train', False):
        y = network(x).array.astype('d')
    loss = np.mean(np.log(np.exp(y).sum(1)) - y[np.arange(25), test.labels])
    last = read_log(runs[0] / method)[-1]
    assert last['validation/main/loss'] == pytest.approx(loss, rel=1e-4)
    assert last['validation/main/accuracy'] == pytest.approx(np.mean(y.argmax(1) == test.labels))


def test_compare_reads_what_the_scripts_wrote(runs):
    process = run('compare.py', str(runs[0]))
    assert process.returncode == 0, process.stderr
    assert process.stderr == ''
    assert 'Manifold Mixup (alpha 0.2, layers 0–5)' in process.stdout
    assert 'one pair of runs: no interval' in process.stdout
    written = json.loads((runs[0] / 'comparison.json').read_text())
    row = written['groups'][0]['rows'][1]
    accuracy = [read_log(runs[0] / method)[-1]['validation/main/accuracy'] for method in SCRIPTS]
    assert row['difference']['mean'] == pytest.approx(100 * (accuracy[1] - accuracy[0]))
    assert (runs[0] / 'comparison.png').read_bytes().startswith(b'\x89PNG')
    assert (runs[0] / 'comparison.md').read_text() in process.stdout


@pytest.mark.slow
def test_the_runs_of_one_seed_are_bit_identical(runs, images, tmp_path):
    assert call('manifoldmixup', *options(images, tmp_path / 'again')) == 0
    assert_same_run(runs[0] / 'manifoldmixup', tmp_path / 'again')


@pytest.mark.slow
def test_another_seed_is_another_run(runs, images, tmp_path):
    assert call('manifoldmixup', *options(images, tmp_path, 1), '--seed', '1') == 0
    assert read_log(tmp_path)[0]['main/loss'] != read_log(runs[0] / 'manifoldmixup')[0]['main/loss']


def interrupt(monkeypatch, iteration, number):
    """Let the next run in this process get a signal in that iteration."""
    start = experiment.start

    def start_and_arm(trainer, *arguments):
        start(trainer, *arguments)
        trainer.extend(lambda trainer: trainer.updater.iteration == iteration
                       and os.kill(os.getpid(), number), name='interruption')
    monkeypatch.setattr(experiment, 'start', start_and_arm)


@pytest.mark.parametrize('method, iteration, number', [
    ('manifoldmixup', 8, signal.SIGTERM),
    pytest.param('baseline', 6, signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_bit_for_bit(runs, images, tmp_path, monkeypatch, capsys,
                                                method, iteration, number):
    with monkeypatch.context() as patch:
        interrupt(patch, iteration, number)
        assert call(method, *options(images, tmp_path)) == 128 + number
    assert f'snapshot of iteration {iteration}' in capsys.readouterr().err
    assert os.path.exists(tmp_path / f'snapshot_iter_{iteration}')
    assert not os.path.exists(tmp_path / 'model.npz')

    assert call(method, *options(images, tmp_path), '--resume') == 0
    assert f'snapshot_iter_{iteration}' in capsys.readouterr().out
    assert_same_run(runs[0] / method, tmp_path)
    starts = json.loads((tmp_path / 'run.json').read_text())['starts']
    assert [start['iteration'] for start in starts] == [0, iteration]


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_snapshot_begins_anew(runs, images, tmp_path,
                                                                     monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt(patch, 7, signal.SIGTERM)  # in the second epoch
        assert call('baseline', *options(images, tmp_path)) == 143
    os.remove(tmp_path / 'snapshot_iter_7')
    assert call('baseline', *options(images, tmp_path), '--resume') == 0
    assert 'Resuming from the beginning' in capsys.readouterr().out
    assert_same_run(runs[0] / 'baseline', tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('first, second', [('stock', 'fast'), ('fast', 'stock')])
def test_a_run_goes_on_with_the_other_engine(images, tmp_path, monkeypatch, first, second):
    with monkeypatch.context() as patch:
        interrupt(patch, 7, signal.SIGTERM)
        assert call('baseline', *options(images, tmp_path), '--engine', first) == 143
    begun = read_log(tmp_path)
    assert call('baseline', *options(images, tmp_path), '--engine', second, '--resume') == 0
    log = read_log(tmp_path)
    assert len(log) == 2 and log[:1] == begun and np.isfinite(log[1]['main/loss'])


@pytest.mark.slow
def test_a_finished_run_can_be_made_longer(runs, images, tmp_path):
    assert call('manifoldmixup', *options(images, tmp_path, 1), '--snapshot-every', '1') == 0
    final = (tmp_path / 'model.npz').read_bytes()
    os.remove(tmp_path / 'model.npz')  # as if it had been killed before it wrote that
    assert call('manifoldmixup', *options(images, tmp_path, 1), '--resume') == 0
    assert (tmp_path / 'model.npz').read_bytes() == final
    assert call('manifoldmixup', *options(images, tmp_path, 2), '--resume') == 0
    assert_same_run(runs[0] / 'manifoldmixup', tmp_path)


@pytest.mark.slow
def test_ctrl_c_in_another_process_ends_with_a_snapshot(images, tmp_path):
    process = subprocess.Popen(
        [sys.executable, 'train_baseline.py', *options(images, tmp_path, 500)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.time() + 120
        while not os.path.exists(tmp_path / 'log'):
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert message.count('\n') == 1 and '--resume' in message
    assert [name for name in os.listdir(tmp_path) if name.startswith('snapshot_iter_')]


@pytest.mark.slow
@pytest.mark.parametrize('method', SCRIPTS)
def test_the_standard_recipe_trains_on_an_archive_of_cifar10(cifar10_archive, tmp_path, method):
    process = run(f'train_{method}.py', '--data-archive', cifar10_archive(tmp_path / 'a.tar.gz', 4),
                  '--recipe', 'standard', '--epoch', '1', '--warmup', '0', '--batchsize', '4',
                  '--device', 'cpu', '--out', str(tmp_path / 'out'))
    assert process.returncode == 0, process.stderr
    assert 'another checksum' in process.stderr and process.stderr.count('\n') == 1
    entry, = read_log(tmp_path / 'out')
    assert np.isfinite(entry['main/loss'])
    assert entry['lr'] == pytest.approx(np.mean(0.05 * (1 + np.cos(np.pi * np.arange(5) / 5))))


def trainer_of(method, arguments, monkeypatch):
    """The trainer as the script has made it, before its first step."""
    class Made(Exception):
        pass

    def capture(trainer, *others):
        raise Made(trainer)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, 'start', capture)
        with pytest.raises(Made) as made:
            call(method, *arguments)
    return made.value.args[0]


@pytest.mark.parametrize('mixup', [[], ['--layer-mix', '0']], ids=['manifold', 'input'])
def test_the_scripts_are_paired_by_seed(images, tmp_path, monkeypatch, mixup):
    given = options(images, tmp_path)
    trainers = [trainer_of('baseline', given, monkeypatch),
                trainer_of('manifoldmixup', given + mixup, monkeypatch)]
    models = [trainer.updater.get_optimizer('main').target for trainer in trainers]
    assert models[0].mixup_hidden is False and models[1].mixup_hidden is True
    for (name, one), (_, other) in zip(*(sorted(model.namedparams()) for model in models)):
        np.testing.assert_array_equal(one.array, other.array, err_msg=name)
    for _ in range(15):  # into the third epoch
        batches = [trainer.updater.get_iterator('main').next() for trainer in trainers]
        assert batches[0] == batches[1]
        np.random.seed(np.random.randint(100))  # the mixup draws as it likes
        arrays = [trainer.updater.converter(batch, None)
                  for trainer, batch in zip(trainers, batches)]
        for one, other in zip(*arrays):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('loss', [pytest.param('ce', marks=pytest.mark.slow), 'bce'])
def test_both_scripts_train_and_evaluate_with_the_loss_that_is_asked_for(
        images, tmp_path, monkeypatch, loss):
    for method in SCRIPTS:
        trainer = trainer_of(method, [*options(images, tmp_path), '--loss', loss], monkeypatch)
        model = trainer.updater.get_optimizer('main').target
        assert model.criterion is LOSSES[loss]
        assert trainer.get_extension('validation').get_target('main') is model


def test_the_scripts_differ_in_the_mixup_alone():
    lines = []
    for method in SCRIPTS:
        with open(os.path.join(ROOT, f'train_{method}.py')) as file:
            tree = ast.parse(file.read())
        tree.body = tree.body[1:]  # without the docstring
        lines.append(ast.unparse(tree).splitlines())
    changed = [line for line in difflib.ndiff(*lines) if line[0] in '+-']
    assert [line[0] + line[1:].strip() for line in changed] == [
        "-args = experiment.parse_args(__doc__, 'baseline', ARCHITECTURES)",
        "+args = experiment.parse_args(__doc__, 'manifoldmixup', ARCHITECTURES)",
        '-model = ManifoldMixupClassifier(network, mixup_hidden=False, '
        'criterion=LOSSES[args.loss])',
        '+model = ManifoldMixupClassifier(network, mixup_hidden=True, '
        'mixup_alpha=args.mixup_alpha, layer_mix=args.layer_mix, lam_per=args.lam_per, '
        'criterion=LOSSES[args.loss])']


def test_an_estimate_writes_nothing(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, 'seconds', functools.partial(estimate.seconds, limit=0))
    out = tmp_path / 'none'
    assert call('baseline', *options(images, out), '--estimate', '4') in (0, None)
    assert '2 epochs, 4 runs one after another: 0:' in capsys.readouterr().out
    assert not os.path.exists(out)


@pytest.mark.slow
def test_the_grid_trains_all_and_compares_and_then_has_nothing_left_to_do(images, tmp_path):
    command = ['-m', 'experiment.grid', '--methods', *grid.SCRIPTS, '--seeds', '3', '--jobs', '2',
               *options(images, tmp_path, 1), '--mixup-alpha', '2', '--input-alpha', '1']
    process = run(*command)
    assert process.returncode == 0 and process.stderr == ''
    assert '1 epochs, 3 runs one after another' in process.stdout
    assert '3 of 3 runs finished' in process.stdout
    assert '| alpha 2, layers 0–5 | alpha 1, layer 0 | 1 ' in process.stdout
    seen = set()  # of the data, the weights and their order
    for method in grid.SCRIPTS:
        assert set(os.listdir(tmp_path / f'{method}-3')) == FILES | {'output'}
        record = json.loads((tmp_path / f'{method}-3' / 'run.json').read_text())
        seen.add(json.dumps([record['data'], record['seeds']]))
    assert len(seen) == 1
    process = run(*command)
    assert process.returncode == 0 and process.stderr == ''
    assert process.stdout.count('is finished already') == 3
    assert 'Estimate' not in process.stdout


@pytest.mark.slow
def test_the_grid_ends_where_a_script_refuses(images, tmp_path):
    process = run('-m', 'experiment.grid', '--seeds', '0', *options(images, tmp_path, 1),
                  '--stem', 'none')
    assert process.returncode == 2 and process.stderr.count('\n') == 1
    assert not os.listdir(tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize('method, dtype', [
    *((method, 'float32') for method in SCRIPTS), ('manifoldmixup', 'mixed16')])
def test_on_a_gpu_a_run_is_the_same_with_graphs_and_without(
        method, dtype, images, tmp_path, capsys, monkeypatch):
    for graph in 'on', 'off':
        out = tmp_path / graph
        arguments = options(images, out) + [
            '--batchsize', '20', '--device', '0', '--engine', 'fast', '--dtype', dtype,
            '--graph', graph]
        assert call(method, *arguments) == 0
        line = capsys.readouterr().out.splitlines()[0]
        assert ('graph on' in line) == (graph == 'on') and 'engine fast' in line
        assert read_log(out)[-1]['iteration'] == 6
        assert (engine.gpu.graphs.steps is not None) == (graph == 'on')
    assert_same_run(tmp_path / 'on', tmp_path / 'off')
    with np.load(tmp_path / 'on' / 'model.npz') as npz:
        assert npz['base/res2/a/conv1/W'].dtype.name == {'mixed16': 'float16'}.get(dtype, dtype)

    # From a snapshot that a run by graphs has left in the midst of its work
    arguments = [a.replace(str(tmp_path / 'off'), str(tmp_path / 'cut')) for a in arguments]
    arguments[-1] = 'on'
    with monkeypatch.context() as patch:
        interrupt(patch, 4, signal.SIGTERM)
        assert call(method, *arguments) == 143
    assert call(method, *arguments, '--resume') == 0
    assert_same_run(tmp_path / 'on', tmp_path / 'cut')
