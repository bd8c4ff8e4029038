"""Pooling of channels-last arrays, without padding.

Shapes: x (N, H, W, C), y (N, H', W', C).  ``indexes`` has the shape of y and says which place of
its window each maximum is, counted in rows, as in Chainer's MaxPoolingND.
"""
import numpy as np

from engine.cpu.threads import each

IMAGES = 8  # at once, in each thread


def maximum(x, kernel, stride, cover_all):
    """y and indexes; the first of equal maxima counts."""
    n, h, w, c = x.shape
    size = tuple((length - k + (s - 1 if cover_all else 0)) // s + 1
                 for length, k, s in zip((h, w), kernel, stride))
    y = np.full((n, *size, c), -np.inf, x.dtype)
    indexes = np.zeros(y.shape, int)

    def part(images):
        for place, met, values in places(x[images], kernel, stride, size):
            best = y[images][met]
            np.copyto(indexes[images][met], place, where=values > best)
            np.maximum(best, values, out=best)
    each(part, n, IMAGES, x.size)
    return y, indexes


def maximum_gradient(gy, indexes, x_shape, kernel, stride):
    gx = np.zeros(x_shape, gy.dtype)

    def part(images):
        for place, met, values in places(gx[images], kernel, stride, gy.shape[1:3]):
            values += gy[images][met] * (indexes[images][met] == place)
    each(part, len(gx), IMAGES, gx.size)
    return gx


def average(x):
    """Over all pixels: (N, 1, 1, C)."""
    return x.mean(axis=(1, 2), keepdims=True)


def average_gradient(gy, x_shape):
    gx = np.empty(x_shape, gy.dtype)
    gx[...] = gy / (x_shape[1] * x_shape[2])
    return gx


def places(x, kernel, stride, size):
    """For each place of a window: its number, the outputs that meet the input there, a view of x.

    At the lower and right border a window may reach beyond the input.
    """
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            values = x[:, i::stride[0], j::stride[1]][:, :size[0], :size[1]]
            met = slice(None), slice(values.shape[1]), slice(values.shape[2])
            yield i * kernel[1] + j, met, values
