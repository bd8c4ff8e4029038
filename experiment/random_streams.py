"""The four random streams of one seed."""
import numpy as np
from chainer import training

NAMES = 'weights', 'mixup', 'order', 'augmentation'


class RandomStreams(training.Extension):
    """Independent streams for weights, mixup, order of the data and augmentation.

    ``order`` and ``augmentation`` are RandomStates of their own.  Weights and mixup draw from
    NumPy's global generator, one after the other: ``seed_global('weights')`` before the network
    is made, ``seed_global('mixup')`` after.  Baseline and mixup runs of one seed thus start from
    the same weights and see the same images in the same order with the same augmentation.

    As an extension of the Trainer it does nothing but save and restore the streams with each
    snapshot.

    Args:
        seed (int): 0 to 2**32 - 1.
    """

    def __init__(self, seed):
        children = np.random.SeedSequence(seed).spawn(len(NAMES))
        self.seeds = {name: [int(word) for word in child.generate_state(4)]
                      for name, child in zip(NAMES, children)}
        self.order = np.random.RandomState(self.seeds['order'])
        self.augmentation = np.random.RandomState(self.seeds['augmentation'])

    def seed_global(self, name):
        """Start NumPy's global generator on the stream ``'weights'`` or ``'mixup'``."""
        np.random.seed(self.seeds[name])

    def __call__(self, trainer):
        pass

    def serialize(self, serializer):
        streams = {'mixup': np.random, 'order': self.order, 'augmentation': self.augmentation}
        for name, stream in streams.items():
            kind, *state = stream.get_state()
            stream.set_state((kind, *(
                serializer(f'{name}_{part}', value)
                for part, value in zip(('key', 'position', 'has_gauss', 'gauss'), state))))
