"""Passes over large arrays in blocks, shared among threads.

NumPy applies one operation at a time to whole arrays, in one thread.  Several operations in a row
on one block read it from the cache instead of from memory.
"""
import numpy as np

from engine.cpu.threads import parallel_for

LARGEST = 1 << 18  # elements of a block: with fewer, threads wait for Python's interpreter instead
SMALLEST = 1 << 16
WIDTH = 1 << 13  # elements of a widened row, where the matrix allows it


def block_size(elements):
    """The number of elements of a block, so that there are at least four unless they are small."""
    return min(LARGEST, max(SMALLEST, elements // 4))


def for_each_block(function, elements):
    """:func:`parallel_for` over the blocks of a flat array of so many elements."""
    return parallel_for(function, elements, block_size(elements), elements)


def for_each_row_block(function, matrix):
    """:func:`parallel_for` over blocks of the rows of a matrix."""
    return parallel_for(function, len(matrix), block_rows(matrix), matrix.size)


def block_rows(matrix):
    return max(1, block_size(matrix.size) // matrix.shape[1])


def column_sum(block):
    """The sum over the rows of a contiguous matrix, by BLAS, which is faster at it than NumPy."""
    return np.ones(len(block), block.dtype) @ block


# NumPy spends as long on beginning a row as on hundreds of its elements.  So several rows of a
# matrix are seen as one, and what belongs to its columns is repeated.

def widened(matrix):
    """A contiguous matrix seen with several of its rows as one, up to :data:`WIDTH` elements."""
    rows, columns = matrix.shape
    times = 1
    while rows % (2 * times) == 0 and 2 * times * columns <= WIDTH:
        times *= 2
    return matrix.reshape(rows // times, times * columns)


def repeated(rows, wide):
    """Rows that belong to a matrix, repeated to the width of :func:`widened` of that matrix."""
    rows = np.array(rows)
    y = np.empty((len(rows), wide.shape[1] // rows.shape[1], rows.shape[1]), rows.dtype)
    y[...] = rows[:, np.newaxis]
    return y.reshape(len(rows), -1)


def folded(rows, columns):
    """Column sums of a matrix of so many columns, from those of :func:`widened` of it."""
    return rows.reshape(len(rows), -1, columns).sum(axis=1)


def flat(array):
    """The elements of an array in the order of its memory, as a view; None if it has gaps."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    view = array.ravel(order='K')
    return view if np.may_share_memory(view, array) else None


def elementwise(operation, *inputs, y=None):
    """The array that ``operation(*blocks, out)`` computes from arrays of one layout.

    It is a new one if no array ``y`` is given.
    """
    y = np.empty_like(inputs[0]) if y is None else y
    *views, out = map(flat, (*inputs, y))

    def compute(block):
        operation(*(view[block] for view in views), out[block])
    for_each_block(compute, out.size)
    return y
