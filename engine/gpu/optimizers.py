"""Kernels that go through tensor lists: the update of many parameters by one launch."""
import cupy
import numpy as np

from engine.gpu import graph_inputs
from engine.gpu.kernels import CHUNK, THREADS, kernel

# struct Tensor of optimizers.cu
TENSOR = np.dtype([('w', 'u8'), ('g', 'u8'), ('first', 'u8'), ('second', 'u8'), ('copy', 'u8'),
                   ('size', 'i8'), ('decay', 'f4'), ('unused', 'f4')])


def update(name, tensors, factors, found_inf=None):
    """Update parameters in place by a kernel of optimizers.cu.

    Args:
        name (str): The kernel, named after the module of Chainer's update rule.
        tensors (list of tuple): For each parameter its weights, float32; the float16 copy of them,
            or None; the gradient, of the dtype of the copy if there is one; a list of one or two
            states, float32; its weight decay, a number.  The arrays of a parameter have one layout
            without gaps.
        factors (callable): Returns a list of the numbers that may differ in the next step; the
            first one multiplies all gradients.
        found_inf (cupy.ndarray): What :func:`found_inf` returned; if it is not 0 nothing changes.
    """
    rows = [(w, g, *(states + [None])[:2], copy, decay)
            for w, copy, g, states, decay in tensors]
    read = graph_inputs.graph_input(lambda: np.array(factors(), np.float32))
    launch(name, rows, read, np.intp(0) if found_inf is None else found_inf)


def found_inf(gradients):
    """Whether one of some arrays has an element that is infinite or NaN.

    Args:
        gradients (list of cupy.ndarray): float32 or float16, without gaps.

    Returns:
        cupy.ndarray: int32, 0 or 1, of shape ().
    """
    found = cupy.zeros((), np.int32)
    rows = [(None, g, None, None, g if g.dtype.char == 'e' else None, 0) for g in gradients]
    launch('find_inf', rows, found)
    return found


def launch(name, rows, *arguments):
    """Run a kernel with one block for each chunk of each tensor."""
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
