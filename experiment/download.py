"""Files of Chainer's dataset folder (``CHAINER_DATASET_ROOT``), verified as they are downloaded."""
import contextlib
import errno
import hashlib
import http.client
import os
import stat
import urllib.error
import urllib.request

import tqdm
from chainer.dataset.download import get_dataset_root

from experiment.atomic_file import new_file, remove_unfinished
from experiment.errors import Invalid

TIMEOUT = 30  # seconds without a byte from the server


def fetch(url, algorithm, expected, limit):
    """Return the path of a file, verified; it is downloaded unless Chainer has it.

    Args:
        url (str): Where it is published.
        algorithm (str): ``'sha256'`` or ``'md5'``, by which its publisher's checksum is made.
        expected (str): That checksum, in hexadecimal.
        limit (int): Size in bytes beyond which the download is given up.

    Raises:
        Invalid: If it cannot be downloaded, kept or read, or has another checksum.
    """
    # chainer.dataset.cached_download looks for it there.
    path = os.path.join(get_dataset_root(), '_dl_cache',
                        hashlib.md5(url.encode(), usedforsecurity=False).hexdigest())
    def verify(path, what, remedy):
        found = checksum(path, algorithm)
        if found != expected:
            raise Invalid(f'{what} is not the official {os.path.basename(url)} (its {algorithm} is '
                          f'{found}, not {expected}): {remedy}, or give a copy with '
                          '--data-archive PATH')

    if os.path.exists(path):
        verify(path, f'{path}, downloaded from {url},', 'delete it and try again')
    else:
        with cache_file(path) as file:
            retrieve(url, file, limit)
            file.flush()
            verify(file.name, f'what {url} gave', 'try again')
    return path


def retrieve(url, file, limit):
    """Write what is at ``url`` to an open file, with a progress bar."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            size = int(response.headers.get('Content-Length') or 0)
            with tqdm.tqdm(total=size or None, unit='B', unit_scale=True, disable=None,
                           desc=os.path.basename(url)) as bar:
                while file.tell() <= limit and (block := response.read(1 << 16)):
                    file.write(block)
                    bar.update(len(block))
            if file.tell() < size:
                raise OSError(f'it ended after {file.tell()} of {size} bytes')
    except (OSError, http.client.HTTPException, ValueError) as error:
        if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise  # of the file, not of the network
        if type(error) is urllib.error.URLError:
            error = error.reason
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also a response
        raise Invalid(f'{url} could not be downloaded ({error}): check the network, or fetch it '
                      'elsewhere and give it with --data-archive PATH') from None


def checksum(path, algorithm):
    """Return the checksum of a file's content in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a device may be endless
            raise OSError(None, 'it is not a file')
        with open(path, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise Invalid(f'{path} cannot be read ({error.strerror}): '
                      'give an archive with --data-archive PATH') from None
    return digest.hexdigest()


@contextlib.contextmanager
def cache_file(path):
    """Open a new file of Chainer's dataset folder, which appears when it is complete."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        remove_unfinished(os.path.dirname(path), age=3600)  # another run may be downloading
        with new_file(path) as file:
            yield file
    except OSError as error:
        raise Invalid(f'{path} cannot be written ({error.strerror or error}): '
                      'set CHAINER_DATASET_ROOT to a folder that can') from None
