"""CIFAR-10 and CIFAR-100 through Chainer's own cache, without running anything downloaded.

Chainer keeps each set as ``pfnet/chainer/cifar/cifar-10.npz`` in its dataset folder
(``CHAINER_DATASET_ROOT``), made from an archive of pickles that it downloads.  This module finds
and leaves the same files at the same places, but it verifies the checksum of what it downloads
and reads the pickles itself, as data.
"""
import functools
import io
import os
import pickle
import re
import sys
import typing

import numpy as np
from chainer.dataset.download import get_dataset_root

from experiment.archive import read_files
from experiment.download import cache_file, checksum, fetch
from experiment.errors import Invalid
from experiment.npz import open_npz

URL = 'https://www.cs.toronto.edu/~kriz/'
LIMIT = 1 << 28  # bytes, of an archive and of what it unpacks to (CIFAR's: 163 and 178 MiB)


class Cifar(typing.NamedTuple):
    """One of the two sets: its classes by label, where it is found, how its archive is laid out."""

    name: str
    classes: tuple[str, ...]
    archive: str
    sha256: str
    train: tuple[str, ...]
    test: str
    labels: str


CIFAR10_CLASSES = 'airplane automobile bird cat deer dog frog horse ship truck'
CIFAR100_CLASSES = '''
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm'''

CIFAR = {
    'cifar10': Cifar(
        'cifar-10', tuple(CIFAR10_CLASSES.split()), 'cifar-10-python.tar.gz',
        '6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce',
        tuple(f'data_batch_{i}' for i in range(1, 6)), 'test_batch', 'labels'),
    'cifar100': Cifar(
        'cifar-100', tuple(CIFAR100_CLASSES.split()), 'cifar-100-python.tar.gz',
        '85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7',
        ('train',), 'test', 'fine_labels'),
}


def load(name, archive=None):
    """Read CIFAR-10 or CIFAR-100.

    The source is ``archive`` if it is given, else Chainer's cache, which is filled by a download
    if need be.

    Args:
        name (str): 'cifar10' or 'cifar100'.
        archive (str): a local copy of the official archive, which then fills the cache too, or
            another one or a folder with the same batches, which never does.

    Returns:
        A dictionary: ``train_x`` and ``test_x``, uint8 ``(N, 3072)``, a red, a green and a blue
        plane of 32 x 32 each; ``train_y`` and ``test_y``, uint8 ``(N,)``.

    Raises:
        Invalid: the archive or the cache cannot be read, or the download fails.
    """
    cifar = CIFAR[name]
    folder = os.path.join(get_dataset_root(), 'pfnet', 'chainer', 'cifar')
    cached = os.path.join(folder, f'{cifar.name}.npz')
    if archive is None and os.path.exists(cached):
        return read_cache(cached, cifar)
    if archive is None:
        archive = fetch(URL + cifar.archive, 'sha256', cifar.sha256, LIMIT)
    is_folder = os.path.isdir(archive)
    official = not is_folder and checksum(archive, 'sha256') == cifar.sha256
    arrays = read_archive(archive, cifar)
    if not official:
        is_what = 'is a folder, not' if is_folder else 'has another checksum than'
        print(f'{archive} {is_what} the official {cifar.archive}: '
              "read without running anything in it, not kept in Chainer's cache", file=sys.stderr)
    elif not os.path.exists(cached):
        with cache_file(cached) as file:
            np.savez(file, **arrays)
    return arrays


def read_cache(path, cifar):
    """Read the arrays that :func:`load` returns from a file that it or Chainer made."""
    try:
        with open_npz(path) as npz:
            arrays = {key: npz[key] for key in ('train_x', 'train_y', 'test_x', 'test_y')}
        for split in ('train', 'test'):
            check(arrays[f'{split}_x'], arrays[f'{split}_y'], cifar)
    except (OSError, KeyError, ValueError) as error:
        raise Invalid(f'{path} is not a readable {cifar.name} ({error.args[-1]}): '
                      'delete it, and it will be made anew') from None
    return arrays


def check(images, labels, cifar):
    """Raise ValueError unless the arrays are images and labels of the set."""
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072 or not len(images):
        raise ValueError(f'images are {images.dtype} {images.shape}, not uint8 (N, 3072)')
    if labels.dtype.kind not in 'iu' or labels.shape != images.shape[:1]:
        raise ValueError(f'{len(images)} images, labels are {labels.dtype} {labels.shape}')
    last = len(cifar.classes) - 1
    if labels.min() < 0 or labels.max() > last:
        raise ValueError(f'labels {labels.min()} to {labels.max()}, not 0 to {last}')


