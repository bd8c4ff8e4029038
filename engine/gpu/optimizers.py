"""One kernel for the update of many parameters."""
import cupy
import numpy as np

from engine.gpu import graph_inputs
from engine.gpu.kernels import CHUNK, THREADS, kernel

TENSOR = np.dtype([('w', 'u8'), ('g', 'u8'), ('first', 'u8'), ('second', 'u8'), ('copy', 'u8'),
                   ('size', 'i8'), ('decay', 'f4'), ('unused', 'f4')])


def update(name, tensors, factors, overflow=None):
    """Run a kernel of optimizers.cu.

    Args:
        name (str): Its name, which is that of the module of Chainer's rule.
        tensors (list of tuple): For each parameter its weights, float32; a copy in float16 or None;
            the gradient, of the dtype of the copy if there is one; a list of one or two states;
            its weight decay.  The arrays lie alike in memory without gaps.
        factors (callable): Gives the list of numbers that may differ in the next step; the first
            is what gradients are multiplied by.
        overflow (array): What :func:`overflow` gave: if that is true nothing is changed.
    """
    rows = [(w, g, *(states + [None])[:2], copy, decay)
            for w, copy, g, states, decay in tensors]
    read = graph_inputs.varying(lambda: np.array(factors(), np.float32))
    launch(name, rows, read, np.intp(0) if overflow is None else overflow)


def overflow(gradients):
    """Whether one of these arrays, float32 or float16, has an element that is not finite.

    Returns:
        cupy.ndarray: 0 or 1, of shape ().
    """
    found = cupy.zeros((), np.int32)
    rows = [(None, g, None, None, g if g.dtype.char == 'e' else None, 0) for g in gradients]
    launch('find_overflow', rows, found)
    return found


def launch(name, rows, *arguments):
    table = np.zeros(len(rows), TENSOR)
    chunks = []
    half = any(copy is not None for *_, copy, _ in rows)
    for i, (*arrays, decay) in enumerate(rows):
        pointers = [0 if array is None else array.data.ptr for array in arrays]
        size = arrays[1].size
        table[i] = (*pointers, size, decay, 0)
        chunks += [(i, number) for number in range(-(-size // CHUNK))]
    table = graph_inputs.constant(table.view(np.uint8))
    chunks = graph_inputs.constant(np.array(chunks, np.int32))
    kernel('optimizers', name, np.dtype('e' if half else 'f'))(
        (len(chunks),), (THREADS,), (table, chunks, *arguments))
