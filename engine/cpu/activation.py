"""ReLU and sums of arrays, block by block."""
import numpy as np

from engine.cpu.blocks import LARGEST, elementwise

# NumPy compares with a number one by one, with an array of zeros by vector instructions.
ZEROS = {dtype: np.zeros(LARGEST, dtype) for dtype in 'fd'}


def zeros(block):
    return ZEROS[block.dtype.char][:block.size].reshape(block.shape)


def rectify(x, out):
    """max(x, 0) of a block."""
    return np.maximum(x, zeros(x), out=out)


def rectify_gradient(y, gy, out):
    """gy where y > 0, and 0 elsewhere, of a block."""
    return np.multiply(gy, np.greater(y, zeros(y)), out=out)


def relu(x):
    """max(x, 0), or None where ``x`` has gaps in its memory."""
    return elementwise(rectify, x)


def relu_gradient(y, gy):
    """gy where y > 0, and 0 elsewhere; None where the two lie differently in memory."""
    return elementwise(rectify_gradient, y, gy)


def add(a, b):
    """a + b, or None where the two lie differently in memory."""
    return elementwise(np.add, a, b)
