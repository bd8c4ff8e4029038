"""Chainer's computations, faster, the same but for rounding, under any network.

:func:`use` puts the engine in the place of what some of Chainer's functions and update rules
compute on a CPU.  Networks, graphs, gradients of gradients, snapshots and the shapes of arrays stay
Chainer's own; underneath, convolutions and batch normalization work on channels-last memory.

Imported before NumPy, it also sets what OpenBLAS reads from the environment at that time; see
``environment.py``.
"""
from engine import environment  # before NumPy
from engine.layout import lay_out_weights
from engine.seam import replaced, switch
from engine import bottleneck, functions, optimizers

__all__ = ['ENGINES', 'bottleneck', 'environment', 'functions', 'optimizers', 'replaced', 'switch',
           'use']

ENGINES = 'fast', 'stock'


def use(name, model):
    """Let Chainer compute by an engine from now on, in this process.

    Args:
        name (str): ``'fast'``, or ``'stock'`` for Chainer as it is.
        model (chainer.Link): What will be trained, on the CPU.  For ``'fast'`` the weights of its
            convolutions get channels-last memory; their values and shapes stay.

    Raises:
        ValueError: If there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f'the engine must be one of {", ".join(ENGINES)}, not {name!r}')
    switch(name == 'fast')
    if name == 'fast':
        lay_out_weights(model)
