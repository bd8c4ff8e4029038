"""What a borrowed GPU is used for in a given time: parts, archive, paired trainings."""
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import types

import pytest

from benchmarks import gpu_check, mps, paired_training
from benchmarks.archive import Archive
from benchmarks.paired_training import Failed, Training
from experiment.errors import Invalid
from tests.conftest import ROOT


def arguments(tmp_path, *given):
    return gpu_check.parse_args(['--out', str(tmp_path / 'out'), '--device', 'cpu', '--dataset',
                                 'digits', *given])


# The time

def test_parts_share_the_time_by_what_they_need_and_leave_the_rest_to_the_next():
    needs = gpu_check.NEEDS
    assert gpu_check.share(['tests', 'step'], 100) == \
        100 * needs['tests'] / (needs['tests'] + needs['step'])
    assert gpu_check.share(['step'], 77) == 77


def test_each_part_gets_its_share_of_what_is_left(tmp_path, monkeypatch):
    given = []

    def run(part, seconds, command, out, **environment):
        given.append((part, round(seconds)))
        return {'part': part, 'status': 'ok'}
    monkeypatch.setattr(gpu_check, 'run', run)
    args = arguments(tmp_path, 'train', 'tests', 'step')
    tests, step, train = (gpu_check.NEEDS[part] for part in ('tests', 'step', 'train'))
    total = tests + step + train
    gpu_check.run_all(args, time.monotonic() + total, {'parts': []})
    # Each took no time here, so that the last has all of it.
    assert given == [('tests', tests), ('step', round(total * step / (step + train))),
                     ('train', total)]


@pytest.mark.parametrize('given, valid', [
    (['speed'], "the part 'speed', valid: tests, step, profile, train"),
    (['--device', 'gpu'], "'gpu', valid: the number of a GPU, or cpu"),
    (['--dataset', 'cifar11'], '--dataset cifar11 is neither'),
    (['--seeds', '0', '0'], '--seeds: given one twice'),
    (['--train', '--bogus 3'], 'unrecognized arguments: --bogus 3'),
    (['--train', '--epoch "3'], '--train: given --epoch "3: No closing quotation'),
    (['--train', '--epoch 3 --out=x'], '--train: given --out, which is an option of this call'),
    (['--seconds', '0'], "'0', valid: a number above 0")])
def test_what_cannot_be_used_is_said_before_anything_is_begun(tmp_path, given, valid):
    with pytest.raises(Invalid, match=valid):
        arguments(tmp_path, *given)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_an_archive_that_cannot_be_written_is_said_before_anything_is_begun(tmp_path):
    for place, said in (tmp_path / 'no' / 'x.tgz', 'cannot be written'), \
            (tmp_path / 'out' / 'x.tgz', 'is in --out'):
        run = subprocess.run(
            [sys.executable, '-m', 'benchmarks.gpu_check', 'profile', '--device', 'cpu',
             '--out', tmp_path / 'out', '--archive', place], cwd=ROOT, capture_output=True,
            text=True)
        assert run.returncode == 2 and said in run.stderr and os.listdir(tmp_path) == []


