"""Two-dimensional convolution of channels-last arrays, by cuDNN.

Shapes: x (N, H, W, C), W (O, kh, kw, C), y (N, H', W', O), of one dtype; stride and pad are pairs.
"""
import cupy

from engine.geometry import output_size
from engine.gpu import activation, plans


def forward(x, W, stride, pad):
    """The convolution y."""
    y = cupy.empty((len(x), *output_size(x.shape, W.shape[1:3], stride, pad), len(W)), x.dtype)
    W, pad = without_unused_taps(W, pad, x.shape, y.shape)
    plans.run('fprop', x, W, y, stride, pad)
    return y


def weight_gradient(x, gy, W_shape, stride, pad):
    """The gradient of W, of shape ``W_shape``, for the gradient gy of y."""
    gW = cupy.empty(W_shape, x.dtype)
    plans.run('wgrad', x, gW, gy, stride, pad)
    return gW


def input_gradient(gy, W, x_shape, stride, pad, onto=None):
    """The gradient of x, of shape ``x_shape``, for the gradient gy of y; plus ``onto``, if any."""
    gx = cupy.empty(x_shape, gy.dtype)
    W, pad = without_unused_taps(W, pad, x_shape, gy.shape)
    plans.run('dgrad', gx, W, gy, stride, pad)
    if onto is not None:
        activation.accumulate(gx, onto)
    return gx


def without_unused_taps(W, pad, x_shape, y_shape):
    """The one tap that counts, and no padding, where both feature maps are a single pixel.

    All other taps lie on padding, and copying one tap costs less than multiplying by the others.
    In other cases W and pad are returned as they are.  (The gradient of W has all taps, so that
    nothing is saved there.)
    """
    one = x_shape[1:3] == y_shape[1:3] == (1, 1)
    if not one or W.shape[1:3] == (1, 1) or pad[0] >= W.shape[1] or pad[1] >= W.shape[2]:
        return W, pad
    row, column = pad
    return cupy.ascontiguousarray(W[:, row:row + 1, column:column + 1]), (0, 0)
