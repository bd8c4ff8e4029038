"""Batches as the network sees them: gathered, augmented and normalised, on a CPU or a GPU."""
import os

import chainer
import numpy as np
from chainer.backends import cuda

from experiment import augmentation as augmentations

NORMALIZATIONS = ('unit', 'standard', 'caffe')
# ImageNet's mean in the order blue, green, red: chainer.links.model.vision.resnet.prepare.
CAFFE_MEAN = (103.063, 115.903, 123.152)
THREADS = 256  # of a block


class Normalization:
    """Scales pixels to what the network sees, by one factor and one offset for each channel.

    Args:
        name: 'unit' scales to [0, 1].  'standard' scales to [0, 1] and then to mean 0 and
            (population) standard deviation 1 in each channel of the training set.  'caffe' is
            what Chainer's ImageNet weights expect: blue, green, red, in [0, 255] less the mean.
        images: the *training* images, uint8 ``(N, 3, H, W)`` RGB, NumPy; 'standard' reads them.

    Attributes:
        scale, shift: float32 ``(3, 1, 1)``; the result is ``image * scale + shift``.
        reverse: whether the channels are reversed first.
    """

    def __init__(self, name, images=None):
        if name not in NORMALIZATIONS:
            raise ValueError(f'normalization {name!r} is none of {", ".join(NORMALIZATIONS)}')
        scale, shift = np.full(3, 1 / 255), np.zeros(3)
        self.reverse = name == 'caffe'
        if name == 'standard':
            mean, std = channel_statistics(images)
            scale, shift = 1 / std, -mean / std
        elif name == 'caffe':
            scale, shift = np.ones(3), -np.array(CAFFE_MEAN)
        self.scale = scale.astype(np.float32).reshape(3, 1, 1)
        self.shift = shift.astype(np.float32).reshape(3, 1, 1)

    def __call__(self, images):
        """Normalise uint8 images ``(B, 3, H, W)`` into a new float32 array of the same shape."""
        n, *shape = images.shape
        if self.reverse:
            images = images[:, ::-1]
        images = images.astype(np.float32, order='C')
        # Eight images at a time: NumPy is twice as fast as when it starts anew for every channel.
        scale, shift = (np.broadcast_to(a, (8, *shape)).copy()
                        for a in (self.scale, self.shift))
        rest = n % 8
        for part in (images[:rest], images[rest:].reshape(-1, 8, *shape)):
            part *= scale[:part.shape[-4]]
            part += shift[:part.shape[-4]]
        return images


def channel_statistics(images):
    """Return mean and population standard deviation of each channel, in the units 0..255.

    The integers are summed exactly, so the result is the same on every machine.  A channel that is
    constant counts as having standard deviation 1.

    Args:
        images: uint8 ``(N, 3, H, W)``, NumPy.

    Returns:
        Two float64 arrays of shape ``(3,)``.
    """
    n = images.size // images.shape[1]
    total = np.zeros(images.shape[1], np.int64)
    squares = np.zeros_like(total)
    for start in range(0, len(images), 1000):  # bounds the memory
        block = images[start:start + 1000].astype(np.int64)
        total += block.sum(axis=(0, 2, 3))
        squares += (block * block).sum(axis=(0, 2, 3))
    variance = [(n * int(q) - int(s) ** 2) / n ** 2 for s, q in zip(total, squares)]
    return total / n, np.sqrt([v if v > 0 else 1. for v in variance])


class BatchConverter(chainer.dataset.Converter):
    """A converter from a list of indices to a batch; stands where ``concat_examples`` does.

    The images go to a GPU once, at the first batch, as uint8; every batch is then made there by
    one kernel, with the same pixels.

    Args:
        dataset: a :class:`experiment.dataset.LabeledImages`.
        normalization: a :class:`Normalization`, the same for training and evaluation.
        augmentation: one of :mod:`experiment.augmentation`; None for evaluation.
        random_state: the :class:`numpy.random.RandomState` that the augmentation alone draws from.
            Save and restore it with the run.
    """

    def __init__(self, dataset, normalization, augmentation=None, random_state=None):
        self.dataset = dataset
        self.normalization = normalization
        self.augmentation = augmentation or augmentations.NoAugmentation()
        self.random_state = random_state
        self._device = None

    def __call__(self, batch, device=None):
        """Return images ``(B, 3, H, W)`` of Chainer's dtype and labels int32 ``(B,)``.

        Args:
            batch: a sequence of integers in ``[0, N)``.
            device: where the batch is made, a :class:`chainer.backend.Device` or its name; None
                means the CPU.
        """
        device = chainer.get_device('@numpy' if device is None else device)
        indices = np.asarray(batch)
        draws = self.augmentation.draw(self.random_state, len(indices))
        with chainer.using_device(device):
            if device != self._device:
                batches = CPUBatches if device.xp is np else GPUBatches
                self._batches = batches(self.dataset, self.normalization, self.augmentation)
                self._device = device
            return self._batches(indices, draws)


class CPUBatches:
    """Batches made by NumPy.

    Args:
        dataset: a :class:`experiment.dataset.LabeledImages`.
        normalization: a :class:`Normalization`.
        augmentation: one of :mod:`experiment.augmentation`.
    """

    def __init__(self, dataset, normalization, augmentation):
        self.labels = dataset.labels
        self.normalization = normalization
        self.augmentation = augmentation
        self.prepared = augmentation.prepare(dataset.images)

    def __call__(self, indices, draws):
        """Return images ``(B, 3, H, W)`` of Chainer's dtype and labels int32 ``(B,)``.

        Args:
            indices: integer NumPy array ``(B,)``.
            draws: what the augmentation has drawn for B images.

        Raises:
            IndexError: If an index is outside the set.
        """
        images = self.normalization(self.augmentation.apply(self.prepared, indices, **draws))
        return images.astype(chainer.get_dtype(), copy=False), self.labels[indices]


class GPUBatches:
    """Batches made on the current GPU by one kernel each, from the whole set in its memory.

    Arguments and batches are those of :class:`CPUBatches`, but images have channels-last memory.
    """

    def __init__(self, dataset, normalization, augmentation):
        self.xp = xp = cuda.cupy
        self.images, self.labels, self.scale, self.shift = map(xp.asarray, (
            np.ascontiguousarray(dataset.images), dataset.labels,
            normalization.scale.ravel(), normalization.shift.ravel()))
        self.reverse = np.int32(normalization.reverse)
        self.augmentation = augmentation
        self.numbers = np.arange(len(dataset))
        with open(os.path.join(os.path.dirname(__file__), 'batch.cu')) as file:
            self.kernel = xp.RawKernel(file.read(), 'batch')

    def __call__(self, indices, draws):
        xp, (channels, h, w) = self.xp, self.images.shape[1:]
        indices = self.numbers[indices]  # the kernel would read whatever is there
        n = len(indices)
        sources = self.augmentation.sources(n, h, w, **draws).reshape(n, 6)
        sources = np.column_stack([indices, sources]).astype(np.int32)
        x, t = xp.empty((n, h, w, channels), np.float32), xp.empty(n, np.int32)
        self.kernel((-(-x.size // THREADS),), (THREADS,), (
            self.images, self.labels, xp.asarray(sources), self.scale, self.shift, x, t,
            *map(np.int32, (n, channels, h, w)), self.reverse))
        return x.transpose(0, 3, 1, 2).astype(chainer.get_dtype(), copy=False), t
