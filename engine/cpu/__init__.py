"""The engine's operations with NumPy, on threads."""
from engine.cpu import activation, convolution, normalization, pooling

__all__ = ['activation', 'convolution', 'normalization', 'pooling']
