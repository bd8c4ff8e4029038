"""Optimizer, weight decay and learning-rate schedule."""
import math

import chainer
from chainer import training

# --optimizer and its default learning rate
OPTIMIZERS = {'adam': 0.001, 'sgd': 0.1}

# --schedule: share of the learning rate that is left after a share p of the training, in [0, 1]
SCHEDULES = {
    'constant': lambda p: 1.,
    'cosine': lambda p: (1 + math.cos(math.pi * p)) / 2,
    'step': lambda p: 1. if p < 1 / 2 else 0.1 if p < 3 / 4 else 0.01,
}


def setup_optimizer(model, args):
    """Return the optimizer of ``--optimizer``, set up on ``model``.

    ``--weight-decay`` applies to every parameter but BN's gamma and beta.  With ``--dtype
    mixed16`` weights are updated in float32 and the loss is scaled dynamically.
    """
    if args.optimizer == 'adam':
        optimizer = chainer.optimizers.Adam(alpha=args.learnrate)
    else:
        optimizer = chainer.optimizers.NesterovAG(lr=args.learnrate, momentum=0.9)
    optimizer.setup(model)
    if args.weight_decay:
        for name, parameter in model.namedparams():
            if not name.endswith(('/gamma', '/beta')):
                parameter.update_rule.add_hook(
                    chainer.optimizer_hooks.WeightDecay(args.weight_decay))
    if args.dtype == 'mixed16':
        optimizer.use_fp32_update()
        optimizer.loss_scaling()
    return optimizer


class LearningRate(training.Extension):
    """Sets the learning rate of each iteration by ``--schedule`` and reports it as ``lr``.

    It depends on the progress alone, so it has no state that a resumed run would need.
    """

    priority = training.PRIORITY_WRITER

    def __init__(self, args):
        self.learnrate = float(args.learnrate)
        self.schedule = SCHEDULES[args.schedule]
        self.epoch = args.epoch
        self.hyperparameter = 'alpha' if args.optimizer == 'adam' else 'lr'

    def initialize(self, trainer):
        self.set(trainer)

    def __call__(self, trainer):
        chainer.report({'lr': self.lr})  # the one that has just been used
        self.set(trainer)

    def set(self, trainer):
        progress = min(trainer.updater.epoch_detail / self.epoch, 1)
        self.lr = self.learnrate * self.schedule(progress)
        setattr(trainer.updater.get_optimizer('main'), self.hyperparameter, self.lr)
