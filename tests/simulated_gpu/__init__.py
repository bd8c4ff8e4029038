"""A GPU that is simulated on the host, for tests where there is none.

:func:`install` lets ``import cupy`` and ``import cudnn`` find modules that do what CuPy and cuDNN
do, on the host's memory: Chainer's own path for GPUs and this project's kernels run as they are,
the kernels compiled by g++.  What CUDA forbids while a stream is captured is an error here too,
and nothing is done before the graph is launched.  It says nothing about speed, nor about what a
GPU does in another order or precision.
"""
import sys
import types

import numpy as np

from tests.simulated_gpu import arrays, cudnn, kernels, runtime

__all__ = ['install']


def install():
    """Put the simulated GPU in place; call this before Chainer is imported."""
    cupy = module(
        'cupy', ndarray=arrays.ndarray, __version__='14.2.0', LOG=runtime.LOG,
        memoize=lambda for_each_device=False: memoized, clear_memo=lambda: None,
        ones=arrays.filled(1), zeros=arrays.filled(0),
        ones_like=arrays.filled_like(1), zeros_like=arrays.filled_like(0),
        full=lambda shape, value, dtype=float: arrays.filled(value)(shape, dtype),
        **{name: getattr(arrays, name) for name in (
            'arange', 'array', 'asarray', 'ascontiguousarray', 'empty', 'empty_like',
            'get_array_module')},
        **{name: getattr(kernels, name) for name in (
            'ElementwiseKernel', 'RawKernel', 'RawModule', 'ReductionKernel')},
        get_default_memory_pool=lambda: runtime.default_pool,
        get_default_pinned_memory_pool=runtime.MemoryPool,
        fuse=lambda *args, **kwargs: lambda function: function)
    cupy.__getattr__ = function_of_numpy
    cupy.cuda = module(
        'cupy.cuda', is_available=lambda: True, runtime=runtime.RUNTIME, driver=runtime.DRIVER,
        **{name: getattr(runtime, name) for name in (
            'Device', 'Event', 'Graph', 'Memory', 'MemoryPointer', 'MemoryPool', 'Stream',
            'get_current_stream', 'get_elapsed_time', 'set_allocator', 'using_allocator')})
    cupy.cuda.get_allocator = runtime.current_allocator
    cupy.cuda.cublas = module('cupy.cuda.cublas')  # Chainer looks whether it is there
    cupy._util = module('cupy._util', PerformanceWarning=type('PerformanceWarning', (Warning,), {}))
    module('cupyx', rsqrt=reciprocal_root)
    for name in ('cupyx.scipy', 'cupyx.scipy.linalg', 'cupyx.scipy.special'):
        module(name)
    sys.modules['cudnn'] = cudnn


def module(name, **contents):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)
    return sys.modules[name]


def memoized(function):
    results = {}

    def remembering(*args):
        if args not in results:
            results[args] = function(*args)
        return results[args]
    return remembering


def function_of_numpy(name):
    """``cupy.name`` where it is the same as NumPy's; its results are on the GPU."""
    function = getattr(np, name)
    if isinstance(function, type) or not callable(function):
        return function

    return lambda *args, **kwargs: arrays.run(function, name, args, kwargs)


def reciprocal_root(x, dtype=None):
    return arrays.compute(lambda x: (1 / np.sqrt(x)).astype(dtype), 'rsqrt', (x,), {})
