"""One kernel for the update of many parameters."""
import numpy as np

from engine.gpu import values
from engine.gpu.kernels import THREADS, kernel

TENSOR = np.dtype([('w', 'u8'), ('g', 'u8'), ('first', 'u8'), ('second', 'u8'), ('size', 'i8'),
                   ('decay', 'f4'), ('unused', 'f4')])
CHUNK = 16384  # elements of a block; the same in optimizers.cu


def update(name, tensors, factors):
    """Run a kernel of optimizers.cu.

    Args:
        name (str): Its name, which is that of the module of Chainer's rule.
        tensors (list of tuple): For each parameter its weights, gradient and one or two states,
            arrays that lie alike in memory without gaps, and its weight decay.
        factors (callable): Gives the list of numbers that may differ in the next step.
    """
    table = np.zeros(len(tensors), TENSOR)
    chunks = []
    for i, (*arrays, decay) in enumerate(tensors):
        pointers = [array.data.ptr for array in arrays]
        pointers += [0] * (4 - len(pointers))
        table[i] = (*pointers, arrays[0].size, decay, 0)
        chunks += [(i, number) for number in range(-(-arrays[0].size // CHUNK))]
    table = values.constant(table.view(np.uint8))
    chunks = values.constant(np.array(chunks, np.int32))
    read = values.varying(lambda: np.array(factors(), np.float32))
    kernel('optimizers', name)((len(chunks),), (THREADS,), (table, chunks, read))
