"""The backend for CuPy's arrays; importing it also registers what is replaced on a GPU alone."""
from engine.backends import Backend
from engine.gpu import activation, convolution, loss, normalization, optimizers, pooling
from engine.gpu import deserializers, graphs, multi_tensor  # noqa: F401  what they replace
from engine.gpu.kernels import DTYPES

GPU = Backend(DTYPES, activation, convolution, normalization, pooling, scale=activation.scale,
              loss=loss, optimizers=optimizers)
