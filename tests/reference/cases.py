"""The weights and the batches on which the networks are compared with PyTorch's."""
import functools

import numpy as np

LAM = 0.3
N_CLASS = 10

PLAIN = None
EVERY = PLAIN, 0, 1, 2, 3, 4, 5

# (architecture, stem, layer_mix), with those of a network and a stem in a row
CASES = [(architecture, stem, layer) for architecture, stem, layers in (
    ('resnet50', 'imagenet', EVERY), ('resnet50', 'cifar', (PLAIN, 1)),
    ('resnet18', 'cifar', EVERY), ('resnet18', 'imagenet', (PLAIN, 1)),
    ('preactresnet18', 'cifar', EVERY), ('preactresnet34', 'cifar', EVERY),
    ('preactresnet50', 'cifar', EVERY), ('wrn16-2', 'cifar', EVERY[:-1]),
    ('wrn28-10', 'cifar', (2,))) for layer in layers]


def batch_of(architecture, stem):
    """The batch on which a network is compared, as of :func:`batch`."""
    return batch(8 if stem == 'imagenet' else 3,
                 32 if stem == 'imagenet' or architecture == 'resnet50' else 16)


def batch(n, side=32, seed=1):
    """Images, float64 in [0, 1], shape (n, 3, side, side), labels, and a permutation."""
    random = np.random.RandomState(seed)
    return (random.uniform(size=(n, 3, side, side)), random.randint(N_CLASS, size=n).astype('i'),
            random.permutation(n))


def weights(shapes):
    """Values for parameters and statistics, float64, by name; ``shapes`` maps names to shapes.

    The last BN of each residual branch is scaled down, about as training does it.  Otherwise the
    network multiplies rounding errors so much that float32 says little in any framework.
    """
    random = np.random.RandomState(2)
    values = {}
    for name in sorted(shapes):
        shape, kind = shapes[name], name.rsplit('/', 1)[1]
        noise = random.normal(size=shape)
        if kind == 'W':
            values[name] = noise * np.sqrt(2 / np.prod(shape[1:]))
        elif kind in ('gamma', 'avg_var'):
            values[name] = np.exp(noise / 10) * (0.3 if name.endswith('bn3/gamma') else 1)
        else:
            values[name] = noise / 10
    return values


@functools.cache
def signs(size):
    """Two vectors of random signs, int8, shape (2, size)."""
    return (np.random.RandomState(3).randint(2, size=(2, size)) * 2 - 1).astype(np.int8)


def digest(value):
    """Three numbers that stand for an array: its norm and two projections.

    A projection is on a vector of random signs, so that it moves by about the norm of whatever
    is added to the array.
    """
    value = np.asarray(value, 'd').ravel()
    return np.array([np.linalg.norm(value), *(signs(value.size) @ value)])
