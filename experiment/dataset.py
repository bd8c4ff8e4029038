"""The images and labels to train and to test on, as plain arrays."""
import dataclasses
import os

import chainer
import numpy as np
import tqdm
from chainercv.datasets import DirectoryParsingLabelDataset, directory_parsing_label_names
from chainercv.transforms import resize
from chainercv.utils import read_image

from experiment import cifar
from experiment.errors import Invalid


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """Images with their classes.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, RGB, in [0, 255].
        labels: int32 ``(N,)``, in [0, n_class - 1].
        n_class: number of classes.
    """

    images: np.ndarray
    labels: np.ndarray
    n_class: int

    def __len__(self):
        return len(self.images)


def load(name, archive=None, size=32):
    """Load the training set and the test set.

    Args:
        name (str): One of ``NAMES``, or a folder that holds ``train/CLASS/IMAGE``
            and ``test/CLASS/IMAGE``.
        archive (str): an archive of CIFAR to read instead of the cache or the network.
        size (int): height and width in pixels to which a folder's images are resized; those of
            the other sets are 32 x 32.

    Returns:
        Two :class:`LabeledImages` with the same ``n_class``.

    Raises:
        Invalid: the set cannot be had; the message says why and what helps.
    """
    if archive is not None and name not in cifar.CIFAR:
        raise Invalid(f'--data-archive {archive} does not go with --dataset {name}: '
                      f'it is for {" and ".join(cifar.CIFAR)}')
    if size != 32 and name in NAMES:
        raise Invalid(f"--size {size} does not go with --dataset {name}: its images are 32 x 32, "
                      "--size is for a directory's")
    if name in cifar.CIFAR:
        arrays = cifar.load(name, archive)
        return tuple(
            LabeledImages(arrays[f'{split}_x'].reshape(-1, 3, 32, 32),
                          arrays[f'{split}_y'].astype(np.int32), len(cifar.CIFAR[name].classes))
            for split in ('train', 'test'))
    if name in LOADERS:
        return LOADERS[name]()
    if os.path.isdir(name):
        return load_folder(name, size)
    raise Invalid(f'--dataset {name} is neither {", ".join(NAMES)} nor a folder '
                  'that holds train/CLASS/IMAGE and test/CLASS/IMAGE')


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
    return LabeledImages(train_x, train_y, 10), LabeledImages(test_x, test_y, 10)


LOADERS = {'digits': load_digits}  # the sets beside CIFAR, of 32 x 32 images too
NAMES = (*cifar.CIFAR, *LOADERS)


class Folder(DirectoryParsingLabelDataset):
    """chainercv's data set of a folder, but any transparency of its images is ignored."""

    def _get_image(self, i):
        path = self.img_paths[i]
        try:
            return read_image(path, alpha='ignore')
        except Exception as error:  # what a damaged file raises has no bounds
            raise Invalid(f'{path} is not a readable image ({error}): '
                          'replace or remove it') from None


def load_folder(root, size):
    """Load images that lie in a folder for each class; see :func:`load`.

    Classes are numbered in the order of their folders' sorted names.  Images are resized to
    ``size`` x ``size`` without regard to their proportions.
    """
    wanted = f'{root} must hold train/CLASS/IMAGE and test/CLASS/IMAGE'
    names = {}
    for split in ('train', 'test'):
        if not os.path.isdir(os.path.join(root, split)):
            raise Invalid(f'there is no folder {os.path.join(root, split)}: {wanted}')
        names[split] = directory_parsing_label_names(os.path.join(root, split))
    if len(names['train']) < 2:
        raise Invalid(f'{os.path.join(root, "train")} holds {len(names["train"])} class folders, '
                      f'at least 2 are needed: {wanted}')
    for here, there in (('train', 'test'), ('test', 'train')):
        if odd := sorted(set(names[here]) - set(names[there])):
            raise Invalid(f'the class {odd[0]} is in {os.path.join(root, here)} but not in '
                          f'{os.path.join(root, there)}: both must hold the same classes')
    return tuple(read_split(os.path.join(root, split), names[split], size)
                 for split in ('train', 'test'))


def read_split(root, names, size):
    """Read the images below ``root`` into :class:`LabeledImages` of the named classes."""
    folder = Folder(root)
    for label, name in enumerate(names):
        if label not in folder.labels:
            raise Invalid(f'{os.path.join(root, name)} holds no image: '
                          'every class needs one (.jpg, .jpeg, .png, .ppm or .bmp)')
    images = np.empty((len(folder), 3, size, size), np.uint8)
    # Pillow whether or not OpenCV is there: the two give different pixels.
    with chainer.using_config('cv_read_image_backend', 'PIL'), \
            chainer.using_config('cv_resize_backend', 'PIL'):
        for i in tqdm.trange(len(folder), desc=root, unit='image', disable=None):
            image, _ = folder[i]
            images[i] = np.rint(resize(image, (size, size)))
    return LabeledImages(images, folder.labels, len(names))
