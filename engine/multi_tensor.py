"""The update of all parameters on a GPU as one kernel.

Chainer updates one parameter after another.  Here the update rules, and weight decay, only note
what they would do, and at the end of the optimizer's update it is done to all parameters at once.
"""
import numpy as np
from chainer import optimizer
from chainer.optimizer_hooks import weight_decay
from chainer.optimizers import adam, momentum_sgd, nesterov_ag

from engine.backends import backend
from engine.layout import has_known_layout, laid_out_as
from engine.seam import replaces


class Notes:
    """Of one update: groups of parameters that one kernel updates, and their weight decays."""

    def __init__(self):
        self.groups = {}
        self.decays = {}


notes = None  # while an optimizer updates parameters


@replaces(optimizer.GradientMethod, 'update')
def update(stock, method, *args, **kwargs):
    global notes
    if any(hooks(owner, 'post') for owner in (method, *rules(method))):
        return stock(method, *args, **kwargs)  # they look at the new weights
    notes = Notes()
    try:
        stock(method, *args, **kwargs)
        for (kernel, _), (ops, tensors, factors) in notes.groups.items():
            ops.optimizers.update(kernel, tensors, factors)
    finally:
        notes = None


def rules(method):
    """The update rules of an optimizer."""
    return [p.update_rule for p in method.target.params() if p.update_rule is not None]


def hooks(owner, timing):
    return list(getattr(owner._hookable, f'_{timing}_update_hooks').values())


def is_covered(rule, parameter):
    """Whether a parameter can be updated together with others."""
    if notes is None or parameter.grad is None:
        return False
    ops = backend(parameter.data, parameter.grad)
    hp = rule.hyperparam
    return (hasattr(ops, 'optimizers') and has_known_layout(parameter.data)
            and set(vars(hp)) == {'_parent'}  # it has no values of its own
            and not getattr(hp, 'amsgrad', False) and not getattr(hp, 'adabound', False))


@replaces(weight_decay.WeightDecay, '__call__')
def decay_weights(stock, hook, rule, parameter):
    if (not is_covered(rule, parameter) or parameter._loss_scale is not None
            or hooks(rule, 'pre') != [hook] or type(rule) not in KERNELS):
        return stock(hook, rule, parameter)
    notes.decays[id(parameter)] = hook.rate


def note(kernel, names, factors):
    """An ``update_core_gpu`` that leaves the update to ``kernel`` of ``optimizers.cu``.

    Args:
        names (tuple of str): The states of the rule.
        factors (callable): Of a rule, what the kernel reads.
    """
    def update_core(stock, rule, parameter):
        if not is_covered(rule, parameter):
            return stock(rule, parameter)
        w = parameter.data
        for name in names:  # as read from a snapshot they lie otherwise than the parameter
            rule.state[name] = laid_out_as(w, rule.state[name])
        ops, tensors, _ = notes.groups.setdefault(
            (kernel, rule.t), (backend(w), [], lambda: factors(rule)))
        tensors.append((w, laid_out_as(w, parameter.grad), *(rule.state[name] for name in names),
                        notes.decays.get(id(parameter), 0)))
    return update_core


def adam_factors(rule):
    hp = rule.hyperparam
    rule._check_eps(np.float32)
    return (rule.alpha_t * hp.eta, 1 - hp.beta1, 1 - hp.beta2, hp.eps,
            hp.eta * hp.weight_decay_rate)


def momentum_factors(rule):
    return rule.hyperparam.lr, rule.hyperparam.momentum


KERNELS = {adam.AdamRule: note('adam', ('m', 'v'), adam_factors),
           momentum_sgd.MomentumSGDRule: note('momentum_sgd', ('v',), momentum_factors),
           nesterov_ag.NesterovAGRule: note('nesterov_ag', ('v',), momentum_factors)}
for rule_class, update_core in KERNELS.items():
    replaces(rule_class, 'update_core_gpu')(update_core)
