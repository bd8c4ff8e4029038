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
    if has_post_hooks(method):  # they look at the new weights
        return stock(method, *args, **kwargs)
    notes = Notes()
    try:
        stock(method, *args, **kwargs)
        for (kernel, _), (ops, tensors, factors) in notes.groups.items():
            ops.optimizers.update(kernel, tensors, factors)
    finally:
        notes = None


def covers(method):
    """Whether an optimizer leaves the updates of all its parameters to kernels."""
    return not has_post_hooks(method) and all(
        is_covered(p.update_rule, p.array) for p in method.target.params()
        if p.update_rule is not None and p.update_rule.enabled)


def has_post_hooks(method):
    rules = [p.update_rule for p in method.target.params() if p.update_rule is not None]
    return any(hooks(owner, 'post') for owner in (method, *rules))


def hooks(owner, timing):
    return list(getattr(owner._hookable, f'_{timing}_update_hooks').values())


def is_covered(rule, *arrays):
    """Whether what a rule does to these arrays, of which the first is the parameter, can wait."""
    hp = rule.hyperparam
    return (type(rule) in KERNELS and all(a is not None for a in arrays)
            and hasattr(backend(*arrays), 'optimizers') and has_known_layout(arrays[0])
            and set(vars(hp)) == {'_parent'}  # it has no values of its own
            and not getattr(hp, 'amsgrad', False) and not getattr(hp, 'adabound', False))


@replaces(weight_decay.WeightDecay, '__call__')
def decay_weights(stock, hook, rule, parameter):
    if (notes is None or not is_covered(rule, parameter.data, parameter.grad)
            or parameter._loss_scale is not None or hooks(rule, 'pre') != [hook]):
        return stock(hook, rule, parameter)
    notes.decays[id(parameter)] = hook.rate


def note(kernel, names, factors):
    """An ``update_core_gpu`` that leaves the update to ``kernel`` of ``optimizers.cu``.

    Args:
        names (tuple of str): The states of the rule.
        factors (callable): Of a rule, what the kernel reads.
    """
    def update_core(stock, rule, parameter):
        if notes is None or not is_covered(rule, parameter.data, parameter.grad):
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
