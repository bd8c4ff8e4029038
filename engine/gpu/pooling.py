"""Pooling of channels-last arrays, without padding.

Shapes: x (N, H, W, C), y (N, H', W', C), of one dtype.  ``indexes`` has the shape of y and holds
the place of each maximum in its window, counted row by row, as Chainer's MaxPoolingND does.
"""
import cupy
import numpy as np

from engine.geometry import output_size
from engine.gpu.kernels import launch


def maximum(x, kernel, stride, cover_all):
    """The maxima y and their indexes, int32; of equal ones the first counts."""
    n, _, _, c = x.shape
    size = output_size(x.shape, kernel, stride, cover_all=cover_all)
    y = cupy.empty((n, *size, c), x.dtype)
    indexes = cupy.empty(y.shape, np.int32)
    launch('pooling', 'maximum', x.dtype, y.size, x, y, indexes, *x.shape, *size, *kernel, *stride)
    return y, indexes


def maximum_gradient(gy, indexes, x_shape, kernel, stride):
    """The gradient of x: gy where the maxima are, added where windows overlap, otherwise 0."""
    gx = cupy.empty(x_shape, gy.dtype)
    launch('pooling', 'maximum_gradient', gy.dtype, gx.size,
           gy, indexes, gx, *x_shape, *gy.shape[1:3], *kernel, *stride)
    return gx


def average(x):
    """The mean over all pixels, (N, 1, 1, C)."""
    n, h, w, c = x.shape
    y = cupy.empty((n, 1, 1, c), x.dtype)
    launch('pooling', 'average', x.dtype, y.size, x, y, n, h * w, c)
    return y


def average_gradient(gy, x_shape):
    """The gradient of x for that of its mean, (N, 1, 1, C)."""
    n, h, w, c = x_shape
    gx = cupy.empty(x_shape, gy.dtype)
    launch('pooling', 'average_gradient', gy.dtype, gx.size, gy, gx, n, h * w, c)
    return gx
