"""Optimizer, weight decay and learning-rate schedule."""
import math

import chainer
from chainer import training

# --optimizer and its default learning rate
OPTIMIZERS = {'adam': 0.001, 'sgd': 0.1, 'momentum': 0.1}


def steps(first, second):
    """A schedule that divides by 10 at two shares of the training."""
    return lambda p: 1. if p < first else 0.1 if p < second else 0.01


# --schedule: share of the learning rate that is left after a share p of the training, in [0, 1]
SCHEDULES = {
    'constant': lambda p: 1.,
    'linear': lambda p: 1 - p,
    'cosine': lambda p: (1 + math.cos(math.pi * p)) / 2,
    'step': steps(1 / 2, 3 / 4),
    'step-thirds': steps(1 / 3, 2 / 3),
}


def setup_optimizer(model, args):
    """Return the optimizer of ``--optimizer``, set up on ``model``.

    ``--weight-decay`` applies to every parameter but BN's gamma and beta.  With ``--dtype
    mixed16`` weights are updated in float32 and the loss is scaled dynamically.
    """
    if args.optimizer == 'adam':
        optimizer = chainer.optimizers.Adam(alpha=args.learnrate)
    elif args.optimizer == 'sgd':
        optimizer = chainer.optimizers.NesterovAG(lr=args.learnrate, momentum=0.9)
    else:
        optimizer = chainer.optimizers.MomentumSGD(lr=args.learnrate, momentum=0.9)
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
    """Sets the learning rate of each iteration by ``--warmup`` and ``--schedule``; reports ``lr``.

    The warm-up rises linearly, by the same amount in each iteration (Goyal et al. 2017, section
    2.2).  The schedule spans the epochs after it (as in He et al. 2019, section 5.1), so that it
    starts where the warm-up has ended; a linear one then makes up the one-cycle policy.

    It depends on the progress alone, so it has no state that a resumed run would need.
    """

    priority = training.PRIORITY_WRITER

    def __init__(self, args):
        self.learnrate = float(args.learnrate)
        self.schedule = SCHEDULES[args.schedule]
        self.epoch, self.warmup = args.epoch, args.warmup
        self.hyperparameter = 'alpha' if args.optimizer == 'adam' else 'lr'

    def initialize(self, trainer):
        self.set(trainer)

    def __call__(self, trainer):
        chainer.report({'lr': self.lr})  # the one that has just been used
        self.set(trainer)

    def set(self, trainer):
        done = trainer.updater.epoch_detail  # epochs
        iterator = trainer.updater.get_iterator('main')
        iteration = iterator.batch_size / len(iterator.dataset)
        if done + iteration < self.warmup:
            share = (done + iteration) / self.warmup
        else:
            share = self.schedule(min(max(done - self.warmup, 0) / (self.epoch - self.warmup), 1))
        self.lr = self.learnrate * share
        setattr(trainer.updater.get_optimizer('main'), self.hyperparameter, self.lr)
