"""The backend for CuPy's arrays; importing it also registers what is replaced on a GPU alone."""
from engine.backends import Backend
from engine.gpu import (  # noqa: F401  some are imported for what they replace
    activation,
    convolution,
    deserializers,
    graphs,
    loss,
    multi_tensor,
    normalization,
    optimizers,
    pooling,
)
from engine.gpu.kernels import DTYPES

GPU = Backend(DTYPES, activation, convolution, normalization, pooling, scale=activation.scale,
              loss=loss, optimizers=optimizers)
