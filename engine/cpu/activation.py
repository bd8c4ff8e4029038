"""ReLU and sums of arrays, computed block by block."""
import numpy as np

from engine.cpu.blocks import LARGEST, elementwise

# NumPy compares with a number element by element, with an array of zeros by vector instructions.
ZEROS = {dtype: np.zeros(LARGEST, dtype) for dtype in 'fd'}


def zeros(block):
    return ZEROS[block.dtype.char][:block.size].reshape(block.shape)


def rectify(x, out):
    """Write max(x, 0), x a block, to ``out``."""
    return np.maximum(x, zeros(x), out=out)


def rectify_gradient(y, gy, out):
    """Write gy where y > 0, otherwise 0, to ``out``; all are blocks."""
    return np.multiply(gy, np.greater(y, zeros(y)), out=out)


def relu(x):
    """max(x, 0) of an array of any shape without gaps in its memory."""
    return elementwise(rectify, x)


def relu_gradient(y, gy):
    """The gradient of x where y is relu(x): gy where y > 0, otherwise 0; both of one layout."""
    return elementwise(rectify_gradient, y, gy)


def add(a, b, out=None):
    """a + b for arrays of one layout without gaps; written to ``out``, if given."""
    return elementwise(np.add, a, b, y=out)
