"""Pooling of channels-last arrays, without padding.

Shapes: x (N, H, W, C), y (N, H', W', C), of one dtype.  ``indexes`` has the shape of y and holds
the place of each maximum in its window, counted row by row, as Chainer's MaxPoolingND does.
"""
import numpy as np

from engine.cpu.threads import parallel_for
from engine.geometry import output_size

IMAGES = 8  # at once, in each thread


def maximum(x, kernel, stride, cover_all):
    """The maxima y and their indexes; of equal ones the first counts."""
    n, _, _, c = x.shape
    size = output_size(x.shape, kernel, stride, cover_all=cover_all)
    y = np.full((n, *size, c), -np.inf, x.dtype)
    indexes = np.zeros(y.shape, int)

    def pool(images):
        for place, outputs, values in places(x[images], kernel, stride, size):
            best = y[images][outputs]
            np.copyto(indexes[images][outputs], place, where=values > best)
            np.maximum(best, values, out=best)
    parallel_for(pool, n, IMAGES, x.size)
    return y, indexes


def maximum_gradient(gy, indexes, x_shape, kernel, stride):
    """The gradient of x: gy where the maxima are, added where windows overlap, otherwise 0."""
    gx = np.zeros(x_shape, gy.dtype)

    def scatter(images):
        for place, outputs, values in places(gx[images], kernel, stride, gy.shape[1:3]):
            values += gy[images][outputs] * (indexes[images][outputs] == place)
    parallel_for(scatter, len(gx), IMAGES, gx.size)
    return gx


def average(x):
    """The mean over all pixels, (N, 1, 1, C)."""
    return x.mean(axis=(1, 2), keepdims=True)


def average_gradient(gy, x_shape):
    """The gradient of x for that of its mean, (N, 1, 1, C)."""
    gx = np.empty(x_shape, gy.dtype)
    gx[...] = gy / (x_shape[1] * x_shape[2])
    return gx


def places(x, kernel, stride, size):
    """Go through the places of a window, counted row by row.

    At the lower and the right border a window may reach beyond the input.

    Yields:
        tuple: The number of a place, an index of the outputs whose windows have an input there, and
        a view of these inputs.
    """
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            values = x[:, i::stride[0], j::stride[1]][:, :size[0], :size[1]]
            outputs = slice(None), slice(values.shape[1]), slice(values.shape[2])
            yield i * kernel[1] + j, outputs, values
