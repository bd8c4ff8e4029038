"""A folder's small files as one archive, made anew from time to time."""
import io
import os
import tarfile
import tempfile
import threading
import time

LEFT_OUT, SNAPSHOT = '.npz', 'snapshot_iter_'  # weights are what is large


class Archive:
    """Keeps ``path``, a .tar.gz, at most ``seconds`` behind ``folder``, in a ``with`` block.

    A process that is killed leaves the last one.  Weights and snapshots are not in it.

    Raises:
        OSError: If it cannot be written, at the beginning or in the end.
    """

    def __init__(self, folder, path, seconds=30):
        self.folder, self.path, self.seconds = folder, path, seconds
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.renew, daemon=True)

    def __enter__(self):
        self.write()  # that it cannot be written shows at once
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.write()

    def renew(self):
        while not self.over.wait(self.seconds):
            try:
                self.write()
            except OSError as error:
                print(f'{self.path} was not renewed: {error.strerror}', flush=True)

    def write(self):
        """Under another name first: who fetches it never gets half of one."""
        directory, name = os.path.split(self.path)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=f'.{name}', delete=False) as file:
            try:
                with tarfile.open(fileobj=file, mode='w:gz') as archive:
                    for path in self.files():
                        add(archive, path, os.path.relpath(path, os.path.dirname(self.folder)))
            except BaseException:
                os.unlink(file.name)
                raise
        os.chmod(file.name, 0o644)
        os.replace(file.name, self.path)

    def files(self):
        for folder, _, names in os.walk(self.folder):
            for name in sorted(names):
                if not name.endswith(LEFT_OUT) and not name.startswith(SNAPSHOT):
                    yield os.path.join(folder, name)


def add(archive, path, name):
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        return  # a temporary file that has been renamed since
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), time.time()
    archive.addfile(info, io.BytesIO(content))
