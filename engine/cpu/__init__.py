"""The engine's operations with NumPy, on threads."""
from engine.cpu import activation, convolution, normalization, pooling

DTYPES = 'fd'  # which it covers: float32 and float64

__all__ = ['DTYPES', 'activation', 'convolution', 'normalization', 'pooling']
