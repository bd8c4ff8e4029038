"""The images and labels to train and to test on."""
import functools
import os
import re

import numpy as np

from experiment import cifar, svhn
from experiment.errors import Invalid
from experiment.image_folder import WANTED, load_folders
from experiment.labeled_images import LabeledImages, summary
from experiment.train_size import divide


def load_dataset(args):
    """Load what the options of a run ask for; see :func:`load`."""
    return load(args.dataset, args.data_archive, args.size, args.train_size, args.validate_on)


def load(name, archive=None, size=32, train_size=None, validate_on='test'):
    """Load the images to train on and those to validate on, and print what they are.

    Args:
        name (str): One of ``NAMES``, or a folder that holds ``train/CLASS/IMAGE``
            and ``test/CLASS/IMAGE``.
        archive (str): an archive to read instead of the cache or the network.
        size (int): height and width in pixels to which a folder's images are resized; those of
            the other sets are 32 x 32.
        train_size (int): how many images of the training set to train on, as
            :func:`experiment.train_size.divide` chooses them; all where it is None.
        validate_on (str): ``'test'``, the test set; ``'rest'``, what ``train_size`` leaves of the
            training set, or ``'rest:N'``, N images of that; or a folder that holds
            ``CLASS/IMAGE`` with the same classes.  A folder of images needs ``test`` for the
            first alone.

    Returns:
        Two :class:`LabeledImages` with the same classes.

    Raises:
        Invalid: the set cannot be had; the message says why and what helps.
    """
    if archive is not None and name not in ARCHIVED:
        raise Invalid(f'--data-archive {archive} does not go with --dataset {name}: '
                      f'it is for {", ".join(ARCHIVED)}')
    if size != 32 and name in NAMES:
        raise Invalid(f"--size {size} does not go with --dataset {name}: its images are 32 x 32, "
                      "--size is for a directory's")
    rest = re.fullmatch('rest(?::([1-9][0-9]{0,8}))?', validate_on)
    if rest and train_size is None:
        raise Invalid(f'--validate-on {validate_on} needs --train-size N, which leaves a rest of '
                      'the training set')
    if not (rest or validate_on == 'test' or os.path.isdir(validate_on)):
        raise Invalid(f'--validate-on: given {validate_on!r}, valid: test, rest, rest:N, or a '
                      'directory that holds CLASS/IMAGE')
    if name not in NAMES and not os.path.isdir(name):
        raise Invalid(f'--dataset {name} is neither {", ".join(NAMES)} nor a folder '
                      f'that holds {WANTED}')

    if name not in NAMES:
        beside = os.path.join(name, 'test') if validate_on == 'test' else validate_on
        folders = [os.path.join(name, 'train')] + [beside] * (not rest)
        train, *validation = load_folders(folders, size)
    else:
        train, *validation = LOADERS[name]() if name in LOADERS else ARCHIVED[name](archive)
        if not (rest or validate_on == 'test'):
            validation = load_folders([validate_on], size, like={name: train.classes})
    n = len(train)
    if train_size is not None:
        train, others = divide(train, train_size, rest and rest[1] and int(rest[1]))
        if rest:
            validation = [others]
    validation, = validation
    if not len(validation):
        raise Invalid(f'--validate-on rest: --train-size {train_size} leaves no rest of the '
                      'training set; give a smaller one')
    print(summary(name, train, n, validation, validate_on), flush=True)
    return train, validation


def load_cifar(name, archive):
    """Load 'cifar10' or 'cifar100' from Chainer's cache, or from an archive; see :func:`load`."""
    arrays = cifar.load(name, archive)
    return tuple(
        LabeledImages(arrays[f'{split}_x'].reshape(-1, 3, 32, 32),
                      arrays[f'{split}_y'].astype(np.int32), cifar.CIFAR[name].classes)
        for split in ('train', 'test'))


def load_digits():
    """Load scikit-learn's 1797 handwritten digits: 1437 to train, 360 to test, of 10 classes.

    Every pixel of the 8 x 8 originals becomes a square of 4 x 4 in all three channels, its value
    0..16 scaled to 0..255.  The split is fixed and has every class in proportion.
    """
    # scikit-learn is slow to import, and nothing else needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[:, None], 3, axis=1)
    labels = digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels)
    classes = tuple('0123456789')
    return LabeledImages(train_x, train_y, classes), LabeledImages(test_x, test_y, classes)


# The sets with images of 32 x 32: those that an archive can be given for, and the others
ARCHIVED = {**{name: functools.partial(load_cifar, name) for name in cifar.CIFAR},
            'svhn': svhn.load}
LOADERS = {'digits': load_digits}
NAMES = (*ARCHIVED, *LOADERS)
