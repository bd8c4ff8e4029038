"""Products of matrices, shared among threads."""
import numpy as np

from engine.cpu.threads import parallel_for

BLOCKS = 8  # at least, unless they become too narrow
NARROWEST = 128  # rows or columns of a block: BLAS rearranges the other matrix for each block
ELEMENTS = 1 << 18  # of a block's operand and result, which BLAS passes over more than once
TERMS = 4  # summands of a product whose inner side is the longest


def matmul(a, b, onto=None):
    """a @ b for matrices of one dtype; its longest side is divided among the threads.

    Args:
        a, b (numpy.ndarray): (rows, inner) and (inner, columns).
        onto (numpy.ndarray): (rows, columns), to which the product is added; None for zeros.

    Returns:
        numpy.ndarray: A new array.
    """
    rows, inner = a.shape
    columns = b.shape[1]
    work = rows * inner * columns
    longer = max(rows, columns)
    if inner >= max(longer, TERMS * NARROWEST):
        y, *others = parallel_for(
            lambda block: a[:, block] @ b[block], inner, -(-inner // TERMS), work)
        for other in others if onto is None else (*others, onto):
            y += other
        return y

    y = np.empty((rows, columns), a.dtype)

    def multiply(rows, columns):
        out = y[rows, columns]
        np.matmul(a[rows], b[:, columns], out=out)
        if onto is not None:
            out += onto[rows, columns]
    every = slice(None)
    step = min(-(-longer // BLOCKS), ELEMENTS // (inner + min(rows, columns)))
    step = max(step, NARROWEST)
    if rows >= columns:
        parallel_for(lambda block: multiply(block, every), rows, step, work)
    else:
        parallel_for(lambda block: multiply(every, block), columns, step, work)
    return y
