"""Batch normalization of the columns of a matrix, (rows, channels)."""
import numpy as np

from engine.cpu.blocks import block_rows, column_sum, each_row_block, folded, repeated, widened


def mean_and_variance(x):
    """Of each column; the variance about the mean, as Chainer's.

    Both come of one pass over deviations from the mean of the first block, which is near.
    """
    m = x.dtype.type(len(x))
    channels = x.shape[1]
    x = widened(x)
    first = x[:block_rows(x)]
    near = folded(column_sum(first), channels) / x.dtype.type(first.size // channels)
    row = repeated(near, x)

    def sums(block):
        deviation = x[block] - row
        total = column_sum(deviation)
        deviation *= deviation
        return np.array([total, column_sum(deviation)])
    total, squares = sum(each_row_block(sums, x))
    deviation = folded(total, channels) / m
    return near + deviation, folded(squares, channels) / m - deviation * deviation


def normalize(x, mean, inv_std, gamma, beta):
    """gamma * (x - mean) * inv_std + beta"""
    y = np.empty_like(x)
    x, out = widened(x), widened(y)
    mean, scale, beta = (repeated(row, x) for row in (mean, gamma * inv_std, beta))

    def part(block):
        part = np.subtract(x[block], mean, out=out[block])
        part *= scale
        part += beta
    each_row_block(part, x)
    return y


def gradients(x, gy, mean, inv_std, gamma):
    """Of x, gamma and beta."""
    m = x.dtype.type(len(x))
    channels = x.shape[1]
    gx = np.empty_like(x)
    x, gy, out = widened(x), widened(gy), widened(gx)
    mean_row = repeated(mean, x)

    def sums(block):
        product = x[block] - mean_row
        product *= gy[block]
        return np.array([column_sum(product), column_sum(gy[block])])
    ggamma, gbeta = (folded(total, channels) for total in sum(each_row_block(sums, x)))
    ggamma *= inv_std

    # gx = scale * (gy - gbeta / m - (x - mean) * inv_std * ggamma / m)
    scale = gamma * inv_std
    slope = -scale * inv_std * ggamma / m
    offset = -scale * gbeta / m - slope * mean
    scale, slope, offset = (repeated(row, x) for row in (scale, slope, offset))

    def part(block):
        part = np.multiply(x[block], slope, out=out[block])
        part += offset
        part += gy[block] * scale
    each_row_block(part, x)
    return gx, ggamma, gbeta
