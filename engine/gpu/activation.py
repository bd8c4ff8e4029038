"""ReLU, sums and products with factors, of arrays of one layout without gaps."""
import cupy

from engine.gpu.kernels import BYTES, launch


def relu(x):
    """max(x, 0)."""
    return elementwise('relu', x)


def relu_gradient(y, gy):
    """The gradient of x where y is relu(x): gy where y > 0, otherwise 0."""
    return elementwise('relu_gradient', y, gy)


def add(a, b):
    """a + b."""
    return elementwise('add', a, b)


def scale(x, factors):
    """Each example of ``x`` multiplied by its factor.

    Args:
        x (cupy.ndarray): Shape ``(N, ...)``.
        factors (cupy.ndarray): One for all examples or one for each; contiguous, with x's dtype.
    """
    return elementwise('scale', x, before=(factors,), after=(x.size // factors.size,))


def accumulate(a, b):
    """a += b."""
    elementwise('add', a, b, result=a)


def elementwise(name, *arrays, result=None, before=(), after=()):
    """Launch a kernel of activation.cu, which is handed the arrays, the result and their size.

    ``before`` and ``after`` are its arguments around the result.
    """
    first = arrays[0]
    result = cupy.empty_like(first) if result is None else result
    launch('activation', name, first.dtype, -(-first.nbytes // BYTES), *arrays, *before, result,
           *after, first.size)
    return result
