"""The engine's operations on an NVIDIA GPU: convolutions by cuDNN 9, the others by own kernels."""
from engine.gpu import (
    activation, convolution, loss, normalization, optimizers, pooling, values)

DTYPES = 'f'  # which it covers: float32

__all__ = ['DTYPES', 'activation', 'convolution', 'loss', 'normalization', 'optimizers', 'pooling',
           'scale', 'values']


def scale(x, value):
    """value * x; None where ``x`` has gaps in its memory."""
    return activation.scale(x, value, values.factor(value))
