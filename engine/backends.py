"""Which package computes on which arrays.

A backend has modules of the names and with the functions of ``engine/cpu``: ``convolution``,
``normalization``, ``pooling`` and ``activation``, and says in ``DTYPES`` what it covers.  They take
and return arrays of one kind and dtype, maps as contiguous (N, H, W, C).  What they are handed is
decided in ``functions.py`` and ``bottleneck.py``, for all backends alike.  On a GPU there are also
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
    from engine import gpu
    BACKENDS[cuda.cupy.ndarray] = gpu


def backend(*arrays):
    """The backend for these arrays.

    None, and so Chainer itself, for arrays of other kinds or of several, for other dtypes than
    those of the backend or for several at once, and for empty arrays.
    """
    if not all(array.size for array in arrays):
        return None
    kinds = {type(array) for array in arrays}
    dtypes = {array.dtype.char for array in arrays}
    ops = BACKENDS.get(*kinds) if len(kinds) == len(dtypes) == 1 else None
    return ops if ops and dtypes.pop() in ops.DTYPES else None
