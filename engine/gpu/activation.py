"""ReLU, sums and multiples of arrays that lie alike in memory; the result lies as they do."""
import cupy

from engine.gpu import graph_inputs
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


def scale(x, value):
    """value * x; None where ``x`` has gaps in its memory."""
    return elementwise('scale', x, after=(float(value), graph_inputs.factor(value)))


def accumulate(a, b):
    """a += b, for arrays that lie alike in memory without gaps."""
    if elementwise('add', a, b, result=a) is None:
        raise ValueError('the two arrays lie differently in memory')


def elementwise(name, *arrays, result=None, after=()):
    first = arrays[0]
    if not has_known_layout(first) or not all(same_layout(first, a) for a in arrays):
        return None
    result = cupy.empty_like(first) if result is None else result
    launch('activation', name, first.dtype, -(-first.nbytes // BYTES), *arrays, result, *after,
           first.size)
    return result
