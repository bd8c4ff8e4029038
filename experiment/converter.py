"""From indices to the batch that the network sees: gathered, augmented and normalised at once."""
import chainer
import numpy as np

from experiment import augmentation as augmentations
from experiment.gpu_batches import GPUBatches

# Of ImageNet, in the order blue, green, red: chainer.links.model.vision.resnet.prepare.
CAFFE_MEAN = (103.063, 115.903, 123.152)
NORMALIZATIONS = ('unit', 'standard', 'caffe')


class Normalization:
    """Pixels as the network sees them, one factor and one offset a channel.

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
        """Of uint8 ``(B, 3, H, W)``: float32 of the same shape."""
        n, *shape = images.shape
        if self.reverse:
            images = images[:, ::-1]
        images = images.astype(np.float32, order='C')
        # By eights: NumPy is twice as fast as when it starts anew for every channel.
        scale, shift = (np.broadcast_to(a, (8, *shape)).copy()
                        for a in (self.scale, self.shift))
        rest = n % 8
        for part in (images[:rest], images[rest:].reshape(-1, 8, *shape)):
            part *= scale[:part.shape[-4]]
            part += shift[:part.shape[-4]]
        return images


def channel_statistics(images):
    """Mean and population standard deviation of each channel, in the units 0..255.

    Exact sums of the integers, so the same on every machine.  A channel that is the same
    everywhere counts as having standard deviation 1.

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
    """Converts a list of indices into a batch; stands where ``concat_examples`` does.

    To a GPU the images are sent once, at the first batch, as uint8; every batch is then made there
    by one kernel, with the same pixels.

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
        """Images ``(B, 3, H, W)`` of Chainer's dtype and labels int32 ``(B,)`` on the device.

        Args:
            batch: a sequence of integers in ``[0, N)``.
            device: a :class:`chainer.backend.Device` or its name; None means the CPU.
        """
        device = chainer.get_device('@numpy' if device is None else device)
        indices = np.asarray(batch)
        if device != self._device:
            self._make = self._on_gpu(device) if device.xp is not np else self._on_cpu()
            self._device = device
        draws = self.augmentation.draw(self.random_state, len(indices))
        return self._make(indices, draws)

    def _on_cpu(self):
        prepared = self.augmentation.prepare(self.dataset.images)

        def make(indices, draws):
            images = self.augmentation.apply(prepared, indices, **draws)
            images = self.normalization(images).astype(chainer.get_dtype(), copy=False)
            return images, self.dataset.labels[indices]
        return make

    def _on_gpu(self, device):
        with chainer.using_device(device):
            batches = GPUBatches(self.dataset, self.normalization, device)
        size = self.dataset.images.shape[2:]

        def make(indices, draws):
            with chainer.using_device(device):
                return batches(
                    indices, self.augmentation.sources(len(indices), *size, **draws))
        return make
