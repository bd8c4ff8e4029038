"""Chainer's computations, faster, the same but for rounding, under any network.

:func:`use` puts the engine in the place of what some of Chainer's functions and update rules
compute.  Networks, graphs, gradients of gradients, snapshots and the shapes of arrays stay
Chainer's own; underneath, convolutions and batch normalization work on channels-last memory.

Imported before NumPy, it also sets what OpenBLAS reads from the environment at that time; see
``environment.py``.
"""
from engine import environment  # before NumPy
import chainer
import numpy as np

from engine import backends, bottleneck, functions
from engine.cpu import update_rules
from engine.cpu.backend import CPU
from engine.layout import lay_out_weights
from engine.seam import replaced, switch

__all__ = ['ENGINES', 'backends', 'bottleneck', 'environment', 'functions', 'replaced', 'switch',
           'update_rules', 'use']

ENGINES = 'fast', 'stock'
backends.BACKENDS[np.ndarray] = CPU


def use(name, model, graph=False):
    """Let Chainer compute by an engine from now on, in this process.

    Args:
        name (str): ``'fast'``, or ``'stock'`` for Chainer as it is.
        model (chainer.Link): What will be trained, on its device.  For ``'fast'`` the weights of
            its convolutions get channels-last memory; their values and shapes stay.
        graph (bool): Whether ``StandardUpdater`` records the steps of training as CUDA graphs and
            replays them; with ``'fast'`` on a GPU.  For evaluations see ``gpu/evaluation.py``.

    Raises:
        ValueError: If there is no such engine.
        ImportError: If the model is on a GPU and cuDNN 9 or its Python interface is missing.
    """
    if name not in ENGINES:
        raise ValueError(f'the engine must be one of {", ".join(ENGINES)}, not {name!r}')
    on_gpu = isinstance(model.device, chainer.backend.GpuDevice)
    if name == 'fast' and on_gpu:
        backends.use_gpu()
        from engine.gpu import graphs
        graphs.record(graph)
    switch(name == 'fast')
    if name == 'fast':
        with chainer.using_device(model.device):
            lay_out_weights(model)
