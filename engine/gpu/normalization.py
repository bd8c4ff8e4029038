"""Batch normalization of the columns of a matrix.

Shapes: x, y, their gradients and the residual (rows, channels), contiguous, of one dtype;
statistics, gamma, beta and their gradients (channels,), float32.

One kernel computes the statistics, or the gradients of gamma and beta, and a second one then goes
through the matrix.  For a matrix of few rows one kernel does both.  See normalization.cu.
"""
import functools

import cupy
import numpy as np

from engine.gpu.kernels import (
    CHANNELS,
    CHANNELS_OF_FEW,
    HELD,
    LANES,
    LANES_OF_FEW,
    ROWS,
    kernel,
    resident,
    typed,
)

FEW = HELD * LANES_OF_FEW  # rows of the longest matrix whose columns one block holds
LEAST = 2 * ROWS  # rows that a thread reads at least, if there are enough
INVERSE_DEVIATION = cupy.ElementwiseKernel(
    'T var, T eps', 'T y', 'y = 1 / sqrt(var + eps)', 'inverse_deviation')


def forward(x, gamma, beta, eps, decay=None, running_mean=None, running_var=None, residual=None,
            relu=False):
    """Normalize x by its own statistics.

    Args are those of :func:`statistics` and :func:`normalize`.

    Returns:
        tuple: y, and the mean and the inverse standard deviation of x.
    """
    if len(x) > FEW:
        mean, inv_std = statistics(x, eps, decay, running_mean, running_var)
        return normalize(x, mean, inv_std, gamma, beta, residual, relu), mean, inv_std
    y, mean, inv_std = cupy.empty_like(x), per_channel(x), per_channel(x)
    run_few('normalize_few', x, x, mean, inv_std, running_mean, running_var, gamma, beta, residual,
            y, *x.shape, float(eps), float(decay or 0), relu)
    return y, mean, inv_std


def statistics(x, eps, decay=None, running_mean=None, running_var=None):
    """The mean of each column, and 1 / sqrt(variance + eps).

    Running statistics, if given, are updated in place as Chainer does: by ``decay``, and with the
    unbiased variance.
    """
    mean, inv_std = per_channel(x), per_channel(x)
    reduce('statistics', x, x, mean, inv_std, running_mean, running_var,
           after=(float(eps), float(decay or 0)))
    return mean, inv_std


def inverse_deviation(var, eps):
    """1 / sqrt(var + eps)."""
    return INVERSE_DEVIATION(var, float(eps))


def normalize(x, mean, inv_std, gamma, beta, residual=None, relu=False):
    """gamma * (x - mean) * inv_std + beta, plus a residual, if any, and with a ReLU if asked."""
    y = cupy.empty_like(x)
    run('normalize', x, x, mean, inv_std, gamma, beta, residual, y, *x.shape, relu)
    return y


def gradients(x, gy, mean, inv_std, gamma, y=None, residual=False):
    """The gradients of :func:`forward` for the gradient gy of y.

    Args:
        mean, inv_std: The statistics of x.
        y: The output, if a ReLU was applied to it; otherwise None.
        residual (bool): Whether the gradient of the residual is wanted.

    Returns:
        tuple: The gradients of x, gamma, beta and the residual; the last one may be anything where
        it is not wanted.
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
    """The sum of each column, (channels,), of the dtype of x."""
    total = cupy.empty(x.shape[1], x.dtype)
    reduce('channel_sums', x, x, total)
    return total


def per_channel(x):
    """An uninitialized float32 array with an element for each column."""
    return cupy.empty(x.shape[1], np.float32)


def grid(name, x):
    """The grid of a kernel: blocks side by side for the channels, and blocks that share the rows.

    The latter are no more than the GPU runs at once: they loop over the rows.
    """
    rows, channels = x.shape
    tiles = -(-channels // CHANNELS)
    blocks = resident('normalization', name, x.dtype, CHANNELS * LANES, x.device.id)
    most = max(1, blocks // tiles)
    return tiles, min(-(-rows // (LANES * LEAST)), most)


def run(name, x, *arguments):
    """Run a kernel whose blocks share the rows of x."""
    kernel('normalization', name, x.dtype)(grid(name, x), (CHANNELS, LANES), typed(arguments))


def run_few(name, x, *arguments):
    """Run a kernel each of whose blocks holds all rows of its channels."""
    tiles = -(-x.shape[1] // CHANNELS_OF_FEW)
    kernel('normalization', name, x.dtype)(
        (tiles,), (CHANNELS_OF_FEW, LANES_OF_FEW), typed(arguments))


def reduce(name, x, *arrays, after=()):
    """Run a kernel that sums over the rows of x."""
    _, shares = grid(name, x)
    parts = cupy.empty((shares, x.shape[1], 2), np.float32) if shares > 1 else None
    run(name, x, *arrays, parts, counters(x.device.id), *x.shape, *after)


@functools.lru_cache(None)
def counters(device):
    """The counters of finished blocks, one for each tile of channels; zero between two kernels."""
    return cupy.zeros(2 ** 16, np.int32)
