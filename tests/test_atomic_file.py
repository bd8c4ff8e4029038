"""A file is written whole or not at all, whatever ends the writing."""
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from experiment.atomic_file import new_file, write_json
from tests.conftest import ROOT


def test_a_file_appears_at_the_end_of_the_block_in_place_of_an_older_one(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with new_file(str(path), 'w') as file:
        file.write('new and longer')
        file.flush()
        assert path.read_text() == 'old'
    assert path.read_text() == 'new and longer' and os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
def test_what_interrupts_the_writing_leaves_the_old_file_alone(tmp_path, error):
    (tmp_path / 'file').write_text('old')
    with pytest.raises(error), new_file(str(tmp_path / 'file')) as file:
        file.write(b'half')
        raise error
    assert os.listdir(tmp_path) == ['file'] and (tmp_path / 'file').read_text() == 'old'


@pytest.mark.parametrize('number, status', [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_signal_while_a_file_is_written_leaves_nothing_behind(tmp_path, number, status):
    code = f'''
import os, signal, time
from experiment.atomic_file import new_file
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with new_file({str(tmp_path / 'file')!r}) as file:
    file.write(b'half')
    os.kill(os.getpid(), {int(number)})
    time.sleep(60)
'''
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert process.returncode == status and os.listdir(tmp_path) == []


def test_signals_are_handled_afterwards_as_before(tmp_path):
    def handler(number, frame):
        seen.append(number)

    seen = []
    for before in signal.SIG_DFL, handler:
        previous = signal.signal(signal.SIGTERM, before)
        try:
            with new_file(str(tmp_path / 'file')):
                if before is handler:
                    os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is before
        finally:
            signal.signal(signal.SIGTERM, previous)
    assert seen == [signal.SIGTERM]


def test_a_thread_may_write_too(tmp_path):
    def write():
        with new_file(str(tmp_path / 'file'), 'w') as file:
            file.write('text')

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert (tmp_path / 'file').read_text() == 'text'


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(str(tmp_path / 'run.json'), {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / 'run.json').st_mode) == 0o666 & ~umask


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(OSError), new_file(str(tmp_path / 'none' / 'file')):
        pass
