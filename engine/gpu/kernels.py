"""The kernels in CUDA C of this folder.

In their source T is what arrays hold, float or float16; statistics, parameters of batch
normalization and states of optimizers are always float.  What it has to know of how it is launched
is :data:`SHARED`.
"""
import functools
import os

import cupy
import numpy as np

CHANNELS, LANES = 32, 16  # of a block, in normalization.cu
THREADS = 256  # of a block, elsewhere
HELD = 32  # rows of few that a thread holds at most, in normalization.cu
BYTES = 16  # of an array that a thread does, in activation.cu
CHUNK = 16384  # elements that a block does, in optimizers.cu
SHARED = {'CHANNELS': CHANNELS, 'LANES': LANES, 'THREADS': THREADS, 'HELD': HELD, 'BYTES': BYTES,
          'CHUNK': CHUNK}
DTYPES = 'fe'  # of what arrays hold: float32 and float16


def read(file):
    with open(os.path.join(os.path.dirname(__file__), file)) as text:
        return text.read()


def source(file, dtype):
    """All in one text: CuPy knows by it what it has compiled before."""
    T = {'f': 'typedef float T;\n', 'e': read('float16.cuh') + 'typedef float16 T;\n'}
    shared = ''.join(f'const int {name} = {value};\n' for name, value in SHARED.items())
    return T[dtype.char] + shared + read(file + '.cu')


@functools.lru_cache(None)
def kernel(file, name, dtype):
    """The kernel ``name`` of ``file.cu`` for arrays of a dtype.

    CuPy compiles it at its first launch on a device.
    """
    return module(file, dtype).get_function(name)


@functools.lru_cache(None)
def module(file, dtype):
    return cupy.RawModule(code=source(file, dtype))


@functools.lru_cache(None)
def resident(file, name, dtype, threads, device):
    """How many blocks of a kernel, of so many threads, a GPU holds at once."""
    with cupy.cuda.Device(device) as gpu:
        of_one = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            kernel(file, name, dtype).kernel.ptr, threads, 0)
        return of_one * gpu.attributes['MultiProcessorCount']


def launch(file, name, dtype, n, *arguments):
    """Run a kernel with ``n`` threads at least; Python's integers are passed as int."""
    blocks = -(-n // THREADS)
    kernel(file, name, dtype)((blocks,), (THREADS,), typed(arguments))


def typed(arguments):
    """What a kernel is passed: int, float and pointers, NULL where there is no array."""
    kinds = {int: np.int32, bool: np.int32, float: np.float32, type(None): np.intp}
    return tuple(kinds[type(a)](a or 0) if type(a) in kinds else a for a in arguments)
