"""A folder's small files as one archive, made anew from time to time."""
import io
import os
import tarfile
import threading
import time

from experiment.atomic_file import new_file
from experiment.errors import Invalid

LEFT_OUT, SNAPSHOT = '.npz', 'snapshot_iter_'  # weights are what is large


class Archive:
    """Keeps ``path``, a .tar.gz, at most ``seconds`` behind ``folder``, in a ``with`` block.

    A process that is killed leaves the last one.  Weights and snapshots are not in it.

    Raises:
        Invalid: If it cannot be written, at the beginning or in the end.
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
            except Invalid as error:
                print(error, flush=True)

    def write(self):
        """Write the archive anew; whoever fetches it never gets half of one."""
        try:
            with new_file(self.path) as file, \
                    tarfile.open(fileobj=file, mode='w:gz') as archive:
                for path in self.files():
                    add(archive, path, os.path.relpath(path, os.path.dirname(self.folder)))
        except OSError as error:
            raise Invalid(f'--archive: {self.path} cannot be written ({error.strerror}); the '
                          f'results so far are in {self.folder}') from None

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
