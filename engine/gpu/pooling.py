"""Pooling of channels-last arrays, without padding.

Shapes: x (N, H, W, C), y (N, H', W', C).  ``indexes`` has the shape of y and says which place of
its window each maximum is, counted in rows, as in Chainer's MaxPoolingND.
"""
import cupy
import numpy as np

from engine.gpu.kernels import launch


def maximum(x, kernel, stride, cover_all):
    """y and indexes; the first of equal maxima counts."""
    n, h, w, c = x.shape
    size = tuple((length - k + (s - 1 if cover_all else 0)) // s + 1
                 for length, k, s in zip((h, w), kernel, stride))
    y = cupy.empty((n, *size, c), x.dtype)
    indexes = cupy.empty(y.shape, np.int32)
    launch('pooling', 'maximum', x.dtype, y.size, x, y, indexes, *x.shape, *size, *kernel, *stride)
    return y, indexes


def maximum_gradient(gy, indexes, x_shape, kernel, stride):
    gx = cupy.empty(x_shape, gy.dtype)
    launch('pooling', 'maximum_gradient', gy.dtype, gx.size,
           gy, indexes, gx, *x_shape, *gy.shape[1:3], *kernel, *stride)
    return gx


def average(x):
    """Over all pixels: (N, 1, 1, C)."""
    n, h, w, c = x.shape
    y = cupy.empty((n, 1, 1, c), x.dtype)
    launch('pooling', 'average', x.dtype, y.size, x, y, n, h * w, c)
    return y


def average_gradient(gy, x_shape):
    n, h, w, c = x_shape
    gx = cupy.empty(x_shape, gy.dtype)
    launch('pooling', 'average_gradient', gy.dtype, gx.size, gy, gx, n, h * w, c)
    return gx
