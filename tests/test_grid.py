"""experiment/grid.py with stand-ins for the scripts and for compare.py."""
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from engine import environment
from experiment import grid as program
from experiment.errors import one_line_errors
from experiment.processes import Run
from experiment.progress import Display
from tests.conftest import ROOT

# Writes down how it was called, and goes on only with the same --epoch.  --do is done each epoch.
SCRIPT = '''\
import argparse, glob, json, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('--resume', action='store_true')
for option in ('seed', 'out', 'epoch', 'estimate', 'mixup-alpha', 'lam-per', 'layer-mix', 'do'):
    parser.add_argument('--' + option)
args = parser.parse_args()
name = os.path.basename(args.out)

def path(file):
    return os.path.join(args.out, file)

def read(file):
    with open(path(file)) as content:
        return json.load(content)

def write(file, content):
    with open(path('new-' + file), 'w') as new:  # of its own: a signal may come meanwhile
        json.dump(content, new)
    os.replace(path('new-' + file), path(file))

def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        time.sleep(.01)
        if time.monotonic() > deadline:
            sys.exit('waited in vain')

def fail(text):
    sys.exit(print(f'script: error: {text}', file=sys.stderr) or 2)

if args.resume:
    if read('run.json')['options']['epoch'] != args.epoch:
        fail(f'--resume: the run in {args.out} has another epoch')
    if os.path.exists(path('model.npz')):
        sys.exit(print(f'{args.out} is finished already'))
for option in 'epoch', 'lam_per':
    if getattr(args, option) == 'bad':
        fail(f'--{option}: given bad')
with open('calls', 'a') as calls:
    print('estimate' if args.estimate else 'resume' if args.resume else 'train', name, file=calls)
if args.estimate:
    sys.exit()

received = []
def stop(number, frame):
    received.append(number)
    write('signals', received)
for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, stop)
os.makedirs(args.out, exist_ok=True)
write('run.json', {'options': {'epoch': args.epoch}, 'arguments': sys.argv})
log = read('log') if args.resume and os.path.exists(path('log')) else []
for epoch in range(len(log) + 1, int(args.epoch) + 1):
    exec(args.do or '')
    if received:
        time.sleep(.3)  # for another signal, if one comes
        sys.exit(128 + received[0])
    log.append({'epoch': epoch, 'validation/main/accuracy': epoch / 10})
    write('log', log)
open(path('model.npz'), 'w').close()
'''
COMPARE = 'import sys; print("compare", *sys.argv[1:], file=open("calls", "a"))'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with stand-ins, in which commands are run."""
    monkeypatch.chdir(tmp_path)
    for name in {'compare.py', *program.SCRIPTS.values()}:
        (tmp_path / name).write_text(COMPARE if name == 'compare.py' else SCRIPT)
    return tmp_path


@pytest.fixture
def grid(folder, monkeypatch, capfd):
    """A function that calls grid.py and returns its status, its stderr and the new calls."""
    def call(*arguments, out='demo'):
        (folder / 'calls').write_text('')
        monkeypatch.setattr('sys.argv', ['grid.py', '--seeds', '0', '--out', out, *arguments])
        status = 0
        try:
            with one_line_errors():
                program.main()
        except SystemExit as end:
            status = end.code
        call.printed, said = capfd.readouterr()
        return status, said, (folder / 'calls').read_text().splitlines()
    return call


ALL = '--methods', *program.SCRIPTS
COMPARED = 'compare demo/baseline-0 demo/manifoldmixup-0 --out demo'


def test_a_new_pair_is_estimated_trained_and_compared(grid):
    assert grid('--epoch', '4') == (0, '', [
        'estimate manifoldmixup-0', 'train baseline-0', 'train manifoldmixup-0', COMPARED])


@pytest.mark.parametrize('given, inputs, manifold', [
    ([], ['--layer-mix', '0'], []),
    (['--layer-mix', '0,2,3'], ['--layer-mix', '0'], ['--layer-mix', '0,2,3']),
    (['--mixup-alpha', '2'], ['--mixup-alpha', '2', '--layer-mix', '0'], ['--mixup-alpha', '2']),
    (['--mixup-alpha', '2', '--input-alpha', '1', '--lam-per', 'example'],
     ['--mixup-alpha', '1.0', '--lam-per', 'example', '--layer-mix', '0'],
     ['--mixup-alpha', '2', '--lam-per', 'example'])])
def test_each_method_gets_its_script_and_its_own_options(grid, folder, given, inputs, manifold):
    assert grid(*ALL, '--epoch', '1', *given)[:2] == (0, '')
    for method, script, mixup in (('baseline', 'train_baseline.py', []),
                                  ('inputmixup', 'train_manifoldmixup.py', inputs),
                                  ('manifoldmixup', 'train_manifoldmixup.py', manifold)):
        record = json.loads((folder / 'demo' / f'{method}-0' / 'run.json').read_text())
        assert record['arguments'] == [
            script, '--seed', '0', '--out', f'demo/{method}-0', '--epoch', '1', *mixup]


def test_seeds_come_one_after_another_and_one_method_alone_is_not_compared(grid):
    _, _, calls = grid('--epoch', '1', '--seeds', '0', '1')
    assert calls[1:-1] == ['train baseline-0', 'train manifoldmixup-0', 'train baseline-1',
                           'train manifoldmixup-1']
    assert grid('--epoch', '1', '--methods', 'inputmixup', out='one') == (
        0, '', ['estimate inputmixup-0', 'train inputmixup-0'])


@pytest.mark.parametrize('out', ['demo', 'my demo'])
@pytest.mark.parametrize('before', [[], ['--do', 'sys.exit(1)']], ids=['finished', 'unfinished'])
def test_runs_of_other_options_are_left_alone_and_the_way_out_is_named(grid, before, out):
    grid('--epoch', '4', *before, out=out)
    status, said, calls = grid('--epoch', '1', '--seeds', '1', '0', out=out)
    quoted = f"'{out}'" if ' ' in out else out
    assert status == 2 and not calls
    assert said.splitlines() == [
        f'script: error: --resume: the run in {out}/baseline-0 has another epoch',
        f'grid.py: {out} stays as it is; to begin anew: rm -r {quoted}, or name another '
        'directory by --out']
    assert grid('--epoch', '1', out='another')[0] == 0


def test_every_run_that_is_there_is_checked_before_any_goes_on(grid, folder):
    grid('--epoch', '4', '--do', 'sys.exit(1)')
    record = folder / 'demo' / 'manifoldmixup-0' / 'run.json'
    record.write_text(record.read_text().replace('"4"', '"5"'))
    status, said, calls = grid('--epoch', '4')
    assert status == 2 and 'demo/manifoldmixup-0 has another epoch' in said
    assert calls == ['estimate baseline-0']


def test_a_mistake_in_an_option_is_no_reason_to_begin_anew(grid):
    grid('--epoch', '4')
    for out, arguments in ('demo', ['--epoch']), ('new', ['--epoch', 'bad']):
        status, said, calls = grid(*arguments, out=out)
        assert status == 2 and not calls and 'rm -r' not in said
    assert not os.path.exists('new')


def test_a_mistake_in_an_option_of_the_mixup_alone_stops_all(grid):
    new = grid('--methods', 'inputmixup', 'baseline', '--epoch', '1', '--lam-per', 'bad')
    grid('--methods', 'baseline', '--epoch', '4', '--do', 'sys.exit(1)')
    status, said, calls = grid('--epoch', '4', '--lam-per', 'bad')
    assert new == (2, said, []) and said == 'script: error: --lam_per: given bad\n'
    assert status == 2 and calls == ['estimate baseline-0']


def test_an_empty_name_of_a_directory_is_refused(grid):
    said = 'grid.py: error: --out: given an empty name, valid: that of a directory\n'
    assert grid('--epoch', '1', out='') == (2, said, [])


def test_what_is_finished_is_only_compared_again(grid):
    grid('--epoch', '4')
    assert grid('--epoch', '4') == (0, '', [COMPARED])
    assert grid.printed.count('is finished already') == 2


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
@pytest.mark.parametrize('given, command', [
    ([], '--methods baseline manifoldmixup --seeds 0 1 2 --jobs 1 --out runs/cifar10'),
    (['METHODS=baseline inputmixup', 'JOBS=2', 'SEEDS=4', 'TRAIN=--epoch 3', 'OUT=x'],
     '--methods baseline inputmixup --seeds 4 --jobs 2 --out x --epoch 3')])
def test_make_train_names_methods_seeds_and_jobs(given, command):
    # Under another make, its variables would have this one name its directory.
    own = {name: value for name, value in os.environ.items()
           if not name.startswith(('MAKE', 'MFLAGS'))}
    made = subprocess.run(['make', '-n', 'train', 'PYTHON=python', *given], cwd=ROOT, env=own,
                          capture_output=True, text=True, check=True)
    assert made.stdout.replace('\\\n', '').split() == [
        'python', '-m', 'experiment.grid', *command.split()]


# Several at once

AT_ONCE = 'wait(lambda: len(glob.glob("demo/*/run.json")) == 2)'


def test_jobs_are_trained_at_once(grid):
    assert grid('--epoch', '1', '--jobs', '2', '--do', AT_ONCE)[:2] == (0, '')


def test_no_more_than_so_many_are_trained_at_once(grid, folder):
    count = 'write(f"seen-{name}", len(glob.glob("demo/*/run.json")))\ntime.sleep(.5)'
    grid(*ALL, '--epoch', '1', '--jobs', '2', '--do', count)
    assert (folder / 'demo/baseline-0/seen-baseline-0').read_text() in '12'
    assert (folder / 'demo/inputmixup-0/seen-inputmixup-0').read_text() in '12'


@pytest.mark.parametrize('jobs, cores, given, share', [
    (1, 8, {}, None), (2, 8, {}, '4'), (3, 8, {}, '2'), (2, 1, {}, '1'),
    (2, 8, {'OPENBLAS_NUM_THREADS': '7'}, '7'), (2, 8, {'OMP_NUM_THREADS': '7'}, None)])
def test_each_job_gets_its_share_of_the_cores(
        grid, folder, monkeypatch, jobs, cores, given, share):
    monkeypatch.setattr(environment, 'cores', lambda: cores)
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    grid('--epoch', '1', '--jobs', str(jobs), '--do',
         'write("threads", os.environ.get("OPENBLAS_NUM_THREADS"))')
    for method in program.PAIR:
        assert json.loads((folder / 'demo' / f'{method}-0' / 'threads').read_text()) == share


# Runs that end early

def test_a_run_that_fails_is_named_with_its_last_line_and_the_others_go_on(grid, folder):
    status, said, calls = grid(
        '--epoch', '3', '--do', 'print("hello"); name == "baseline-0" and epoch == 2 and '
        'sys.exit("script: error: the run has diverged")')
    assert (status, said) == (1, 'grid.py: error: baseline-0 failed: script: error: the run has '
                                 'diverged (see demo/baseline-0/output)\n')
    assert calls[1:] == ['train baseline-0', 'train manifoldmixup-0', COMPARED]
    assert ('baseline-0: epoch 1 of 3, validation accuracy 10.00 %; failed: script: error: the '
            'run has diverged') in grid.printed
    assert '1 of 2 runs finished, 1 failed' in grid.printed
    assert (folder / 'demo/manifoldmixup-0/output').read_text() == 'hello\n' * 3


@pytest.mark.parametrize('do, problem', [
    ('epoch == 2 and not args.resume and os.kill(os.getpid(), 9)', 'SIGKILL ended it'),
    ('epoch == 2 and not args.resume and sys.exit(7)', 'exit status 7')])
def test_the_same_command_goes_on_with_runs_that_ended_early(grid, do, problem):
    status, said, _ = grid('--epoch', '3', '--do', do)
    assert status == 1 and said == ''.join(
        f'grid.py: error: {method}-0 failed: {problem} (see demo/{method}-0/output)\n'
        for method in program.PAIR)
    assert grid('--epoch', '3', '--do', do) == (0, '', [
        'estimate baseline-0', 'estimate manifoldmixup-0', 'resume baseline-0',
        'resume manifoldmixup-0', COMPARED])


@pytest.mark.parametrize('failing', [['train_baseline.py'], [*set(program.SCRIPTS.values())]])
def test_where_no_two_methods_began_nothing_is_compared(grid, folder, failing):
    for script in failing:
        (folder / script).write_text('import sys; "--estimate" in sys.argv or sys.exit(3)')
    status, said, calls = grid('--epoch', '1')
    assert status == 1 and said.count('exit status 3') == len(failing)
    assert not any('compare' in call for call in calls)


def alive(pid):
    """Whether a process goes on; one that has ended may wait to be reaped."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(.05)


