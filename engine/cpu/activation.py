"""ReLU and sums of arrays, block by block."""
import numpy as np

from engine.cpu.blocks import LARGEST, elementwise

# NumPy compares with a number one by one, with an array of zeros by vector instructions.
ZEROS = {dtype: np.zeros(LARGEST, dtype) for dtype in 'fd'}


def relu(x):
    """max(x, 0), or None where ``x`` has gaps in its memory."""
    zeros = ZEROS[x.dtype.char]
    return elementwise(lambda x, out: np.maximum(x, zeros[:x.size], out=out), x)


def relu_gradient(y, gy):
    """gy where y > 0, and 0 elsewhere; None where the two lie differently in memory."""
    zeros = ZEROS[y.dtype.char]
    return elementwise(
        lambda y, gy, out: np.multiply(gy, np.greater(y, zeros[:y.size]), out=out), y, gy)


def add(a, b):
    """a + b, or None where the two lie differently in memory."""
    return elementwise(lambda a, b, out: np.add(a, b, out=out), a, b)
