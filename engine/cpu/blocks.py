"""Passes over large arrays in blocks, shared among threads.

NumPy runs one operation at a time over whole arrays, in one thread.  Several operations in a row
over a block each read it from the cache instead of from memory.
"""
import numpy as np

from engine.cpu.threads import each

LARGEST = 1 << 18  # elements of a block: with fewer, threads wait for Python's interpreter instead
SMALLEST = 1 << 16
WIDTH = 1 << 13  # of a row, where the matrix allows it


def block_size(elements):
    """Of an array of so many, which is then four blocks or more."""
    return min(LARGEST, max(SMALLEST, elements // 4))


def each_block(function, elements):
    """As :func:`each`, for blocks of so many elements."""
    return each(function, elements, block_size(elements), elements)


def each_row_block(function, matrix):
    """As :func:`each`, for blocks of the rows of a matrix."""
    return each(function, len(matrix), block_rows(matrix), matrix.size)


def block_rows(matrix):
    return max(1, block_size(matrix.size) // matrix.shape[1])


def column_sum(block):
    """Sum over the rows of a contiguous matrix, by BLAS, which is faster at it than NumPy."""
    return np.ones(len(block), block.dtype) @ block


# NumPy spends as long on the beginning of a row as on hundreds of its elements.  So several rows of
# a matrix are seen as one, and what belongs to its columns is repeated.

def widened(matrix):
    rows, columns = matrix.shape
    times = 1
    while rows % (2 * times) == 0 and 2 * times * columns <= WIDTH:
        times *= 2
    return matrix.reshape(rows // times, times * columns)


def repeated(rows, wide):
    """Rows of the matrix for :func:`widened` of it."""
    rows = np.array(rows)
    y = np.empty((len(rows), wide.shape[1] // rows.shape[1], rows.shape[1]), rows.dtype)
    y[...] = rows[:, np.newaxis]
    return y.reshape(len(rows), -1)


def folded(rows, columns):
    """Rows of sums of :func:`widened` as sums of the matrix."""
    return rows.reshape(len(rows), -1, columns).sum(axis=1)


def flat(array):
    """The elements of an array in the order of its memory, as a view; None if it has gaps."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    view = array.ravel(order='K')
    return view if np.may_share_memory(view, array) else None


def elementwise(operation, *inputs):
    """The new array that ``operation(*blocks, out)`` computes from arrays of one layout."""
    y = np.empty_like(inputs[0])
    *views, out = map(flat, (*inputs, y))

    def compute(block):
        operation(*(view[block] for view in views), out[block])
    each_block(compute, out.size)
    return y
