"""The backend for NumPy's arrays."""
from engine.backends import Backend
from engine.cpu import activation, convolution, normalization, pooling

CPU = Backend('fd', activation, convolution, normalization, pooling)
