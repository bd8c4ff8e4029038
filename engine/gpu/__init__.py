"""The engine's operations on an NVIDIA GPU: convolutions by cuDNN 9, the others by own kernels."""
from engine.gpu import (
    activation, convolution, loss, normalization, optimizers, pooling, values)
from engine.gpu.kernels import DTYPES

__all__ = ['DTYPES', 'activation', 'convolution', 'loss', 'normalization', 'optimizers', 'pooling',
           'values']
