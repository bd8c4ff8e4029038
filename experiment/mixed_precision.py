"""The parts of training in mixed16 that Chainer leaves out; for a GPU."""
import numpy as np
from chainer import training

from engine.master_weights import master_weights


class MixedPrecision(training.Extension):
    """Adds master weights and loss scale to snapshots, and has figures averaged in float32.

    A snapshot of Chainer's holds the weights in float16, but neither the float32 master weights
    that are trained nor the loss scale; the mean of float16 losses would be summed in float16.

    Args:
        optimizer (chainer.GradientMethod): Set up, with updates in float32 and dynamic loss
            scaling.
    """

    priority = training.PRIORITY_WRITER

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __call__(self, trainer):
        for name, value in trainer.observation.items():
            value = getattr(value, 'array', value)
            if getattr(value, 'dtype', None) == np.float16:
                trainer.observation[name] = value.astype(np.float32)

    def serialize(self, serializer):
        optimizer = self.optimizer
        optimizer._loss_scale = serializer('loss_scale', optimizer._loss_scale)
        optimizer._loss_scaling_isnan_ever = serializer(
            'has_overflowed', optimizer._loss_scaling_isnan_ever)
        for name, parameter in optimizer.target.namedparams():
            if parameter.dtype == np.float16:
                serializer(name, master_weights(parameter).array)
