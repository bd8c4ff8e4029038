"""Batch normalization of the columns of a matrix, (rows, channels).

Statistics and gradients of the parameters are each one kernel, and so is what is then done to the
matrix; of few rows, one kernel does both.  See normalization.cu.  Statistics, gamma, beta and their
gradients are float32.
"""
import functools

import cupy
import numpy as np

from engine.gpu.kernels import CHANNELS, HELD, LANES, kernel, resident, typed

FEW = HELD * LANES  # rows, of which a block holds its channels
LEAST = 8  # rows that a thread reads, where there are enough
INVERSE_DEVIATION = cupy.ElementwiseKernel(
    'T var, T eps', 'T y', 'y = 1 / sqrt(var + eps)', 'inverse_deviation')


def forward(x, gamma, beta, eps, decay=None, running_mean=None, running_var=None, residual=None,
            relu=False):
    """What :func:`normalize` gives with the statistics of x itself, and these; see there."""
    if len(x) > FEW:
        mean, inv_std = statistics(x, eps, decay, running_mean, running_var)
        return normalize(x, mean, inv_std, gamma, beta, residual, relu), mean, inv_std
    y, mean, inv_std = cupy.empty_like(x), per_channel(x), per_channel(x)
    run_few('normalize_few', x, x, mean, inv_std, running_mean, running_var, gamma, beta, residual,
            y, *x.shape, float(eps), float(decay or 0), relu)
    return y, mean, inv_std


def statistics(x, eps, decay=None, running_mean=None, running_var=None):
    """Mean of each column, and 1 / sqrt(variance + eps).

    Running statistics, if they are given, are moved along in place, as Chainer's: the variance is
    then unbiased.
    """
    mean, inv_std = per_channel(x), per_channel(x)
    reduce('statistics', x, x, mean, inv_std, running_mean, running_var,
           after=(float(eps), float(decay or 0)))
    return mean, inv_std


def inverse_deviation(var, eps):
    return INVERSE_DEVIATION(var, float(eps))


def normalize(x, mean, inv_std, gamma, beta, residual=None, relu=False):
    """gamma * (x - mean) * inv_std + beta, plus a residual; with ``relu``, 0 where that is less."""
    y = cupy.empty_like(x)
    run('normalize', x, x, mean, inv_std, gamma, beta, residual, y, *x.shape, relu)
    return y


def gradients(x, gy, mean, inv_std, gamma, y=None, residual=False):
    """Of x, gamma, beta and the residual, of which there may be none.

    ``y`` is what :func:`normalize` returned where it was by ``relu``.
    """
    gx, ggamma, gbeta = cupy.empty_like(x), per_channel(x), per_channel(x)
    gresidual = cupy.empty_like(x) if residual and y is not None else None
    if len(x) <= FEW:
        run_few('gradients_of_few', x, x, gy, y, mean, inv_std, gamma, ggamma, gbeta, gx, gresidual,
                *x.shape)
    else:
        reduce('parameter_gradients', x, x, gy, y, mean, inv_std, ggamma, gbeta)
        run('input_gradient', x, x, gy, y, mean, inv_std, gamma, ggamma, gbeta, gx, gresidual,
            *x.shape)
    return gx, ggamma, gbeta, gy if y is None else gresidual


def channel_sum(x):
    """Of each column: (channels,)."""
    total = cupy.empty(x.shape[1], x.dtype)
    reduce('channel_sums', x, x, total)
    return total


def per_channel(x):
    return cupy.empty(x.shape[1], np.float32)


def grid(name, x):
    """Blocks over the channels, and blocks that share the rows, no more than run at once."""
    rows, channels = x.shape
    tiles = -(-channels // CHANNELS)
    blocks = resident('normalization', name, x.dtype, CHANNELS * LANES, x.device.id)
    most = max(1, blocks // tiles)
    return tiles, min(-(-rows // (LANES * LEAST)), most)


def run(name, x, *arguments):
    kernel('normalization', name, x.dtype)(grid(name, x), (CHANNELS, LANES), typed(arguments))


def run_few(name, x, *arguments):
    tiles = -(-x.shape[1] // CHANNELS)
    kernel('normalization', name, x.dtype)((tiles,), (CHANNELS, LANES), typed(arguments))


def reduce(name, x, *arrays, after=()):
    _, shares = grid(name, x)
    parts = cupy.empty((shares, x.shape[1], 2), np.float32) if shares > 1 else None
    run(name, x, *arrays, parts, counters(x.device.id), *x.shape, *after)


@functools.lru_cache(None)
def counters(device):
    """Zeros, one for each tile of channels, which every kernel leaves as it found them."""
    return cupy.zeros(2 ** 16, np.int32)
