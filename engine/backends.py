"""Which package computes on which arrays.

A backend has modules of the names and with the functions of ``engine/cpu``: ``convolution``,
``normalization``, ``pooling`` and ``activation``, and says in ``DTYPES`` what it covers.  They take
and return arrays of one kind, maps as contiguous (N, H, W, C).  What they are handed is decided in
``functions.py`` and ``bottleneck.py``, for all backends alike.  On a GPU there are also
``activation.scale``, ``loss`` and ``optimizers``: on a CPU NumPy's own are as fast.
"""
import numpy as np
from chainer.backends import cuda

from engine import cpu

BACKENDS = {np.ndarray: cpu}


def use_gpu():
    """Let there be a backend for CuPy's arrays.

    Raises:
        ImportError: If cuDNN 9 or its Python interface is missing.
    """
    from engine.gpu import backend
    BACKENDS[cuda.cupy.ndarray] = backend


def backend(*arrays, per_channel=()):
    """The backend for these arrays.

    None, and so Chainer itself, for arrays of other kinds or of several, for other dtypes than
    those of the backend or for several at once, and for empty arrays.

    Args:
        arrays: Maps, their gradients, weights.
        per_channel: Statistics and parameters of batch normalization: float32 where the others are
            float16, as in Chainer's mixed16, otherwise of their dtype.
    """
    if not all(array.size for array in (*arrays, *per_channel)):
        return None
    kinds = {type(array) for array in (*arrays, *per_channel)}
    dtypes = {array.dtype.char for array in arrays}
    if len(kinds) > 1 or len(dtypes) > 1:
        return None
    ops, dtype = BACKENDS.get(*kinds), *dtypes
    if not ops or dtype not in ops.DTYPES:
        return None
    precise = 'f' if dtype == 'e' else dtype
    return ops if all(array.dtype.char == precise for array in per_channel) else None
