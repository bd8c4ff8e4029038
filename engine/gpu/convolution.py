"""Convolutions of channels-last maps.

Shapes: x (N, H, W, C), W (O, kh, kw, C), y (N, H', W', O); stride and pad are pairs.
"""
import cupy

from engine.gpu import activation, plans


def forward(x, W, stride, pad):
    y = cupy.empty((len(x), *size(x, W, stride, pad), len(W)), x.dtype)
    W, pad = without_unused_taps(W, pad, x.shape, y.shape)
    plans.run('fprop', x, W, y, stride, pad)
    return y


def weight_gradient(x, gy, W_shape, stride, pad):
    gW = cupy.empty(W_shape, x.dtype)
    plans.run('wgrad', x, gW, gy, stride, pad)
    return gW


def input_gradient(gy, W, x_shape, stride, pad, onto=None):
    """Added to ``onto`` if that is given."""
    gx = cupy.empty(x_shape, gy.dtype)
    W, pad = without_unused_taps(W, pad, x_shape, gy.shape)
    plans.run('dgrad', gx, W, gy, stride, pad)
    if onto is not None:
        activation.accumulate(gx, onto)
    return gx


def size(x, W, stride, pad):
    return tuple((length + 2 * p - k) // s + 1
                 for length, k, s, p in zip(x.shape[1:3], W.shape[1:3], stride, pad))


def without_unused_taps(W, pad, x_shape, y_shape):
    """The filter and the padding that give the same where maps are of one pixel.

    One tap meets it; the others meet the padding.  The copy is smaller than what they would cost.
    (A gradient of W has all taps, and so no less to write.)
    """
    one = x_shape[1:3] == y_shape[1:3] == (1, 1)
    if not one or W.shape[1:3] == (1, 1) or pad[0] >= W.shape[1] or pad[1] >= W.shape[2]:
        return W, pad
    row, column = pad
    return cupy.ascontiguousarray(W[:, row:row + 1, column:column + 1]), (0, 0)
