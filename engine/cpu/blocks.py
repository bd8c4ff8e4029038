"""Passes over large arrays in blocks, shared among threads.

NumPy runs one operation at a time over whole arrays, in one thread.  Several operations in a row
over a block each read it from the cache instead of from memory, and while NumPy works on a block
Python may start the next in another thread.
"""
from concurrent.futures import ThreadPoolExecutor
import functools

import numpy as np

from engine.environment import threads

ELEMENTS = 1 << 16  # of a block: large against Python's share of the time, small against the cache
SHARED = 4 * ELEMENTS  # smaller arrays are not worth waking a thread for
WIDTH = 2048  # elements that are summed in one sweep


@functools.lru_cache(maxsize=None)
def pool(count):
    return ThreadPoolExecutor(count)


def each(function, n, step, elements):
    """``[function(slice), ...]`` for slices of ``step`` out of n, in order, on several threads.

    The slices do not depend on the number of threads, so neither do the results.
    """
    slices = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    workers = min(threads(), len(slices)) if elements >= SHARED else 1
    if workers == 1:
        return [function(part) for part in slices]
    share = -(-len(slices) // workers)
    mine, *others = [slices[start:start + share] for start in range(0, len(slices), share)]
    futures = [pool(threads() - 1).submit(lambda parts: [function(part) for part in parts], parts)
               for parts in others]
    results = [function(part) for part in mine]
    for future in futures:
        results += future.result()
    return results


def each_row_block(function, rows, columns):
    """As :func:`each`, for blocks of the rows of a matrix."""
    wide = fold(columns)
    step = max(1, ELEMENTS // (columns * wide)) * wide
    return each(function, rows, step, rows * columns)


def fold(columns):
    """How many rows of a matrix lie in one sweep of :func:`column_sum`."""
    return max(1, WIDTH // columns)


def column_sum(block):
    """Sum over the rows of a contiguous matrix, several rows at a time: NumPy's is slow on few
    columns."""
    rows, columns = block.shape
    wide = fold(columns)
    whole = rows - rows % wide
    total = np.add.reduce(block[:whole].reshape(-1, wide * columns), axis=0)
    total = np.add.reduce(total.reshape(wide, columns), axis=0)
    if whole < rows:
        total += np.add.reduce(block[whole:], axis=0)
    return total


def flat(array):
    """The elements of an array in the order of its memory, as a view; None if it has gaps."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    view = array.ravel(order='K')
    return view if np.may_share_memory(view, array) else None


def alike(*arrays):
    """Flat views of arrays whose elements lie in the same order, or None."""
    first = arrays[0]
    views = [flat(array) for array in arrays]
    same = all(array.shape == first.shape and array.dtype == first.dtype
               and order(array) == order(first) for array in arrays)
    return views if same and all(view is not None for view in views) else None


def order(array):
    """Its strides, but for axes of length 1, where they mean nothing."""
    return [stride for stride, size in zip(array.strides, array.shape) if size > 1]


def elementwise(operation, *inputs):
    """A new array from arrays of one layout; ``operation(*blocks, out)``.  None if they are not."""
    views = alike(*inputs)
    if views is None:
        return None
    y = np.empty_like(inputs[0])
    out = flat(y)

    def part(block):
        operation(*(view[block] for view in views), out[block])
    each(part, out.size, ELEMENTS, out.size)
    return y
