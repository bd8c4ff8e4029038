"""Products of matrices, shared among threads."""
import numpy as np

from engine.cpu.threads import each

PARTS = 8  # at least, where they do not become too narrow
NARROWEST = 128  # rows or columns of a part: BLAS rearranges the other matrix for each
ELEMENTS = 1 << 18  # of a part's operand and result, which BLAS passes over more than once
TERMS = 4  # of a product whose inner side is the longest


def matmul(a, b, onto=None):
    """a @ b, of which the longest side is divided; added to ``onto`` where that is given."""
    rows, inner = a.shape
    columns = b.shape[1]
    work = rows * inner * columns
    longer = max(rows, columns)
    if inner >= max(longer, TERMS * NARROWEST):
        y, *others = each(lambda part: a[:, part] @ b[part], inner, -(-inner // TERMS), work)
        for other in others if onto is None else (*others, onto):
            y += other
        return y

    y = np.empty((rows, columns), a.dtype) if onto is None else onto

    def multiply(a, b, out):
        if onto is None:
            np.matmul(a, b, out=out)
        else:
            out += a @ b
    step = min(-(-longer // PARTS), ELEMENTS // (inner + min(rows, columns)))
    step = max(step, NARROWEST)
    if rows >= columns:
        each(lambda part: multiply(a[part], b, y[part]), rows, step, work)
    else:
        each(lambda part: multiply(a, b[:, part], y[:, part]), columns, step, work)
    return y
