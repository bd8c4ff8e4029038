"""CuPy's array and functions, by NumPy on the host's memory."""
import numpy as np

from tests.simulated_gpu import runtime
from tests.simulated_gpu.runtime import do, forbid_capture


class Pointer:

    def __init__(self, ptr):
        self.ptr = ptr


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """``host`` is the NumPy array in whose place it stands."""

    device = runtime.Device()

    def __init__(self, host):
        self.host = host

    def __getattr__(self, name):
        if name not in ('shape', 'dtype', 'ndim', 'size', 'nbytes', 'itemsize', 'strides', 'flags'):
            raise AttributeError(name)
        return getattr(self.host, name)

    @property
    def data(self):
        return Pointer(self.host.ctypes.data)

    @property
    def base(self):
        return self.host.base

    @property
    def T(self):
        return ndarray(self.host.T)

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, *args, **kwargs):
        raise TypeError('Implicit conversion to a NumPy array is not allowed')

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        return compute(getattr(ufunc, method), ufunc.__name__, inputs, kwargs, out and out[0])

    def __array_function__(self, function, types, args, kwargs):
        return run(function, function.__name__, args, kwargs)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, ndarray) and k.dtype == bool for k in keys):
            forbid_capture('sync', 'boolean index')
        return compute(index, 'getitem', (self, keys), {})

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError('non-scalar numpy.ndarray cannot be used for fill')
        key, value = raw(key), raw(value)
        do('copy', 'setitem', lambda: self.host.__setitem__(key, value))

    def get(self, stream=None):
        forbid_capture('d2h', 'get')
        return self.host.copy()

    def set(self, array, stream=None):
        forbid_capture('h2d', 'set')
        assert self.shape == array.shape and self.dtype == array.dtype
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError('Cannot set to non-contiguous array')
        self.host[...] = array

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        return int(self)

    def __bool__(self):
        return bool(self.item())

    def astype(self, dtype, order='K', casting=None, subok=None, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return compute(np.ndarray.astype, 'astype', (self, dtype), {})

    def copy(self, order='C'):
        return compute(np.ndarray.copy, 'copy', (self, order), {})

    def fill(self, value):
        do('fill', 'fill', lambda: self.host.fill(value))

    def reduced_view(self, dtype=None):
        return self

    def dot(self, other, out=None):
        return run(np.dot, 'dot', (self, other), {'out': out})


for name in ('sum', 'mean', 'var', 'max', 'min', 'argmax', 'reshape', 'ravel', 'take', 'clip',
             'flatten', 'any', 'all', 'prod', 'argsort', 'round', 'transpose', 'view', 'squeeze'):
    def method(self, *args, _name=name, **kwargs):
        return compute(getattr(np.ndarray, _name), _name, (self, *args), kwargs,
                       kwargs.pop('out', None))
    setattr(ndarray, name, method)


def run(function, name, args, kwargs):
    if name in ('dot', 'matmul', 'tensordot', 'einsum'):
        no_cublas(name)
    return compute(function, name, args, kwargs, kwargs.pop('out', None))


def no_cublas(name):
    runtime.LOG.append(('gemm', name))
    if runtime.is_capturing():
        raise NotImplementedError('cuBLAS cannot be captured')


def raw(value):
    """Device arrays, also inside lists and tuples, as NumPy's."""
    if isinstance(value, ndarray):
        return value.host
    if type(value) in (list, tuple):
        return type(value)(map(raw, value))
    return value


def index(array, keys):
    return array[(*keys, ...)] if Ellipsis not in [k for k in keys if k is ...] else array[keys]


def compute(function, name, args, kwargs, out=None):
    """``function`` of arrays: a view of one of them, ``out``, or a new array."""
    if any(isinstance(a, np.ndarray) and a.ndim for a in args):
        raise TypeError(f'{name} is given a NumPy array')
    inputs, kwargs = raw(tuple(args)), {k: raw(v) for k, v in kwargs.items()}
    # For the shape of the result.  What memory holds during a capture may be anything.
    trial = inputs
    if name in ('getitem', 'take') and runtime.is_capturing():
        trial = inputs[0], *valid_indices(inputs[1:])
    with np.errstate(all='ignore'):
        result = np.asarray(function(*trial, **kwargs))
    if out is None:
        if any(isinstance(a, np.ndarray) and np.may_share_memory(result, a) for a in inputs):
            return ndarray(result)
        keeps = name == 'astype'  # everything else makes C-contiguous arrays
        out = allocate(result.shape, result.dtype, result.strides if keeps else None)
    target = out.host

    def write():
        with np.errstate(all='ignore'):
            target[...] = function(*inputs, **kwargs)
    do('ufunc', name, write)
    return out


def valid_indices(value):
    if isinstance(value, tuple):
        return tuple(map(valid_indices, value))
    is_index = isinstance(value, np.ndarray) and value.dtype.kind == 'i'
    return np.zeros_like(value) if is_index else value


def allocate(shape, dtype, strides=None):
    """Memory that holds NaN or odd numbers, so that what nobody has written shows."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = runtime.allocator(max(size, 1))
    array = np.ndarray(shape, dtype, buffer=memory, strides=strides)
    if not runtime.is_capturing():  # nothing is done then
        array.fill(np.nan if dtype.kind == 'f' else 77 if dtype.kind in 'iu' else 0)
    return ndarray(array)


def empty(shape, dtype=float, order='C'):
    return allocate(shape, dtype)


def empty_like(a, dtype=None, order='K', shape=None):
    model = np.empty_like(raw(a), dtype=dtype, shape=shape)
    return allocate(model.shape, model.dtype, model.strides)


def filled(value):
    def function(shape, dtype=float, order='C'):
        array = allocate(shape, dtype)
        array.fill(value)
        return array
    return function


def filled_like(value):
    def function(a, dtype=None, **kwargs):
        array = empty_like(a, dtype)
        array.fill(value)
        return array
    return function


def asarray(a, dtype=None, **kwargs):
    if isinstance(a, ndarray):
        return a if dtype is None else a.astype(dtype, copy=False)
    return array(a, dtype)


def array(a, dtype=None, copy=True, **kwargs):
    if isinstance(a, ndarray):
        return a.copy() if dtype is None else a.astype(dtype)
    forbid_capture('h2d', 'array')
    host = np.array(a, dtype)
    new = allocate(host.shape, host.dtype)
    raw(new)[...] = host
    return new


def ascontiguousarray(a, dtype=None):
    return a if a.flags.c_contiguous else a.copy()


def arange(*args, dtype=None):
    host = np.arange(*args, dtype=dtype)
    new = allocate(host.shape, host.dtype)
    target = raw(new)
    do('ufunc', 'arange', lambda: target.__setitem__(..., host))
    return new


def get_array_module(*args):
    import cupy
    return cupy if any(isinstance(a, ndarray) for a in args) else np
