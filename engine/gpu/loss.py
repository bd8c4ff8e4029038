"""Softmax cross-entropy."""
import cupy

from engine.gpu.kernels import THREADS, kernel, typed


def softmax_cross_entropy(x, t, ignored):
    """The mean loss, the softmax of x, and 1 over the number of examples that count.

    x: float32 (N, classes); t: int32 (N,), of which those equal to ``ignored`` do not count.
    """
    loss, coefficient = cupy.empty((), x.dtype), cupy.empty((), x.dtype)
    y = cupy.empty_like(x)
    kernel('loss', 'softmax_cross_entropy')(
        (1,), (THREADS,), typed((x, t, y, loss, coefficient, *x.shape, ignored)))
    return loss, y, coefficient
