"""Products of matrices, shared among threads."""
import numpy as np

from engine.cpu.threads import each

PARTS = 8  # at most, of one product
NARROWEST = 128  # rows or columns of a part; BLAS rearranges the other operand for each part


def product(a, b, out=None):
    """a @ b, the longer side of which is divided."""
    rows, columns = len(a), b.shape[1]
    if out is None:
        out = np.empty((rows, columns), a.dtype)
    longer = max(rows, columns)
    step = max(NARROWEST, -(-longer // PARTS))
    multiplications = rows * columns * a.shape[1]
    if rows >= columns:
        each(lambda part: np.matmul(a[part], b, out=out[part]), rows, step, multiplications)
    else:
        each(lambda part: np.matmul(a, b[:, part], out=out[:, part]), columns, step,
             multiplications)
    return out
