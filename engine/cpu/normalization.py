"""Batch normalization of the columns of a matrix, (rows, channels)."""
import numpy as np

from engine.cpu.blocks import column_sum, each_row_block


def mean_and_variance(x):
    """Of each column; the variance about the mean, as Chainer's."""
    m = x.dtype.type(len(x))
    mean = sum(each_row_block(lambda block: column_sum(x[block]), *x.shape)) / m

    def squares(block):
        deviation = x[block] - mean
        deviation *= deviation
        return column_sum(deviation)
    return mean, sum(each_row_block(squares, *x.shape)) / m


def normalize(x, mean, inv_std, gamma, beta):
    """gamma * (x - mean) * inv_std + beta"""
    y = np.empty_like(x)
    scale = gamma * inv_std

    def part(block):
        out = np.subtract(x[block], mean, out=y[block])
        out *= scale
        out += beta
    each_row_block(part, *x.shape)
    return y


def gradients(x, gy, mean, inv_std, gamma):
    """Of x, gamma and beta."""
    def sums(block):
        product = x[block] - mean
        product *= gy[block]
        return np.array([column_sum(product), column_sum(gy[block])])
    ggamma, gbeta = sum(each_row_block(sums, *x.shape))
    ggamma *= inv_std

    m = x.dtype.type(len(x))
    scale = gamma * inv_std
    slope = -scale * inv_std * ggamma / m
    offset = -scale * gbeta / m
    gx = np.empty_like(x)

    def part(block):
        out = np.subtract(x[block], mean, out=gx[block])
        out *= slope
        out += offset
        out += gy[block] * scale
    each_row_block(part, *x.shape)
    return gx, ggamma, gbeta
