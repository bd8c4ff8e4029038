"""Chainer's computations, faster, with the same numbers up to rounding, under any network.

:func:`use` replaces what some of Chainer's functions and update rules compute.  Networks, graphs,
gradients of gradients, snapshots and the shapes of arrays stay Chainer's own; underneath,
convolutions and batch normalization work on channels-last memory.

The engine has to be imported before NumPy: OpenBLAS reads its settings from the environment when
NumPy is imported, and ``environment.py`` chooses them.

State of the process that the engine changes or keeps:

- The functions of Chainer that are replaced while the engine is on (``seam.REPLACEMENTS``), and the
  number of threads of BLAS, then 1 (``cpu.threads.BLAS``).  :func:`switch` restores both.
- ``OPENBLAS_CORETYPE`` in the environment, set at import where the user has not set it.
- ``backends.BACKENDS``, which gets an entry for CuPy's arrays when a GPU is first used.
- The worker threads of the process (``cpu.threads``), and their number (``environment.threads``).
- On a GPU, kept for each device until the process ends: compiled kernels and how many of their
  blocks are resident at once (``gpu.kernels``), handles, plans and workspaces of cuDNN
  (``gpu.plans``), and the counters of reductions, zero between two kernels
  (``gpu.normalization.counters``).
- ``gpu.graphs``: whether ``StandardUpdater`` replays its steps, the steps that have been recorded,
  and what the host has yet to learn of the last ones.  ``gpu.graph_inputs``: the inputs of the
  graph that is being recorded, and the bytes that have been sent.

It only reads ``chainer.config``, such as ``train``, ``autotune`` and ``cudnn_deterministic``.
"""
from engine import environment  # isort: skip  # before NumPy, whose OpenBLAS reads it once
import chainer
import numpy as np

from engine import backends, functions, fusion
from engine.cpu import update_rules
from engine.cpu.backend import CPU
from engine.layout import lay_out_weights
from engine.seam import replaced, switch

__all__ = ['ENGINES', 'backends', 'environment', 'functions', 'fusion', 'replaced', 'switch',
           'update_rules', 'use']

ENGINES = 'fast', 'stock'
backends.BACKENDS[np.ndarray] = CPU


def use(name, model, graph=False):
    """Choose the engine that Chainer computes with from now on, in this process.

    Args:
        name (str): ``'fast'``, or ``'stock'`` for Chainer as it is.
        model (chainer.Link): What will be trained, on its device.  With ``'fast'`` the weights of
            its convolutions are moved to channels-last memory; their values and shapes stay.
        graph (bool): Whether ``StandardUpdater`` records training steps as CUDA graphs and replays
            them; only with ``'fast'`` on a GPU.  For evaluations see ``gpu/evaluation.py``.

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
        graphs.enable(graph)
    switch(name == 'fast')
    if name == 'fast':
        with chainer.using_device(model.device):
            lay_out_weights(model)
