"""ReLU, sums and multiples of arrays that lie alike in memory, of which the result lies so too."""
from chainer.backends import cuda

from engine.layout import is_channels_last

cupy = cuda.cupy
RELU = cupy.ElementwiseKernel('T x', 'T y', 'y = x < 0 ? (T)0 : x', 'relu')  # NaN stays NaN
RELU_GRADIENT = cupy.ElementwiseKernel(
    'T y, T gy', 'T gx', 'gx = y > 0 ? gy : (T)0', 'relu_gradient')
ADD = cupy.ElementwiseKernel('T a, T b', 'T c', 'c = a + b', 'add')


def relu(x):
    """max(x, 0), or None where ``x`` has gaps in its memory."""
    return elementwise(RELU, x)


def relu_gradient(y, gy):
    """gy where y > 0, and 0 elsewhere; None where the two lie differently in memory."""
    return elementwise(RELU_GRADIENT, y, gy)


def add(a, b):
    """a + b, or None where the two lie differently in memory."""
    return elementwise(ADD, a, b)


def elementwise(kernel, *arrays):
    """CuPy's kernels alone would give every result the order of C."""
    shape = arrays[0].shape
    if any(a.shape != shape for a in arrays):
        return None
    if all(a.flags.c_contiguous for a in arrays):
        return kernel(*arrays)
    if all(is_channels_last(a) for a in arrays):
        return kernel(*(a.transpose(0, 2, 3, 1) for a in arrays)).transpose(0, 3, 1, 2)
    return None
