"""Images with their classes, as plain arrays, and what a run records about them."""
import dataclasses
import functools
import hashlib

import numpy as np

from experiment.errors import listed, plain


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """One split of a data set.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, RGB, in [0, 255].
        labels: int32 ``(N,)``, in [0, n_class - 1].
        classes: the names of the classes, in the order of their numbers; the same in both splits.
        source: what is known of the files that the images were read from, ready for JSON.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    source: dict = dataclasses.field(default_factory=dict)

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        """The images at some indices, in that order, as another split."""
        return dataclasses.replace(
            self, images=self.images[indices], labels=self.labels[indices])

    @property
    def n_class(self):
        return len(self.classes)

    @property
    def per_class(self):
        """The number of images of each class, a list."""
        return np.bincount(self.labels, minlength=self.n_class).tolist()

    @functools.cached_property
    def sha256(self):
        """A fingerprint of pixels and labels, in hexadecimal: the same for the same data."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(self.labels.astype('<i4'))
        return digest.hexdigest()

    def record(self):
        """What ``run.json`` keeps of this split."""
        return {'images': len(self), 'per_class': self.per_class, 'sha256': self.sha256,
                **self.source}


def summary(name, train, n, validation, validate_on):
    """One line on a data set: how many images of how many classes, and the classes' names.

    Args:
        name (str): That of the set.
        train, validation: The :class:`LabeledImages` of a run.
        n (int): The size of the training set, of which ``train`` may be a part.
        validate_on (str): ``'test'``, ``'rest'``, ``'rest:N'`` or a folder.
    """
    part = f' of {n}' * (len(train) < n)
    use = {'test': 'to test', 'rest': 'others to validate'}.get(
        validate_on.split(':')[0], f'of {plain(validate_on)} to validate')
    return (f'Data: {plain(name)}: {len(train)}{part} images to train ({spread(train.per_class)} '
            f'a class), {len(validation)} {use} ({spread(validation.per_class)}), '
            f'{train.n_class} classes: {listed(train.classes)}')


def spread(counts):
    """'6', or '1 to 6' where classes differ in size."""
    return ' to '.join(str(count) for count in sorted({min(counts), max(counts)}))