# The archive

def read_archive(path, cifar):
    """Read the arrays that :func:`load` returns from an archive or a folder, which is not trusted.

    The batches may lie in any folder of it.
    """
    try:
        batches = read_batches(path, cifar)
    except EOFError:
        raise Invalid(f'{path} is truncated: fetch {URL}{cifar.archive} again, '
                      'or give another archive with --data-archive PATH') from None
    except Exception as error:  # what a malformed archive raises has no bounds
        raise Invalid(f'{path} is not an archive of the layout of {cifar.archive} ({error}): '
                      f'fetch {URL}{cifar.archive}, or give another archive with '
                      '--data-archive PATH') from None
    train = [batches[name] for name in cifar.train]
    test_x, test_y = batches[cifar.test]
    return {'train_x': np.concatenate([x for x, _ in train]),
            'train_y': np.concatenate([y for _, y in train]),
            'test_x': test_x, 'test_y': test_y}


def read_batches(path, cifar):
    """Return images and labels of each batch by its name."""
    wanted = (*cifar.train, cifar.test)
    batches, names = read_files(path, wanted, LIMIT, functools.partial(read_batch, cifar=cifar))
    for name in wanted:
        if name not in batches:
            raise ValueError(what_else(names, cifar) or f'there is no {name} in it')
    return batches


def what_else(names, cifar):
    """Return what an archive with files of these names is, where it is something well known."""
    if cifar.archive in names:
        return f'there is a {cifar.archive} in it: give that file'
    for other in CIFAR.values():
        if other is not cifar and names.issuperset((*other.train, other.test)):
            return f'it is {other.name}'
    return None


def read_batch(content, name, cifar):
    """Read images and labels from a pickle; an error names it."""
    try:
        batch = PlainUnpickler(io.BytesIO(content), encoding='latin-1').load()
        # Keys are bytes where the batch was read so by Python 3 and written again.
        batch = {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
        images, labels = as_array(batch['data']), as_array(batch[cifar.labels])
    except pickle.UnpicklingError as error:
        raise ValueError(f'{name}: {error}') from None
    except KeyError as error:
        raise ValueError(f'{name} is not a batch of images: it has no {error}') from None
    except Exception as error:  # what a malformed pickle raises has no bounds
        raise ValueError(f'{name} is not a batch of images: {error!r}') from None
    check(images, labels, cifar)
    return images, labels.astype(np.uint8)


class PickledDtype:
    """A stand-in for ``numpy.dtype`` in a pickle, of integers alone."""

    def __init__(self, code, align=False, copy=False):
        if not re.fullmatch('[iu][1248]', code):
            raise pickle.UnpicklingError(f'an array of {code!r} is refused')
        self.value = np.dtype(code)

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.value = self.value.newbyteorder(state[1])


class PickledArray:
    """A stand-in for an array in a pickle, and for what unpickling one would call."""

    def __init__(self, *reconstruct):
        """Stand for ``numpy.core.multiarray._reconstruct``, whose array the state replaces."""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state


class PickledBuffer(PickledArray):
    """A stand-in for ``numpy.core.numeric._frombuffer``, which makes arrays in protocol 5."""

    def __init__(self, data, dtype, shape, order):
        self.__setstate__((1, shape, dtype, order == 'F', data))


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dictionaries and arrays of integers; refuses the rest.

    NumPy's own unpickling is never reached: the names in :attr:`allowed` are all that a pickle may
    call, and they keep what they are given.
    """

    allowed = {('numpy', 'ndarray'): None, ('numpy', 'dtype'): PickledDtype,
               ('_codecs', 'encode'): str.encode}  # how protocol 2 writes bytes
    for core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
        allowed[f'{core}.multiarray', '_reconstruct'] = PickledArray
        allowed[f'{core}.numeric', '_frombuffer'] = PickledBuffer

    def find_class(self, module, name):
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f'it contains {module}.{name}, which is refused')
        return self.allowed[module, name]


def as_array(value):
    """Make an array from a PickledArray or a list of integers."""
    if not isinstance(value, PickledArray):
        return np.array(value)
    data = value.data.encode('latin-1') if isinstance(value.data, str) else value.data
    order = 'F' if value.fortran else 'C'
    return np.frombuffer(data, value.dtype.value).reshape(value.shape, order=order)