def test_a_folder_that_exists_is_not_overwritten(tmp_path):
    run = subprocess.run([sys.executable, '-m', 'benchmarks.gpu_check', '--out', tmp_path],
                         cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and f'--out: {tmp_path} exists; name a new one, or' in run.stderr


# The parts

def options(**changes):
    return types.SimpleNamespace(**{'device': '0', 'out': 'x', 'dataset': 'cifar10',
                                    'seeds': [0, 1], 'train': '', **changes})


def test_the_tests_run_in_parallel_where_xdist_is(monkeypatch):
    for there in True, False:
        monkeypatch.setattr(gpu_check, 'has', lambda package: there)
        command = gpu_check.command_of('tests', 100, options())
        assert ('-n' in command) == there
        assert command[:4] == ['-m', 'pytest', '-m', 'gpu']


def test_the_step_is_that_of_both_stems_beside_all_that_is_installed(monkeypatch):
    for there in True, False:
        monkeypatch.setattr(gpu_check, 'has', lambda package: there)
        command = ' '.join(gpu_check.command_of('step', 100, options()))
        assert '--case resnet50-imagenet --case resnet50-cifar' in command
        assert '--batch 128 --rounds 5 --budget 100' in command
        for name in 'engine graph autotune', 'engine graph', 'engine autotune', 'engine', 'chainer':
            assert f'--contestant {name}' in command
        for name in 'pytorch channels-last', 'pytorch graph', 'compile graph':
            assert (f'--contestant {name}' in command) == there


def test_the_trainings_take_options_of_their_own():
    command = gpu_check.command_of('train', 300, options(train='--recipe standard --epoch 60'))
    assert command[-4:] == ['--recipe', 'standard', '--epoch', '60']
    assert ' '.join(command[:4]) == '-m benchmarks.paired_training --device 0'
    assert '--engine fast' in ' '.join(command)


def test_a_part_that_fails_or_is_not_whole_is_said_so(tmp_path, monkeypatch):
    failed = gpu_check.run('a', 9, ['-c', 'print(1); raise SystemExit(5)'], str(tmp_path))
    assert failed['status'] == 'failed with status 5' and failed['last'] == ['1']
    assert gpu_check.run('c', 9, ['-c', ''], str(tmp_path))['status'] == 'ok'
    monkeypatch.setattr(gpu_check, 'start_python', lambda command, log: subprocess.Popen(
        [sys.executable, '-c', 'raise SystemExit(3)'], process_group=0))
    for module, status in ('benchmarks.any', 'unfinished'), ('pytest', 'failed with status 3'):
        assert gpu_check.run('b', 9, ['-m', module], str(tmp_path))['status'] == status


@pytest.mark.slow
def test_a_part_whose_time_is_up_may_say_what_it_has(tmp_path):
    late = gpu_check.run('a', 4, ['-c', '''
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    print('half of it')'''], str(tmp_path))
    assert late['status'] == 'unfinished' and late['last'] == ['half of it']
    assert late['seconds'] < 4


@pytest.mark.slow
def test_a_part_that_does_not_end_is_killed_with_all_that_it_has_started(tmp_path):
    late = gpu_check.run('a', 2, ['-c', STUBBORN], str(tmp_path))
    assert late['status'] == 'unfinished' and 1.5 < late['seconds'] < 4
    assert not is_running(int(late['last'][0]))


STUBBORN = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(child.pid, flush=True)
time.sleep(60)'''


def call(tmp_path, seconds):
    """gpu_check of which each part hangs, in a process of its own."""
    code = f'''
import sys
from benchmarks import gpu_check
gpu_check.command_of = lambda part, seconds, args: ['-c', {STUBBORN!r}]
gpu_check.check_training = lambda args: None
gpu_check.GRACE = 2
with gpu_check.one_line_errors():
    sys.exit(gpu_check.main())'''
    return subprocess.Popen(
        [sys.executable, '-c', code, '--device', 'cpu', '--out', str(tmp_path / 'out'),
         '--seconds', str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def children(tmp_path):
    return [int(log.read_text()) for log in (tmp_path / 'out').glob('*.log') if log.read_text()]


@pytest.mark.slow
def test_the_whole_call_ends_in_time_even_if_every_part_hangs(tmp_path):
    start = time.monotonic()
    with call(tmp_path, 9) as process:
        assert process.wait() == 1
    assert time.monotonic() - start < 9 + 4  # for the imports of a busy machine
    assert len(children(tmp_path)) == 3 and not any(map(is_running, children(tmp_path)))
    summary = json.loads(contents(tmp_path / 'out.tar.gz')['out/summary.json'])
    assert [part['status'] for part in summary['parts']] == [
        'unfinished', 'unfinished', 'left out', 'unfinished']


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_is_ended_ends_its_part_soon_and_leaves_the_archive(tmp_path, number):
    with call(tmp_path, 300) as process:
        for _ in range(400):
            if children(tmp_path):
                break
            time.sleep(.05)
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait() == 130
    assert time.monotonic() - start < 6
    pid, = children(tmp_path)
    assert not is_running(pid)
    found = contents(tmp_path / 'out.tar.gz')
    assert json.loads(found['out/summary.json'])['parts'] == [
        {'part': 'tests', 'status': 'interrupted'}] and 'out/tests.log' in found


def test_pytorch_compiles_beside_the_tests_if_the_step_is_measured_then(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(gpu_check, 'run', lambda part, *_, **__: (
        begun.append(part), {'part': part, 'status': 'ok'})[1])
    monkeypatch.setattr(gpu_check, 'has', lambda package: True)
    monkeypatch.setattr(gpu_check, 'start_python', lambda command, log: (
        begun.append(command[1]), subprocess.Popen([sys.executable, '-c', '']))[1])
    args = arguments(tmp_path, 'tests', 'step')
    args.device = '7'
    os.makedirs(args.out)
    gpu_check.run_all(args, time.monotonic() + 50, {'parts': []})
    compiled, tests, step = begun
    assert (tests, step) == ('tests', 'step')
    assert "'compile graph', case, 128, 'tf32', '7'" in compiled


def is_running(pid):
    for _ in range(50):
        try:
            with open(f'/proc/{pid}/stat') as file:
                if file.read().rsplit(')', 1)[1].split()[0] == 'Z':
                    return False
        except FileNotFoundError:
            return False
        time.sleep(.05)
    return True


FAILING = '''
import os, signal, time

def test_first():
    assert 1 + 1 == 3, 'sums are wrong'

def test_second():
    {end}
'''


def failing_tests(tmp_path, end):
    (tmp_path / 'test_it.py').write_text(FAILING.format(end=end))
    return ['-m', 'pytest', '-q', '--tb=short', '-p', 'no:cacheprovider', '-c', os.devnull,
            '-p', 'benchmarks.failures', '--failures', str(tmp_path / 'failures.txt'),
            str(tmp_path / 'test_it.py')]


@pytest.mark.slow
def test_failed_tests_are_reported_where_the_time_is_up(tmp_path):
    late = gpu_check.run('tests', 12, failing_tests(tmp_path, 'time.sleep(60)'), str(tmp_path))
    assert late['status'] == 'unfinished'
    log = (tmp_path / 'tests.log').read_text()
    assert 'AssertionError: sums are wrong' in log and '1 failed' in log


def test_failed_tests_are_there_where_the_tests_were_killed(tmp_path):
    end = 'os.kill(os.getpid(), signal.SIGKILL)'
    run = subprocess.run([sys.executable, *failing_tests(tmp_path, end)], cwd=ROOT)
    assert run.returncode == -signal.SIGKILL
    failures = (tmp_path / 'failures.txt').read_text()
    assert 'test_it.py::test_first, call' in failures and 'sums are wrong' in failures


# The archive

def contents(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_the_archive_has_all_but_weights_and_follows_the_folder(tmp_path):
    folder, path = tmp_path / 'check', str(tmp_path / 'back.tar.gz')
    (folder / 'train' / 'baseline-0').mkdir(parents=True)
    with Archive(str(folder), path, seconds=.05):
        (folder / 'a.log').write_text('one')
        for name in 'log', 'model.npz', 'model_best.npz', 'snapshot_iter_7':
            (folder / 'train' / 'baseline-0' / name).write_text(name)
        for _ in range(200):
            if 'check/a.log' in contents(path):
                break
            time.sleep(.05)
        assert contents(path)['check/a.log'] == b'one'
        (folder / 'a.log').write_text('one two')
    assert contents(path) == {'check/a.log': b'one two', 'check/train/baseline-0/log': b'log'}
    assert sorted(os.listdir(tmp_path)) == ['back.tar.gz', 'check']


def test_a_file_that_is_gone_when_it_is_read_is_no_harm(tmp_path, monkeypatch):
    (tmp_path / 'check').mkdir()
    (tmp_path / 'check' / 'a.log').write_text('one')
    archive = Archive(str(tmp_path / 'check'), str(tmp_path / 'back.tar.gz'))
    found = [str(tmp_path / 'check' / name) for name in ('run.jsonx1y2', 'a.log')]
    monkeypatch.setattr(archive, 'files', lambda: found)
    archive.write()
    assert contents(tmp_path / 'back.tar.gz') == {'check/a.log': b'one'}


def test_an_archive_that_cannot_be_written_shows_at_once(tmp_path):
    with pytest.raises(Invalid), Archive(str(tmp_path), str(tmp_path / 'no' / 'x.tar.gz')):
        pass


@pytest.mark.slow
def test_a_call_that_is_killed_leaves_what_it_had(tmp_path):
    (tmp_path / 'test_it.py').write_text('')
    code = f'''
import os, signal, time
from benchmarks.archive import Archive
with Archive({str(tmp_path)!r}, {str(tmp_path / 'x.tgz')!r}, seconds=.05):
    open({str(tmp_path / 'late.log')!r}, 'w').write('late')
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)'''
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == -signal.SIGKILL
    assert 'late' in str(contents(tmp_path / 'x.tgz'))


# Paired trainings

def training(paces, seconds=100, epochs=10, seeds=(0, 1, 2, 3), failing=(), cost=0, shared=None):
    """A Training of which an epoch, with so many pairs at once, takes so long by a clock that
    stands still but for them and for what measuring costs; and the trainings that it then does.

    By ``shared``, a number, all is so many times as slow.
    """
    args = types.SimpleNamespace(seconds=seconds, epoch=epochs, recipe='blog', seeds=list(seeds),
                                 device='cpu', out='x')
    made = Training(args, {'baseline': [], 'manifoldmixup': []})
    left, trained = [seconds], []
    made.left = lambda: left[0]

    def measure(n, seconds):
        left[0] -= cost
        if n in failing:
            raise Failed('out of memory')
        return paces[n] * (shared if made.environment else 1), 0

    def train(seeds):
        trained.append((list(seeds), made.epochs))
        left[0] -= made.epochs * made.paces[len(seeds)][0]
    made.measure, made.train = measure, train
    made.measure_all(shared and {'CUDA_MPS_PIPE_DIRECTORY': 'x'})
    made.train_all()
    return made, trained


def test_pairs_are_added_as_long_as_more_is_done_in_the_same_time():
    made, trained = training({1: 2, 2: 2.5, 3: 3.7, 4: 3.8})
    assert list(made.paces) == [1, 2]  # three take half as long again as two
    assert trained == [([0, 1], 10), ([2, 3], 10)]


def test_as_many_pairs_as_fit_are_trained():
    _, trained = training({1: 2, 2: 4}, seconds=70)
    assert trained == [([0], 10), ([1], 10), ([2], 10)]
    _, trained = training({1: 5, 2: 6, 3: 7}, seconds=90, failing=[4])
    assert trained == [([0, 1, 2], 10)]


def test_if_no_pair_fits_one_is_trained_for_as_many_epochs_as_do():
    made, trained = training({1: 20, 2: 20}, seconds=100)
    assert list(made.paces) == [1]
    assert trained == [([0], 4)]  # 100 / 20 / 1.08


def test_another_pair_is_not_measured_if_the_first_would_not_fit_any_more():
    made, trained = training({1: 8}, seconds=100, cost=10)
    assert list(made.paces) == [1] and trained == [([0], 10)]


def test_more_pairs_than_the_memory_holds_are_no_harm(capsys):
    made, trained = training({1: 1}, failing=[2])
    assert list(made.paces) == [1] and len(trained) == 4
    assert 'out of memory' in capsys.readouterr().out


def test_a_single_pair_that_fails_is_an_error():
    with pytest.raises(Failed):
        training({}, failing=[1])


def test_an_epoch_counts_that_began_when_all_were_at_work():
    log = [{'elapsed_time': t} for t in (9, 11, 14, 16)]
    assert paired_training.seconds_an_epoch(log, 1) == 2.5
    assert paired_training.seconds_an_epoch(log[:1], 1) == 9
    assert paired_training.seconds_an_epoch(log[:2], 1) == 2


@pytest.mark.parametrize('n, seconds, enough', [
    (2, 99, False), (3, 9, False), (3, 10, True), (4, 0, False), (5, 0, True)])
def test_three_epochs_are_measured_or_ten_seconds(n, seconds, enough):
    assert paired_training.is_enough([{}] * n, 1, seconds) == enough


@pytest.mark.parametrize('slower, pace, used', [(.5, 1, True), (.99, 2, False), (2, 2, False)])
def test_a_gpu_is_shared_by_the_service_if_that_is_faster(slower, pace, used):
    made, _ = training({1: 2}, failing=[2], shared=slower)
    assert made.paces[1][0] == pace and bool(made.environment) == used


def test_a_service_with_which_runs_fail_is_not_used():
    made, trained = training({1: 2}, failing=[2])
    measure = made.measure

    def failing(n, seconds):
        if made.environment:
            raise Failed('MPS cannot be reached')
        return measure(n, seconds)
    made.measure = failing
    made.paces.clear()
    made.left = lambda: 100
    made.measure_all({'CUDA_MPS_PIPE_DIRECTORY': 'x'})
    assert made.environment == {} and made.paces[1] == (2, 0)


CONTROL = '''#!/bin/sh
echo "$0 $* $(cat) in $CUDA_MPS_PIPE_DIRECTORY" | sed 's/.*mps-control/did/' >> {log}
{then}
'''


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A function that puts a stand-in for the service's control program in place; and its log."""
    log = tmp_path / 'log'

    def put(then):
        program = tmp_path / mps.CONTROL
        program.write_text(CONTROL.format(log=log, then=then))
        program.chmod(0o755)
        monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
        return log
    return put


def test_the_service_runs_as_long_as_it_is_used(control, tmp_path):
    log = control('exit 0')
    with mps.service(str(tmp_path / 'mps')) as environment:
        pipes = environment['CUDA_MPS_PIPE_DIRECTORY']
        assert log.read_text() == f'did -d  in {pipes}\n'
        assert environment['CUDA_MPS_LOG_DIRECTORY'] == str(tmp_path / 'mps')
    assert log.read_text().split('\n')[1] == f'did  quit in {pipes}'
    assert not os.path.exists(pipes)


@pytest.mark.parametrize('then', ['exit 1', 'sleep 5'])
def test_where_the_service_does_not_start_there_is_none(control, tmp_path, monkeypatch, then):
    control(then)
    monkeypatch.setattr(mps, 'TIMEOUT', .2)
    with mps.service(str(tmp_path / 'mps')) as environment:
        assert environment is None


def test_where_the_driver_brings_no_service_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with mps.service(str(tmp_path / 'mps')) as environment:
        assert environment is None
    assert os.listdir(tmp_path) == []


def test_runs_get_the_environment_of_the_service(tmp_path, monkeypatch):
    monkeypatch.setattr(paired_training, 'ROOT', str(tmp_path))
    (tmp_path / 'train_x.py').write_text('import os; print(os.environ["SERVICE"])')
    command = 'x', 0, str(tmp_path / 'x-0'), [], {'SERVICE': 'this'}
    with paired_training.running([command]) as runs:
        runs[0].process.wait()
    assert (tmp_path / 'x-0.log').read_text() == 'this\n'


def test_pairs_of_which_one_run_is_missing_are_not_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(paired_training.subprocess, 'run', lambda command, **_: (
        compared.extend(command), types.SimpleNamespace(returncode=0))[1])
    runs = [types.SimpleNamespace(name=name, out=f'x/{name}')
            for name in ('baseline-0', 'baseline-1', 'manifoldmixup-1')]
    paired_training.compare(runs, 'x')
    assert compared[2:-2] == ['x/baseline-1', 'x/manifoldmixup-1']
    assert paired_training.compare(runs[:2], 'x') == 0 and len(compared) == 6


def pair(tmp_path, *given, seconds=60):
    return ['-m', 'benchmarks.paired_training', '--device', 'cpu', '--seconds', str(seconds),
            '--dataset', 'digits', '--out', str(tmp_path / 'out'), *given]


@pytest.mark.parametrize('given, said', [
    (['--seeds', '0', '0'], '--seeds: given one twice'),
    (['--bogus', '3'], 'train_baseline.py: unrecognized arguments: --bogus 3'),
    (['--layer-mix', '9'], 'train_manifoldmixup.py: --layer-mix: given 9')])
def test_options_of_the_trainings_are_read_before_anything_is_begun(tmp_path, given, said):
    with pytest.raises(Invalid, match=said):
        paired_training.parse_args(pair(tmp_path, *given)[2:])
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_run_that_fails_while_it_is_measured_leaves_its_log(tmp_path):
    run = subprocess.run([sys.executable, *pair(tmp_path, '--batchsize', '9999')], cwd=ROOT,
                         capture_output=True, text=True)
    assert run.returncode == 1 and 'ended with status 2: train_' in run.stdout
    logs = list((tmp_path / 'out' / 'measuring-1').glob('*.log'))
    assert any('--batchsize: given 9999' in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_pair_is_trained_and_compared_in_the_given_time(tmp_path, cifar10_images):
    images = cifar10_images(tmp_path / 'images', 60, 25)
    run = subprocess.run(
        [sys.executable, '-m', 'benchmarks.paired_training', '--device', 'cpu', '--seconds', '90',
         '--seeds', '5', '--epoch', '2', '--out', tmp_path / 'out', '--dataset', images,
         '--batchsize', '20', '--mixup-alpha', '1'], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / 'out' / 'training.json').read_text())
    assert report['finished'] == ['baseline-5', 'manifoldmixup-5'] and not report['unfinished']
    assert list(report['seconds_an_epoch']) == ['1']
    records = {method: json.loads((tmp_path / 'out' / f'{method}-5' / 'run.json').read_text())
               for method in ('baseline', 'manifoldmixup')}
    assert records['manifoldmixup']['options']['mixup_alpha'] == 1
    assert records['baseline']['seeds'] == records['manifoldmixup']['seeds']
    assert (tmp_path / 'out' / 'comparison.md').exists()


@pytest.mark.slow
def test_a_pair_that_the_end_of_the_time_cuts_off_leaves_snapshots(tmp_path, cifar10_images):
    images = cifar10_images(tmp_path / 'images', 60, 25)
    code = '''
import sys
from benchmarks import paired_training
paired_training.Training.measure = lambda self, n, seconds: (.001, 0)  # far too little
sys.exit(paired_training.main())'''
    run = subprocess.run(
        [sys.executable, '-c', code, '--device', 'cpu', '--seconds', '40', '--seeds', '5',
         '--epoch', '9999', '--out', tmp_path / 'out', '--dataset', images, '--batchsize', '20'],
        cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 3, run.stdout + run.stderr
    assert 'nothing to compare' in run.stdout and 'Unfinished: baseline-5, ' in run.stdout
    report = json.loads((tmp_path / 'out' / 'training.json').read_text())
    assert set(report['unfinished']) == {'baseline-5', 'manifoldmixup-5'}
    for name in report['unfinished']:
        assert list((tmp_path / 'out' / name).glob('snapshot_iter_*'))

