"""Batch normalization of the columns of a matrix.

Shapes: x, y, their gradients and the residual (rows, channels), contiguous; statistics and
parameters (channels,); all of one dtype.
"""
import numpy as np

from engine.cpu.activation import rectify, rectify_gradient
from engine.cpu.blocks import block_rows, column_sum, folded, for_each_row_block, repeated, widened


def forward(x, gamma, beta, eps, decay=None, running_mean=None, running_var=None, residual=None,
            relu=False):
    """Normalize x by its own statistics.

    Args are those of :func:`statistics` and :func:`normalize`.

    Returns:
        tuple: y, and the mean and the inverse standard deviation of x.
    """
    mean, inv_std = statistics(x, eps, decay, running_mean, running_var)
    return normalize(x, mean, inv_std, gamma, beta, residual, relu), mean, inv_std


def statistics(x, eps, decay=None, running_mean=None, running_var=None):
    """The mean of each column, and 1 / sqrt(variance + eps).

    Running statistics, if given, are updated in place as Chainer does: by ``decay``, and with the
    unbiased variance.
    """
    mean, var = mean_and_variance(x)
    if running_mean is not None:
        m = len(x)
        running_mean *= decay
        running_mean += (1 - decay) * mean
        running_var *= decay
        running_var += (1 - decay) * (m / max(m - 1., 1.)) * var
    return mean, inverse_deviation(var, eps)


def inverse_deviation(var, eps):
    """1 / sqrt(var + eps)."""
    return np.reciprocal(np.sqrt(var + eps))


def mean_and_variance(x):
    """The mean of each column and its biased variance.

    Both come from one pass over the deviations from the mean of the first block: that is near the
    mean of all, so that the squares do not cancel.
    """
    m = x.dtype.type(len(x))
    channels = x.shape[1]
    x = widened(x)
    first = x[:block_rows(x)]
    near = folded(column_sum(first)[np.newaxis], channels) / x.dtype.type(first.size // channels)
    row = repeated(near, x)

    def sums(block):
        deviation = x[block] - row
        total = column_sum(deviation)
        deviation *= deviation
        return np.array([total, column_sum(deviation)])
    deviation, squares = folded(sum(for_each_row_block(sums, x)), channels) / m
    return near[0] + deviation, squares - deviation * deviation


def normalize(x, mean, inv_std, gamma, beta, residual=None, relu=False):
    """gamma * (x - mean) * inv_std + beta, plus a residual, if any, and with a ReLU if asked."""
    y = np.empty_like(x)
    x, out = widened(x), widened(y)
    residual = None if residual is None else widened(residual)
    mean, scale, beta = repeated([mean, gamma * inv_std, beta], x)

    def compute(block):
        h = np.subtract(x[block], mean, out=out[block])
        h *= scale
        h += beta
        if residual is not None:
            h += residual[block]
        if relu:
            rectify(h, out=h)
    for_each_row_block(compute, x)
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
    m = x.dtype.type(len(x))
    channels = x.shape[1]
    gx = np.empty_like(x)
    if y is None:
        gh = gy
    else:  # the gradient before the ReLU; if it is not wanted, it shares the memory of gx
        gh = np.empty_like(x) if residual else gx
        y = widened(y)
    gh, rows = widened(gh), gh
    x, gy, out = widened(x), widened(gy), widened(gx)
    mean_row = repeated([mean], x)

    def sums(block):
        if y is not None:
            rectify_gradient(y[block], gy[block], out=gh[block])
        product = x[block] - mean_row
        product *= gh[block]
        return np.array([column_sum(product), column_sum(gh[block])])
    ggamma, gbeta = folded(sum(for_each_row_block(sums, x)), channels)
    ggamma *= inv_std

    # gx = scale * (gh - gbeta / m - (x - mean) * inv_std * ggamma / m)
    scale = gamma * inv_std
    slope = -scale * inv_std * ggamma / m
    offset = -scale * gbeta / m - slope * mean
    scale, slope, offset = repeated([scale, slope, offset], x)

    def compute(block):
        deviation = x[block] * slope
        deviation += offset
        gradient = np.multiply(gh[block], scale, out=out[block])
        gradient += deviation
    for_each_row_block(compute, x)
    return gx, ggamma, gbeta, rows


def channel_sum(x):
    """The sum of each column, (channels,)."""
    channels = x.shape[1]
    x = widened(x)
    sums = for_each_row_block(lambda block: column_sum(x[block])[np.newaxis], x)
    return folded(sum(sums), channels)[0]