SLOW = 'write("pid", os.getpid()); time.sleep(0 if args.resume else .05)'


@pytest.fixture
def begun(folder):
    """grid.py in a process of its own, with two runs at once that are in their second epoch."""
    command = [sys.executable, '-m', 'experiment.grid', '--seeds', '0', '--out', 'demo', '--jobs',
               '2', '--epoch', '400', '--do', SLOW]
    process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True,
                               env={**os.environ, 'PYTHONPATH': ROOT})
    try:
        logs = [folder / 'demo' / f'{method}-0' / 'log' for method in program.PAIR]
        wait(lambda: all(log.exists() for log in logs) or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.communicate()


def signals(folder):
    return [(folder / 'demo' / f'{method}-0' / 'signals').read_text() for method in program.PAIR]


@pytest.mark.parametrize('number', [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_reaches_each_run_once_and_the_same_command_goes_on(begun, grid, folder, number):
    os.killpg(begun.pid, number)  # as a terminal does
    printed, said = begun.communicate(timeout=60)
    assert begun.returncode == 128 + number, said
    assert said == 'Interrupted; the same command goes on\n'
    assert signals(folder) == [f'[{int(number)}]'] * 2
    assert printed.count('; interrupted') == 2
    assert 'compare' not in (folder / 'calls').read_text()
    status, said, calls = grid('--epoch', '400', '--do', SLOW)
    assert (status, said) == (0, '') and calls[2:] == [
        'resume baseline-0', 'resume manifoldmixup-0', COMPARED]


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells a process of its parent')
def test_no_run_lives_on_after_a_grid_that_was_killed(begun, folder):
    pids = [(folder / 'demo' / f'{method}-0' / 'pid').read_text() for method in program.PAIR]
    assert all(map(alive, pids))
    begun.kill()
    wait(lambda: not any(map(alive, pids)))
    assert signals(folder) == [f'[{int(signal.SIGTERM)}]'] * 2  # hence with a snapshot


# What is shown

class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


class Shown:
    """A Display of three runs, one finished before, and a clock that is set by hand."""

    def __init__(self, folder, terminal):
        self.runs = [Run('baseline', seed, str(folder / f'baseline-{seed}'), ['none'])
                     for seed in range(3)]
        for run in self.runs:
            os.mkdir(run.out)
        self.write(self.runs[0], 10)
        self.stream, self.now = Stream(terminal), 1000
        self.display = Display(self.runs, self.runs[1:], self.stream, lambda: self.now)

    def write(self, run, epoch, accuracy=.7):
        for file, content in (('run.json', {'options': {'epoch': 10}}), ('log', [
                {'epoch': number + 1, 'validation/main/accuracy': accuracy}
                for number in range(epoch)])):
            with open(os.path.join(run.out, file), 'w') as out:
                json.dump(content, out)

    def begin(self, run):
        run.state = 'running'
        self.display.begin(run)

    def end(self, run, state):
        run.state = state
        self.display.end(run)

    def after(self, seconds):
        self.now += seconds
        self.display.update()

    def new(self):
        """What has been written since the last call."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text


def test_without_a_terminal_there_is_a_line_a_minute_and_no_escape_code(tmp_path):
    shown = Shown(tmp_path, terminal=False)
    _, one, two = shown.runs
    shown.begin(one)
    shown.begin(two)
    assert shown.new() == 'baseline-1 begins\nbaseline-2 begins\n'
    shown.write(one, 2)
    shown.after(50)
    assert shown.new() == ''
    shown.after(10)
    assert shown.new() == (
        'baseline-1: epoch 2 of 10, validation accuracy 70.00 %\n'
        '1 of 3 runs finished; 18 epochs to go; 0:01:00 elapsed, about 0:09:00 left\n')
    shown.after(61)
    assert shown.new() == ''  # no epoch is new
    shown.write(one, 10, accuracy=None)
    shown.end(one, 'finished')
    two.problem = 'broken'
    shown.end(two, 'failed')
    assert shown.new() == (
        'baseline-1: epoch 10 of 10; finished\n'
        '2 of 3 runs finished; 10 epochs to go; 0:02:01 elapsed, about 0:02:01 left\n'
        'baseline-2: epoch 0 of 10; failed: broken\n'
        '2 of 3 runs finished, 1 failed; 0 epochs to go; 0:02:01 elapsed\n')


def screen(text):
    """The lines on a terminal after a text in which the cursor goes up and clears what follows."""
    lines = ['']
    for part in re.findall(r'\x1b\[\d*[A-Z]|\n|[^\x1b\n]+', text):
        if part == '\n':
            lines.append('')
        elif match := re.fullmatch(r'\x1b\[(\d+)A', part):
            kept = len(lines) - 1 - int(match[1])
        elif part == '\x1b[J':
            lines[kept:] = ['']
        else:
            lines[-1] += part
    return lines


def test_on_a_terminal_a_block_is_shown_anew_each_second(tmp_path, monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')
    shown = Shown(tmp_path, terminal=True)
    _, one, two = shown.runs
    shown.begin(one)
    shown.begin(two)
    shown.write(two, 3)
    shown.after(.5)
    assert 'epoch 3' not in shown.stream.getvalue()
    shown.after(30)
    assert screen(shown.stream.getvalue()) == [
        'baseline-1: epoch 0 of 10',
        'baseline-2: epoch 3 of 10, validation accuracy 70.00 %',
        '1 of 3 runs finished; 17 epochs to go; 0:00:31 elapsed, about 0:02:53 left'[:59], '']
    shown.write(one, 10)
    shown.end(one, 'finished')
    assert screen(shown.stream.getvalue())[0::3] == [
        'baseline-1: epoch 10 of 10, validation accuracy 70.00 %; finished', '']
    shown.write(two, 9)
    shown.end(two, 'interrupted')
    shown.display.close()
    assert screen(shown.stream.getvalue()) == [
        'baseline-1: epoch 10 of 10, validation accuracy 70.00 %; finished',
        'baseline-2: epoch 9 of 10, validation accuracy 70.00 %; interrupted',
        '2 of 3 runs finished; 1 epoch to go; 0:00:31 elapsed, about 0:00:02 left', '']


def test_a_run_that_goes_on_from_a_snapshot_may_fall_behind_its_log(tmp_path):
    shown = Shown(tmp_path, terminal=False)
    _, one, two = shown.runs
    shown.write(one, 5)
    shown.display = Display(shown.runs, [one, two], shown.stream, lambda: shown.now)
    shown.begin(one)
    assert shown.new() == 'baseline-1 goes on\n'
    shown.write(one, 3)  # its log is cut back with the first epoch after the snapshot
    shown.after(60)
    shown.write(one, 4)
    shown.after(60)
    assert shown.new().splitlines()[-1] == (
        '1 of 3 runs finished; 16 epochs to go; 0:02:00 elapsed, about 0:32:00 left')


@pytest.mark.parametrize('content', ['', '{', '3', '[3]', 'null'])
def test_a_damaged_log_is_none(tmp_path, content):
    shown = Shown(tmp_path, terminal=False)
    with open(os.path.join(shown.runs[1].out, 'log'), 'w') as log:
        log.write(content)
    shown.display.read(shown.runs[1])
    assert shown.display.line(shown.runs[1]) == 'baseline-1: epoch 0 of ?'
