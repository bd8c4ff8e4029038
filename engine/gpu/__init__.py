"""The engine's operations on an NVIDIA GPU: convolutions by cuDNN 9, the others by own kernels."""
from engine.gpu import activation, convolution, normalization, pooling

DTYPES = 'f'  # which it covers: float32

__all__ = ['DTYPES', 'activation', 'convolution', 'normalization', 'pooling']
