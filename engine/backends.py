"""Which package computes on which arrays.

A backend has modules of the names and with the functions of ``engine/cpu``: ``convolution``,
``normalization``, ``pooling`` and ``activation``.  They take and return arrays of one kind, float32
or float64, maps as contiguous (N, H, W, C).  What they are handed is decided in ``functions.py``
and ``bottleneck.py``, for all backends alike.
"""
import numpy as np

from engine import cpu

BACKENDS = {np.ndarray: cpu}


def backend(*arrays):
    """The backend for these arrays.

    None, and so Chainer itself, for arrays of other kinds or of several, for other dtypes than
    float32 and float64 or for both at once, and for empty arrays.
    """
    if not all(array.size for array in arrays):
        return None
    kinds = {type(array) for array in arrays}
    dtypes = {array.dtype.char for array in arrays}
    return BACKENDS.get(*kinds) if len(kinds) == 1 and dtypes in ({'f'}, {'d'}) else None
