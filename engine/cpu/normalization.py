"""Batch normalization of the columns of a matrix, (rows, channels)."""
import numpy as np

from engine.cpu.activation import rectify, rectify_gradient
from engine.cpu.blocks import block_rows, column_sum, each_row_block, folded, repeated, widened


def forward(x, gamma, beta, eps, decay=None, running_mean=None, running_var=None, residual=None,
            relu=False):
    """What :func:`normalize` gives with the statistics of x itself, and these; see there."""
    mean, inv_std = statistics(x, eps, decay, running_mean, running_var)
    return normalize(x, mean, inv_std, gamma, beta, residual, relu), mean, inv_std


def statistics(x, eps, decay=None, running_mean=None, running_var=None):
    """Mean of each column, and 1 / sqrt(variance + eps).

    Running statistics, if they are given, are moved along in place, as Chainer's: the variance is
    then unbiased.
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
    return np.reciprocal(np.sqrt(var + eps))


def mean_and_variance(x):
    """Of each column; the variance about the mean, as Chainer's.

    Both come of one pass over deviations from the mean of the first block, which is near.
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
    deviation, squares = folded(sum(each_row_block(sums, x)), channels) / m
    return near[0] + deviation, squares - deviation * deviation


def normalize(x, mean, inv_std, gamma, beta, residual=None, relu=False):
    """gamma * (x - mean) * inv_std + beta, plus a residual; with ``relu``, 0 where that is less."""
    y = np.empty_like(x)
    x, out = widened(x), widened(y)
    residual = None if residual is None else widened(residual)
    mean, scale, beta = repeated([mean, gamma * inv_std, beta], x)

    def part(block):
        part = np.subtract(x[block], mean, out=out[block])
        part *= scale
        part += beta
        if residual is not None:
            part += residual[block]
        if relu:
            rectify(part, out=part)
    each_row_block(part, x)
    return y


def gradients(x, gy, mean, inv_std, gamma, y=None, residual=False):
    """Of x, gamma, beta and the residual, of which there may be none.

    ``y`` is what :func:`normalize` returned where it was by ``relu``.
    """
    m = x.dtype.type(len(x))
    channels = x.shape[1]
    gx = np.empty_like(x)
    if y is None:
        gh = gy
    else:  # before ReLU; where nobody asks for it, it makes room for gx
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
    ggamma, gbeta = folded(sum(each_row_block(sums, x)), channels)
    ggamma *= inv_std

    # gx = scale * (gh - gbeta / m - (x - mean) * inv_std * ggamma / m)
    scale = gamma * inv_std
    slope = -scale * inv_std * ggamma / m
    offset = -scale * gbeta / m - slope * mean
    scale, slope, offset = repeated([scale, slope, offset], x)

    def part(block):
        deviation = x[block] * slope
        deviation += offset
        part = np.multiply(gh[block], scale, out=out[block])
        part += deviation
    each_row_block(part, x)
    return gx, ggamma, gbeta, rows


def channel_sum(x):
    """Of each column: (channels,)."""
    channels = x.shape[1]
    x = widened(x)
    sums = each_row_block(lambda block: column_sum(x[block])[np.newaxis], x)
    return folded(sum(sums), channels)[0]
