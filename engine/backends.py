"""The backends of the engine: which code computes on which arrays, and what each of them has."""
import dataclasses
import types
from collections.abc import Callable

from chainer.backends import cuda


@dataclasses.dataclass(frozen=True)
class Backend:
    """The operations on arrays of one kind.

    Feature maps are contiguous (N, H, W, C) arrays, matrices contiguous (rows, channels) ones.
    What is handed to a backend is decided in ``functions.py`` and ``fusion.py``, alike for all
    of them.  The modules of all backends have the functions of those in ``engine/cpu``.

    Args:
        dtypes (str): What is covered, as NumPy's characters.
        activation, convolution, normalization, pooling (module): Operations every backend has.
        scale (callable): ``scale(x, factors)``, the product with one factor for all examples or
            one for each; None where NumPy's is as fast.
        loss (module): Softmax cross-entropy; None where NumPy's is as fast.
        optimizers (module): Updates of many parameters at once; None where they are updated one by
            one.
    """

    dtypes: str
    activation: types.ModuleType
    convolution: types.ModuleType
    normalization: types.ModuleType
    pooling: types.ModuleType
    scale: Callable | None = None
    loss: types.ModuleType | None = None
    optimizers: types.ModuleType | None = None


BACKENDS = {}  # by the type of the arrays; for CuPy's only once a GPU is used


def use_gpu():
    """Register the backend for CuPy's arrays, and what the engine replaces on a GPU alone.

    Raises:
        ImportError: If cuDNN 9 or its Python interface is missing.
    """
    from engine.gpu.backend import GPU
    BACKENDS[cuda.cupy.ndarray] = GPU


def backend(*arrays, per_channel=()):
    """The backend that covers these arrays, or None, in which case Chainer itself computes.

    None is for arrays without a backend or of more than one kind, for a dtype that the backend
    does not cover or for more than one dtype, and for empty arrays.

    Args:
        arrays: Feature maps, their gradients, weights.
        per_channel: Statistics and parameters of batch normalization.  They have the dtype of
            ``arrays``, except that they are float32 where those are float16, as in Chainer's
            mixed16.

    Returns:
        Backend or None.
    """
    if not all(array.size for array in (*arrays, *per_channel)):
        return None
    kinds = {type(array) for array in (*arrays, *per_channel)}
    dtypes = {array.dtype.char for array in arrays}
    if len(kinds) > 1 or len(dtypes) > 1:
        return None
    ops, dtype = BACKENDS.get(*kinds), *dtypes
    if not ops or dtype not in ops.dtypes:
        return None
    expected = 'f' if dtype == 'e' else dtype
    return ops if all(array.dtype.char == expected for array in per_channel) else None
