"""Files that appear whole or not at all."""
import contextlib
import glob
import json
import os
import shutil
import signal
import tempfile
import threading
import time

PREFIX = '.unfinished-'


@contextlib.contextmanager
def new_file(path, mode='wb'):
    """Open a file that takes the place of ``path`` at the end of a ``with`` block.

    Until then it has a temporary name in the same folder, so a reader finds the old file or the
    whole new one.  An error in the block, Ctrl-C and SIGTERM leave the old file, and nothing
    beside it.  The permissions are those of any new file: 0666 without the bits of the umask.

    Args:
        path (str): The file to write.
        mode (str): ``'wb'`` or ``'w'``, as for :func:`open`.

    Raises:
        OSError: If the file cannot be written; it names one, ``path`` as a rule.
    """
    folder, name = os.path.split(path)
    try:
        with exit_on_sigterm(), tempfile.TemporaryDirectory(
                prefix=f'{PREFIX}{name}-', dir=folder or '.') as temporary:
            unfinished = os.path.join(temporary, name)
            with open(unfinished, mode) as file:
                yield file
            os.replace(unfinished, path)
    except OSError as error:
        # A full disk names no file, and a temporary name helps nobody.
        if error.errno is not None and (not error.filename or PREFIX in str(error.filename)):
            error.filename = path
        raise


def write_json(path, value):
    """Write a value as JSON, in a folder that is made where it is missing."""
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with new_file(path, 'w') as file:
        json.dump(value, file, indent=2)
        file.write('\n')


def remove_unfinished(folder, age=0):
    """Remove what a killed program was writing into a folder by :func:`new_file`.

    Args:
        folder (str): Where it was writing.
        age (float): Seconds; what has changed since is left, as another program may be writing
            it. 0 where none can be.
    """
    for path in glob.glob(os.path.join(glob.escape(folder), f'{PREFIX}*', '')):
        with contextlib.suppress(FileNotFoundError):  # another process has been faster
            changed = max(map(os.path.getmtime, [path, *os.scandir(path)]))
            if time.time() - changed >= age:
                shutil.rmtree(path)


@contextlib.contextmanager
def exit_on_sigterm():
    """Let SIGTERM raise SystemExit, so that cleaning up is possible, unless it is handled already.

    Python runs handlers in the main thread alone: in another one this does nothing.
    """
    def end(number, frame):
        raise SystemExit(128 + number)

    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL):
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
