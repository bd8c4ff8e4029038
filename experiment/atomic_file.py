"""Files that appear whole or not at all."""
import contextlib
import os
import signal
import tempfile
import threading


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
        OSError: If the file cannot be written.
    """
    folder = os.path.dirname(path) or '.'
    with exit_on_sigterm(), tempfile.TemporaryDirectory(dir=folder) as temporary:
        name = os.path.join(temporary, 'unfinished')
        with open(name, mode) as file:
            yield file
        os.replace(name, path)


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
