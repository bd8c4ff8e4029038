"""Softmax cross-entropy."""
import cupy
import numpy as np

from engine.gpu.kernels import THREADS, kernel, launch, typed


def softmax_cross_entropy(x, t, ignored):
    """The mean loss, the softmax of x, and 1 over the number of examples that count.

    x: (N, classes); t: int32 (N,), of which those equal to ``ignored`` do not count.  The loss has
    the dtype of x, the others are float32.
    """
    loss, coefficient = cupy.empty((), x.dtype), cupy.empty((), np.float32)
    y = cupy.empty(x.shape, np.float32)
    kernel('loss', 'softmax_cross_entropy', x.dtype)(
        (1,), (THREADS,), typed((x, t, y, loss, coefficient, *x.shape, ignored)))
    return loss, y, coefficient


def softmax_cross_entropy_gradient(y, t, gloss, coefficient, ignored):
    """The gradient of x, given that of the loss."""
    gx = cupy.empty(y.shape, gloss.dtype)
    launch('loss', 'softmax_cross_entropy_gradient', gloss.dtype, gx.size,
           y, t, gloss, coefficient, gx, *y.shape, ignored)
    return gx
