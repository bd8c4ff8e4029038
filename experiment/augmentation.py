"""Random changes to training images, a whole batch at once.

chainercv's transforms define what each augmentation means; here they work on batches and draw from
the :class:`numpy.random.RandomState` that they are given.  An augmentation has four methods:

- ``prepare(images)``, once for a data set: uint8 ``(N, 3, H, W)`` in, what ``apply`` reads out;
- ``draw(random_state, n)``, for ``n`` images: the random choices, a dictionary of NumPy arrays of
  shape ``(n,)``.  They are drawn on the CPU, so that every device sees the same images;
- ``apply(prepared, indices, **draws)``, on a CPU: the augmented images, uint8 ``(n, 3, H, W)``, a
  new array.  ``indices`` is an integer NumPy array of shape ``(n,)``;
- ``sources(n, height, width, **draws)``, for a GPU: the same augmentation as an integer array
  ``(n, 2, 3)`` of matrices that take ``(row, column, 1)`` of a pixel to the row and column of the
  original image where it comes from.  What comes from outside is black.
"""
import numpy as np

IDENTITY = np.eye(3, dtype=int)


def flips(y_flip, x_flip, height, width):
    """Return the matrices ``(n, 3, 3)`` that mirror the chosen images, as in ``sources``."""
    matrices = np.tile(IDENTITY, (len(x_flip), 1, 1))
    for axis, (chosen, size) in enumerate([(y_flip, height), (x_flip, width)]):
        matrices[chosen, axis, axis] = -1
        matrices[chosen, axis, 2] = size - 1
    return matrices


class NoAugmentation:
    """Leaves the images as they are and draws nothing."""

    def prepare(self, images):
        return images

    def draw(self, random_state, n):
        return {}

    def apply(self, prepared, indices):
        return prepared[indices]

    def sources(self, n, height, width):
        return np.tile(IDENTITY[:2], (n, 1, 1))


class Blog(NoAugmentation):
    """The blog post's augmentation: ``random_rotate``, then ``random_flip`` in both directions.

    Draws ``k`` in 0..3, counterclockwise quarter turns, and the booleans ``y_flip`` (upside down)
    and ``x_flip`` (left to right).  Images must be square.
    """

    def draw(self, random_state, n):
        return {'k': random_state.randint(4, size=n),
                'y_flip': random_state.randint(2, size=n, dtype=bool),
                'x_flip': random_state.randint(2, size=n, dtype=bool)}

    def apply(self, prepared, indices, k, y_flip, x_flip):
        images = prepared[indices]
        for turns in (1, 2, 3):
            _change(images, k == turns, lambda group: np.rot90(group, turns, axes=(2, 3)))
        _change(images, y_flip, lambda group: group[:, :, ::-1])
        _change(images, x_flip, lambda group: group[:, :, :, ::-1])
        return images

    def sources(self, n, height, width, k, y_flip, x_flip):
        turn = np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]])  # a quarter, counterclockwise
        turns = np.array([np.linalg.matrix_power(turn, times) for times in range(4)])
        return (turns[k] @ flips(y_flip, x_flip, height, width))[:, :2]


class Standard(NoAugmentation):
    """The usual augmentation of CIFAR: pad, ``random_crop`` to the old size, flip horizontally.

    The padding is four black pixels on every side.  Draws ``top`` and ``left`` in 0..8, the crop's
    corner, and the boolean ``x_flip``.
    """

    pad = 4

    def prepare(self, images):
        """Return every crop of every image, a view ``(N, 9, 9, 3, H, W)`` of the padded images."""
        border = (self.pad, self.pad)
        padded = np.pad(images, ((0, 0), (0, 0), border, border))
        crops = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        return crops.transpose(0, 2, 3, 1, 4, 5)

    def draw(self, random_state, n):
        return {'top': random_state.randint(2 * self.pad + 1, size=n),
                'left': random_state.randint(2 * self.pad + 1, size=n),
                'x_flip': random_state.randint(2, size=n, dtype=bool)}

    def apply(self, prepared, indices, top, left, x_flip):
        images = prepared[indices, top, left]
        _change(images, x_flip, lambda group: group[:, :, :, ::-1])
        return images

    def sources(self, n, height, width, top, left, x_flip):
        matrices = flips(np.zeros(n, bool), x_flip, height, width)[:, :2]
        matrices[:, :, 2] += np.stack([top, left], axis=1) - self.pad
        return matrices


AUGMENTATIONS = {'blog': Blog, 'standard': Standard, 'none': NoAugmentation}


def _change(images, chosen, change):
    """Replace the chosen images (boolean NumPy array) by what ``change`` makes of them."""
    group = np.flatnonzero(chosen)
    images[group] = change(images[group])
