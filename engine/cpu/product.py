"""Products of matrices, shared among threads."""
import numpy as np

from engine.cpu.threads import each

PARTS = 8  # at least, where they do not become too narrow
NARROWEST = 128  # rows or columns of a part: BLAS rearranges the other matrix for each
ELEMENTS = 1 << 18  # of a part's operand and result, which BLAS passes over more than once
TERMS = 4  # of a product whose inner side is the longest


def product(a, b):
    """a @ b, of which the longest side is divided."""
    rows, inner = a.shape
    columns = b.shape[1]
    work = rows * inner * columns
    longer = max(rows, columns)
    if inner >= max(longer, TERMS * NARROWEST):
        y, *others = each(lambda part: a[:, part] @ b[part], inner, -(-inner // TERMS), work)
        for other in others:
            y += other
        return y

    y = np.empty((rows, columns), a.dtype)
    step = min(-(-longer // PARTS), ELEMENTS // (inner + min(rows, columns)))
    step = max(step, NARROWEST)
    if rows >= columns:
        each(lambda part: np.matmul(a[part], b, out=y[part]), rows, step, work)
    else:
        each(lambda part: np.matmul(a, b[:, part], out=y[:, part]), columns, step, work)
    return y
