"""ReLU, sums and multiples of arrays of one layout in memory, which the result has too."""
import cupy

from engine.gpu.kernels import BYTES, launch
from engine.layout import has_known_layout, same_layout


def relu(x):
    """max(x, 0), or None where ``x`` has gaps in its memory."""
    return elementwise('relu', x)


def relu_gradient(y, gy):
    """gy where y > 0, and 0 elsewhere; None where the two lie differently in memory."""
    return elementwise('relu_gradient', y, gy)


def add(a, b):
    """a + b, or None where the two lie differently in memory."""
    return elementwise('add', a, b)


def scale(x, factors):
    """Each example of ``x`` multiplied by its factor; None where ``x`` has gaps in its memory.

    Args:
        x (cupy.ndarray): Shape ``(N, ...)``.
        factors (cupy.ndarray): One for all examples or one for each; contiguous, with x's dtype.
    """
    return elementwise('scale', x, before=(factors,), after=(x.size // factors.size,))


def accumulate(a, b):
    """a += b, for arrays that lie alike in memory without gaps."""
    if elementwise('add', a, b, result=a) is None:
        raise ValueError('the two arrays lie differently in memory')


def elementwise(name, *arrays, result=None, before=(), after=()):
    first = arrays[0]
    if not has_known_layout(first) or not all(same_layout(first, a) for a in arrays):
        return None
    result = cupy.empty_like(first) if result is None else result
    launch('activation', name, first.dtype, -(-first.nbytes // BYTES), *arrays, *before, result,
           *after, first.size)
    return result
