"""SVHN, cropped digits of house numbers, from its two MAT-files, without running anything in them.

They are kept where ``chainer.datasets.get_svhn`` looks for what it has downloaded.  SciPy could
read them too, but a damaged file makes it read memory that is not its own, and crash.
"""
import hashlib
import os
import struct
import sys
import zlib

import numpy as np

from experiment.archive import read_files
from experiment.download import fetch
from experiment.errors import Invalid
from experiment.labeled_images import LabeledImages

URL = 'http://ufldl.stanford.edu/housenumbers/'
FILES = {'train_32x32.mat': 'e26dedcc434d2e4c54c9b2d4a06d8373',  # MD5
         'test_32x32.mat': 'eb5a983be6a315427106f1b164d9cef3'}
LIMIT = 1 << 28  # bytes, of a file, of both, and of what each unpacks to (at most 235 MiB)
# The types of elements in MAT-files, and those of them that are numbers
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: 'i1', 2: 'u1', 3: '<i2', 4: '<u2', 5: '<i4', 6: '<u4', 7: '<f4', 9: '<f8',
           12: '<i8', 13: '<u8'}


def load(archive=None):
    """Read the training set and the test set; they are downloaded once unless an archive is given.

    Args:
        archive (str): A folder that holds both files, or a tar or zip of them.

    Returns:
        Two :class:`LabeledImages` of ten classes, the digits.

    Raises:
        Invalid: If the files cannot be had or are no such sets.
    """
    if archive is not None:
        return read_archive(archive)
    splits = []
    for name, md5 in FILES.items():
        with open(fetch(URL + name, 'md5', md5, LIMIT), 'rb') as file:
            splits.append(read_mat(file.read()))
    return tuple(splits)


def read_archive(path):
    """Read what :func:`load` returns from an archive or a folder, which is not trusted."""
    remedy = (f'fetch {" and ".join(FILES)} from {URL}, and give their folder with '
              '--data-archive PATH')
    if not os.path.isdir(path) and not os.path.isfile(path):  # a device may be endless
        raise Invalid(f'there is no folder or file {path}: {remedy}')
    unofficial = []

    def read(content, name):
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != FILES[os.path.basename(name)]:
            unofficial.append(name)
        try:
            return read_mat(content)
        except EOFError:
            raise ValueError(f'{name} is truncated') from None
        except Exception as error:  # what a malformed file raises has no bounds
            raise ValueError(f'{name}: {error}') from None

    try:
        found, _ = read_files(path, FILES, LIMIT, read)
        for name in FILES:
            if name not in found:
                raise ValueError(f'there is no {name} in it')
    except EOFError:
        raise Invalid(f'{path} is truncated: {remedy}') from None
    except Exception as error:  # what a malformed archive raises has no bounds
        raise Invalid(f'{path} cannot be read as SVHN ({error}): {remedy}') from None
    if unofficial:
        print(f'{path}: other checksums than the official ones: {", ".join(unofficial)}; '
              'read without running anything in it', file=sys.stderr)
    return tuple(found[name] for name in FILES)


def read_mat(content):
    """Read :class:`LabeledImages` from the content of a MAT-file of version 5.

    Raises:
        EOFError: If it is cut off.
        Exception: Others, of many kinds, if it is malformed or holds something else.
    """
    if content[124:128] != b'\0\1IM':
        raise ValueError('it is not a MAT-file of version 5' if content else 'it is empty')
    arrays = {}
    for name, array in matrices(memoryview(content)[128:]):
        if name in arrays:
            raise ValueError(f'there is more than one {name} in it')
        arrays[name] = array
    for name in 'X', 'y':
        if arrays.get(name) is None:
            is_what = 'no array of real numbers' if name in arrays else 'missing'
            raise ValueError(f'{name} in it is {is_what}')
    images, labels = arrays['X'], arrays['y'].ravel()
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise ValueError(f'X is {images.dtype} {images.shape}, not uint8 (32, 32, 3, N)')
    if len(labels) != images.shape[3] or not len(labels):
        raise ValueError(f'{images.shape[3]} images, {len(labels)} labels')
    if not np.isin(labels, range(1, 11)).all():
        raise ValueError('labels other than 1 to 10, where 10 is the digit 0')
    return LabeledImages(np.ascontiguousarray(images.transpose(3, 2, 0, 1)),
                         labels.astype(np.int32) % 10, tuple('0123456789'))


def matrices(data):
    """Yield name and array of what is called X or y; None where it is no array of real numbers.

    An array of those has four parts: its kind, which tells nothing more, shape, name and numbers.
    """
    left = LIMIT
    for kind, matrix in elements(data):
        if kind == COMPRESSED:
            inflated = inflate(matrix, left)
            left -= len(inflated)
            (kind, matrix), = elements(inflated)
        parts = list(elements(matrix)) if kind == MATRIX else []
        name = bytes(parts[2][1]) if len(parts) > 2 else b''
        if name in (b'X', b'y'):
            array = None
            if len(parts) == 4 and parts[3][0] in NUMBERS:
                shape = np.frombuffer(parts[1][1], '<i4')
                array = np.frombuffer(parts[3][1], NUMBERS[parts[3][0]]).reshape(shape, order='F')
            yield name.decode(), array


def elements(data):
    """Yield type and content of each element in a part of a MAT-file."""
    start = 0
    while start < len(data):
        if len(data) < start + 8:
            raise EOFError
        kind, size = struct.unpack_from('<II', data, start)
        start, end = start + 8, start + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # at most four bytes, which follow their size at once
            kind, size, start, end = kind & 0xffff, min(kind >> 16, 4), start - 4, start
        if len(data) < start + size:
            raise EOFError
        yield kind, data[start:start + size]
        start = end


def inflate(data, limit):
    """Return what compressed data unpack to; ValueError if that is more bytes than ``limit``."""
    inflated = zlib.decompressobj().decompress(data, limit + 1)
    if len(inflated) > limit:
        raise ValueError(f'unpacks to more than {LIMIT} bytes')
    return memoryview(inflated)
