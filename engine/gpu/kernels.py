"""The kernels in CUDA C of this folder."""
import functools
import os

import cupy
import numpy as np

CHANNELS, LANES = 32, 16  # of a block, in normalization.cu
THREADS = 256  # of a block, elsewhere


def source(name):
    with open(os.path.join(os.path.dirname(__file__), name + '.cu')) as file:
        return file.read()


@functools.lru_cache(None)
def kernel(file, name):
    """The kernel ``name`` of ``file.cu``; CuPy compiles it at its first launch on a device."""
    return module(file).get_function(name)


@functools.lru_cache(None)
def module(file):
    return cupy.RawModule(code=source(file))


def launch(file, name, n, *arguments):
    """Run a kernel on ``n`` elements, a thread for each; Python's integers are passed as int."""
    blocks = -(-n // THREADS)
    kernel(file, name)((blocks,), (THREADS,), typed(arguments))


def typed(arguments):
    """What a kernel is passed: int, float and pointers, NULL where there is no array."""
    kinds = {int: np.int32, bool: np.int32, float: np.float32, type(None): np.intp}
    return tuple(kinds[type(a)](a or 0) if type(a) in kinds else a for a in arguments)
