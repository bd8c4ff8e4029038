"""The CUDA C kernels of this folder.

In their source T is the type of the elements of arrays, float or float16; statistics, parameters of
batch normalization and states of optimizers are always float.  The constants that a kernel and the
Python that launches it have in common are :data:`SHARED`, which is put before every source.
"""
import functools
import os

import cupy
import numpy as np

CHANNELS, LANES = 32, 16  # the threads of a block in normalization.cu: so many channels and rows
ROWS = 4  # rows that a thread of normalization.cu loads before it stores one
CHANNELS_OF_FEW, LANES_OF_FEW = 8, 32  # the same of a block that has all rows of its channels
HELD = 16  # rows that a thread of such a block holds at most
THREADS = 256  # the threads of a block in all other files
BYTES = 16  # bytes of each array that a thread of activation.cu processes
CHUNK = 16384  # elements that a block of optimizers.cu processes
SHARED = {'CHANNELS': CHANNELS, 'LANES': LANES, 'ROWS': ROWS, 'HELD': HELD,
          'CHANNELS_OF_FEW': CHANNELS_OF_FEW, 'LANES_OF_FEW': LANES_OF_FEW, 'THREADS': THREADS,
          'BYTES': BYTES, 'CHUNK': CHUNK}
DTYPES = 'fe'  # of the elements of arrays: float32 and float16


def read(file):
    with open(os.path.join(os.path.dirname(__file__), file)) as text:
        return text.read()


def source(file, dtype):
    """The whole source of ``file.cu`` for a dtype.

    Headers are pasted in: CuPy recognizes by this text alone what it has compiled before.
    """
    T = {'f': 'typedef float T;\n', 'e': read('float16.cuh') + 'typedef float16 T;\n'}
    shared = ''.join(f'const int {name} = {value};\n' for name, value in SHARED.items())
    return T[dtype.char] + shared + read(file + '.cu')


@functools.lru_cache(None)
def kernel(file, name, dtype):
    """The kernel ``name`` of ``file.cu`` for arrays of a dtype, a ``cupy.RawKernel``.

    CuPy compiles it at its first launch on a device.
    """
    return module(file, dtype).get_function(name)


@functools.lru_cache(None)
def module(file, dtype):
    """All kernels of ``file.cu`` for arrays of a dtype, a ``cupy.RawModule``."""
    return cupy.RawModule(code=source(file, dtype))


@functools.lru_cache(None)
def resident(file, name, dtype, threads, device):
    """The number of blocks of a kernel, with so many threads each, that a GPU runs at once."""
    with cupy.cuda.Device(device) as gpu:
        of_one = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            kernel(file, name, dtype).kernel.ptr, threads, 0)
        return of_one * gpu.attributes['MultiProcessorCount']


def launch(file, name, dtype, n, *arguments):
    """Run a kernel with at least ``n`` threads; for its arguments see :func:`typed`."""
    blocks = -(-n // THREADS)
    kernel(file, name, dtype)((blocks,), (THREADS,), typed(arguments))


def typed(arguments):
    """Arguments as a kernel takes them.

    Python's int and bool become C's int, a Python float becomes a float, None becomes NULL, and
    arrays stay.
    """
    kinds = {int: np.int32, bool: np.int32, float: np.float32, type(None): np.intp}
    return tuple(kinds[type(a)](a or 0) if type(a) in kinds else a for a in arguments)
