"""What the system refuses: one line with path and remedy, exit status 2, nothing lost."""
import errno
import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

import experiment
from experiment.errors import AT_END, Invalid, listed, one_line_errors
from experiment.memory import amount, available
from tests.conftest import ROOT


def line(capsys, error):
    """What is printed where an error leaves the boundary, and the status."""
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    message = capsys.readouterr().err
    assert message.count('\n') == (end.value.code == 2)
    return message, end.value.code


@pytest.mark.parametrize('error, expected', [
    (Invalid('first\n second'), 'error: first second\n'),
    (OSError(errno.ENOSPC, 'No space left on device', 'a/b'),
     'a/b: No space left on device; free some space'),
    (PermissionError(errno.EACCES, 'Permission denied', 'a/b'),
     'a/b: Permission denied; change its permissions'),
    (OSError(errno.EIO, 'Input/output error'), 'the system: Input/output error'),
    (MemoryError('Unable to allocate 9.00 TiB'),
     'memory ran out (Unable to allocate 9.00 TiB): take a smaller --batchsize or --size'),
    (MemoryError(), 'memory ran out: take a smaller --batchsize or --size\n')])
def test_an_error_is_one_line(capsys, error, expected):
    message, status = line(capsys, error)
    assert expected in message and status == 2


def test_a_mistake_in_the_program_keeps_its_traceback():
    for error in OSError('no number of the system'), ZeroDivisionError():
        with pytest.raises(type(error)), one_line_errors():
            raise error


def test_ctrl_c_is_silent(capsys):
    assert line(capsys, KeyboardInterrupt()) == ('', 130)


def test_what_has_to_be_undone_is_undone(capsys):
    undone = []
    AT_END.callback(undone.append, 1)
    line(capsys, Invalid('x'))
    assert undone == [1]


def test_long_lists_end_in_a_count():
    assert listed('abc') == 'a, b, c' and listed('abcd', most=2) == 'a, b and 2 more'


def test_amounts_of_memory_are_for_people():
    assert [amount(n) for n in (0, 1023, 1024, 3 * 2 ** 30, 2 ** 60)] == [
        '0.0 bytes', '1023.0 bytes', '1.0 KiB', '3.0 GiB', '1024.0 PiB']
    there = available()
    assert there is None or 0 < there < 2 ** 50


# The scripts

def train(*arguments, **options):
    return subprocess.run(
        [sys.executable, 'train_baseline.py', '--device', 'cpu', '--dataset', 'digits',
         '--augment', 'none', '--batchsize', '32', *arguments],
        cwd=ROOT, text=True, stderr=subprocess.PIPE, **options)


def limit_files():
    """No file may be larger than the models, so that the snapshot fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (150 * 2 ** 20, 150 * 2 ** 20))


@pytest.mark.slow
def test_a_disk_that_is_full_ends_in_a_line_and_leaves_what_was_there(tmp_path):
    out = tmp_path / 'run'
    ended = train('--epoch', '2', '--snapshot-every', '2', '--out', out, preexec_fn=limit_files)
    assert ended.returncode == 2
    assert ended.stderr == (f'train_baseline.py: error: {out}/snapshot_iter_90: File too large; '
                            'name a directory where files may be larger, then run it again (a '
                            'training script with --resume, if its run had begun)\n')
    # The final model is not there before the snapshot: it says that the run is finished.
    assert sorted(os.listdir(out)) == ['accuracy.png', 'log', 'loss.png', 'model_best.npz',
                                       'run.json']
    assert len(json.loads((out / 'log').read_text())) == 2
    assert np.load(out / 'model_best.npz')['fc6/W'].shape == (10, 2048)


@pytest.mark.slow
def test_memory_that_runs_out_is_one_line(tmp_path):
    def limit_memory():
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2 ** 30, 3 * 2 ** 30))

    ended = train('--batchsize', '1437', '--stem', 'cifar', '--out', tmp_path / 'run',
                  preexec_fn=limit_memory, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert ended.returncode == 2, ended.stderr
    assert 'error: memory ran out' in ended.stderr.splitlines()[-1]
    assert 'Traceback' not in ended.stderr


def test_a_pipe_that_was_closed_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    ended = train('--estimate', '1', '--out', tmp_path / 'run', stdout=writing)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, '')


@pytest.mark.slow
@pytest.mark.parametrize('closed', [(1,), (2,), (1, 2)])
def test_a_stream_that_is_closed_is_no_error(tmp_path, closed):
    ended = train('--estimate', '1', '--out', tmp_path / 'run',
                  preexec_fn=lambda: [os.close(stream) for stream in closed])
    assert (ended.returncode, ended.stderr) == (0, '')


@pytest.mark.slow
def test_sigterm_while_data_are_read_leaves_nothing(tmp_path):
    code = f'''
import os, signal
from experiment import run_directory
from experiment.errors import one_line_errors
from tests.test_run_directory import arguments
with one_line_errors():
    run_directory.claim(arguments({str(tmp_path / 'runs' / 'a')!r}))
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
'''
    ended = subprocess.run([sys.executable, '-c', code], cwd=ROOT)
    assert ended.returncode == 143 and os.listdir(tmp_path) == []


def test_a_name_that_the_terminal_lacks_is_printed_all_the_same(tmp_path):
    ended = train('--dataset', tmp_path / 'größe', env={**os.environ, 'PYTHONIOENCODING': 'ascii'})
    assert ended.returncode == 2 and ended.stderr.count('\n') == 1 and r'gr\xf6' in ended.stderr


def test_what_is_printed_never_stops_a_run(tmp_path, monkeypatch):
    with open(tmp_path / 'terminal', 'w', encoding='ascii') as terminal:
        monkeypatch.setattr(sys, 'stdout', terminal)
        with experiment.one_line_errors():
            print('größe')
    assert (tmp_path / 'terminal').read_text() == 'gr??e\n'
