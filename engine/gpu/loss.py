"""Softmax cross-entropy."""
import cupy
import numpy as np

from engine.gpu.kernels import THREADS, kernel, launch, typed


def softmax_cross_entropy(x, t, ignored, reduce):
    """The loss, the softmax of the logits, and 1 over the number of examples that count.

    Args:
        x (cupy.ndarray): Logits, contiguous, shape ``(N, classes)``.
        t (cupy.ndarray): Labels, int32, contiguous, shape ``(N,)``.
        ignored (int): The label of examples that do not count.
        reduce (bool): Whether the loss is the mean over the examples that count, shape ``()``,
            or that of each example, shape ``(N,)``.

    Returns:
        tuple: The loss, of the dtype of x; the softmax, float32, shape ``(N, classes)``; the
        coefficient, float32, shape ``()``, or None where there is no mean.
    """
    loss = cupy.empty(() if reduce else t.shape, x.dtype)
    coefficient = cupy.empty((), np.float32) if reduce else None
    y = cupy.empty(x.shape, np.float32)
    kernel('loss', 'softmax_cross_entropy', x.dtype)(
        (1,), (THREADS,), typed((x, t, y, loss, coefficient, *x.shape, ignored)))
    return loss, y, coefficient


def softmax_cross_entropy_gradient(y, t, gloss, coefficient, ignored):
    """The gradient of the logits, given that of the loss and what is returned with the loss."""
    gx = cupy.empty(y.shape, gloss.dtype)
    launch('loss', 'softmax_cross_entropy_gradient', gloss.dtype, gx.size,
           y, t, gloss, coefficient, gx, *y.shape, ignored)
    return gx
