"""Training images changed at random, a whole batch at once.

chainercv's transforms define what each augmentation means; here they work on batches and draw from
the :class:`numpy.random.RandomState` that they are given.  An augmentation has three methods:

- ``prepare(images)``, once for a data set: uint8 ``(N, 3, H, W)`` in, what ``apply`` reads out;
- ``draw(random_state, n)``, for ``n`` images: the random choices, a dictionary of NumPy arrays of
  shape ``(n,)``.  They are drawn on the CPU, so that every device sees the same images;
- ``apply(prepared, indices, **draws)``: the chosen images as they are to be seen, uint8
  ``(n, 3, H, W)``, a new array.  ``indices`` is an integer NumPy array of shape ``(n,)``.

Images are NumPy or CuPy arrays alike and stay where they are.
"""
import chainer
import numpy as np


class NoAugmentation:
    """The images as they are; draws nothing."""

    def prepare(self, images):
        return images

    def draw(self, random_state, n):
        return {}

    def apply(self, prepared, indices):
        return prepared[indices]


class Blog(NoAugmentation):
    """``random_rotate``, then ``random_flip`` in both directions.

    Draws ``k`` in 0..3, counterclockwise quarter turns, and the booleans ``y_flip`` (upside down)
    and ``x_flip`` (left to right).  Images must be square.
    """

    def draw(self, random_state, n):
        return {'k': random_state.randint(4, size=n),
                'y_flip': random_state.randint(2, size=n, dtype=bool),
                'x_flip': random_state.randint(2, size=n, dtype=bool)}

    def apply(self, prepared, indices, k, y_flip, x_flip):
        xp = chainer.backend.get_array_module(prepared)
        images = prepared[indices]
        for turns in (1, 2, 3):
            _change(images, k == turns, lambda group: xp.rot90(group, turns, axes=(2, 3)))
        _change(images, y_flip, lambda group: group[:, :, ::-1])
        _change(images, x_flip, lambda group: group[:, :, :, ::-1])
        return images


class Standard(NoAugmentation):
    """Four black pixels on every side, then ``random_crop`` to the old size and a horizontal flip.

    Draws ``top`` and ``left`` in 0..8, the crop's corner, and the boolean ``x_flip``.
    """

    pad = 4

    def prepare(self, images):
        """Every crop of every image, as a view ``(N, 9, 9, 3, H, W)`` of the padded images."""
        xp = chainer.backend.get_array_module(images)
        border = (self.pad, self.pad)
        padded = xp.pad(images, ((0, 0), (0, 0), border, border))
        crops = xp.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        return crops.transpose(0, 2, 3, 1, 4, 5)

    def draw(self, random_state, n):
        return {'top': random_state.randint(2 * self.pad + 1, size=n),
                'left': random_state.randint(2 * self.pad + 1, size=n),
                'x_flip': random_state.randint(2, size=n, dtype=bool)}

    def apply(self, prepared, indices, top, left, x_flip):
        images = prepared[indices, top, left]
        _change(images, x_flip, lambda group: group[:, :, :, ::-1])
        return images


AUGMENTATIONS = {'blog': Blog, 'standard': Standard, 'none': NoAugmentation}


def _change(images, chosen, change):
    """Replace the chosen images (boolean NumPy array) by what ``change`` makes of them."""
    group = np.flatnonzero(chosen)  # indices, not a mask: a mask makes CuPy wait for the GPU
    images[group] = change(images[group])
