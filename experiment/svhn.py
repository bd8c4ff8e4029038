"""SVHN, cropped digits of house numbers, from its two official MAT-files.

They are kept where ``chainer.datasets.get_svhn`` looks for what it has downloaded.  Others are
refused by their checksums: SciPy, which reads MAT-files, crashes on some damaged ones.
"""
import hashlib
import io
import os

import numpy as np

from experiment.archive import read_files
from experiment.download import fetch
from experiment.errors import Invalid
from experiment.labeled_images import LabeledImages

URL = 'http://ufldl.stanford.edu/housenumbers/'
FILES = {'train_32x32.mat': 'e26dedcc434d2e4c54c9b2d4a06d8373',  # MD5
         'test_32x32.mat': 'eb5a983be6a315427106f1b164d9cef3'}
LIMIT = 1 << 28  # bytes, of an archive and of both files


def load(archive=None):
    """Read the training set and the test set; they are downloaded once unless an archive is given.

    Args:
        archive (str): A folder that holds both files, or a tar or zip of them.

    Returns:
        Two :class:`LabeledImages` of ten classes, the digits.

    Raises:
        Invalid: If the files cannot be had or are not the official ones.
    """
    return tuple(map(decode, download() if archive is None else read_archive(archive)))


def download():
    """Yield the contents of both files from Chainer's dataset folder or the network."""
    for name, md5 in FILES.items():
        with open(fetch(URL + name, 'md5', md5, LIMIT), 'rb') as file:
            yield file.read()


def read_archive(path):
    """Return the contents of both files from an archive or a folder, which is not trusted."""
    try:
        if not os.path.isdir(path) and not os.path.isfile(path):  # a device may be endless
            raise ValueError('there is no such folder or file')
        found, _ = read_files(path, FILES, LIMIT, verified)
        if missing := FILES.keys() - found.keys():
            raise ValueError(f'there is no {min(missing)} in it')
    except Exception as error:  # what a malformed archive raises has no bounds
        why = 'it is truncated' if isinstance(error, EOFError) else error
        raise Invalid(f'{path} cannot be read as SVHN ({why}): fetch {" and ".join(FILES)} from '
                      f'{URL}, and give their folder with --data-archive PATH') from None
    return [found[name] for name in FILES]


def verified(content, name):
    """Return the content of a file; ValueError if it is not the official one of its name."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != (official := FILES[os.path.basename(name)]):
        raise ValueError(f'{name} is not the official one: its md5 is {md5}, not {official}')
    return content


def decode(content):
    """Return the :class:`LabeledImages` in the content of an official file."""
    from scipy.io import loadmat  # slow to import, and nothing else needs it
    arrays = loadmat(io.BytesIO(content))
    # X is (32, 32, 3, N); the label 10 is the digit 0.
    return LabeledImages(np.ascontiguousarray(arrays['X'].transpose(3, 2, 0, 1)),
                         arrays['y'].ravel().astype(np.int32) % 10, tuple('0123456789'))
