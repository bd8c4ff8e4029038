"""The engine's operations on an NVIDIA GPU."""
from engine.gpu import (
    activation, convolution, deserializers, graph_inputs, graphs, loss, multi_tensor,
    normalization, optimizers, pooling)
from engine.gpu.kernels import DTYPES

__all__ = ['DTYPES', 'activation', 'convolution', 'deserializers', 'graph_inputs', 'graphs', 'loss',
           'multi_tensor', 'normalization', 'optimizers', 'pooling']
