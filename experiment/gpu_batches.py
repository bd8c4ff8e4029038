"""Batches made on a GPU, by one kernel each."""
import os

import chainer
import numpy as np

THREADS = 256  # of a block


class GPUBatches:
    """The set on the GPU, and batches of it; what :mod:`experiment.converter` does there.

    Args:
        dataset: a :class:`experiment.dataset.LabeledImages`.
        normalization: a :class:`experiment.converter.Normalization`.
        device: a :class:`chainer.backend.GpuDevice`.
    """

    def __init__(self, dataset, normalization, device):
        self.xp = device.xp
        self.images, self.labels, self.scale, self.shift = map(device.send, (
            np.ascontiguousarray(dataset.images), dataset.labels,
            normalization.scale.ravel(), normalization.shift.ravel()))
        self.numbers = np.arange(len(dataset))
        self.reverse = np.int32(normalization.reverse)
        with open(os.path.join(os.path.dirname(__file__), 'batch.cu')) as file:
            self.kernel = self.xp.RawKernel(file.read(), 'batch')

    def __call__(self, indices, sources):
        """Images ``(B, 3, H, W)`` in channels-last memory, and labels int32 ``(B,)``.

        Args:
            indices: integer NumPy array ``(B,)``.
            sources: integer NumPy array ``(B, 2, 3)``; see :mod:`experiment.augmentation`.

        Raises:
            IndexError: If an index is outside the set.
        """
        xp, (channels, h, w) = self.xp, self.images.shape[1:]
        indices = self.numbers[indices]  # the kernel would read whatever is there
        n = len(indices)
        x, t = xp.empty((n, h, w, channels), np.float32), xp.empty(n, np.int32)
        numbers = np.column_stack([indices, sources.reshape(n, 6)]).astype(np.int32)
        self.kernel((-(-x.size // THREADS),), (THREADS,), (
            self.images, self.labels, xp.asarray(numbers), self.scale, self.shift, x, t,
            *map(np.int32, (n, channels, h, w)), self.reverse))
        return x.transpose(0, 3, 1, 2).astype(chainer.get_dtype(), copy=False), t
