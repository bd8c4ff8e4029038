"""The update of all parameters on a GPU as one kernel.

Chainer updates one parameter after another.  Here an update rule only notes what it would do, and
at the end of the optimizer's update it is done to all parameters at once: weight decay, the
division by a loss scale, the step itself, and under mixed16 the rounding of the float32 weights
that the rule keeps.
"""
import functools

import chainer
import numpy as np
from chainer import optimizer
from chainer.optimizer_hooks import weight_decay
from chainer.optimizers import adam, momentum_sgd, nesterov_ag

from engine.backends import backend
from engine.gpu import graph_inputs
from engine.layout import has_known_layout, with_layout_of
from engine.seam import wraps_stock


class Notes:
    """Of one update.

    Attributes:
        groups (dict): Parameters that one kernel updates, by its name and their number of updates.
        decay (float): Weight decay of all of them.
        overflow (array): Whether a gradient is not finite, on the GPU; None where nobody asks.
    """

    def __init__(self):
        self.groups = {}
        self.decay = 0
        self.overflow = None


notes = None  # while an optimizer updates parameters


@wraps_stock(optimizer.GradientMethod, 'update')
def update(stock, method, *args, **kwargs):
    global notes
    if not covers(method):
        return stock(method, *args, **kwargs)
    notes = Notes()
    try:
        stock(method, *args, **kwargs)
    finally:
        notes = None


def covers(method):
    """Whether one kernel can do what an optimizer, its rules and their hooks do."""
    return only_decays(method) and all(
        p.array is not None and is_covered(p.update_rule, p.array) for p in trained(method))


def trained(method):
    """The parameters that an optimizer changes."""
    return [p for p in method.target.params()
            if p.update_rule is not None and p.update_rule.enabled]


def is_covered(rule, array):
    hp = rule.hyperparam
    return (type(rule) in RULES and has_known_layout(array)
            and (ops := backend(array)) is not None and ops.optimizers is not None
            and (array.dtype.char == 'f' or rule._use_fp32_update) and only_decays(rule)
            and set(vars(hp)) == {'_parent'}  # it has no values of its own
            and not getattr(hp, 'amsgrad', False) and not getattr(hp, 'adabound', False))


def only_decays(owner):
    """Whether an optimizer or a rule has no hooks but weight decay, before the update."""
    return not hooks(owner, 'post') and all(
        type(hook) is weight_decay.WeightDecay for hook in hooks(owner, 'pre'))


def hooks(owner, timing):
    return list(getattr(owner._hookable, f'_{timing}_update_hooks').values())


@wraps_stock(optimizer.GradientMethod, 'call_hook')
def call_hook(stock, method, hook):
    if notes is None:
        return stock(method, hook)
    notes.decay += hook.rate


@wraps_stock(optimizer.Optimizer, 'check_nan_in_grads')
def check_gradients(stock, method):
    """Chainer asks the GPU about one parameter after another; a recorded step cannot ask at all."""
    if notes is None or not method._loss_scaling_is_dynamic:
        return stock(method)
    gradients = [with_layout_of(p.array, p.grad) for p in trained(method)]
    ops = backend(gradients[0])
    notes.overflow = ops.optimizers.overflow(gradients)
    recording = graph_inputs.recording
    if recording:
        recording.overflow = notes.overflow
    judge(method, not recording and bool(notes.overflow))


def judge(method, overflow):
    """Note what Chainer's ``update_loss_scale`` reads."""
    method._loss_scaling_isnan = overflow
    method._loss_scaling_isnan_ever |= overflow


@wraps_stock(optimizer.UpdateRule, 'update')
def note(stock, rule, parameter):
    if notes is None or not rule.enabled:
        return stock(rule, parameter)
    rule.t += 1
    kernel, names, _ = RULES[type(rule)]
    precise = in_float32(parameter)
    rule._init_states(precise)
    w, copy = precise.array, None if precise is parameter else parameter.array
    for name in names:  # as read from a snapshot they lie otherwise than the parameter
        rule.state[name] = with_layout_of(w, rule.state[name])
    decay = notes.decay + sum(hook.rate for hook in hooks(rule, 'pre'))
    _, tensors = notes.groups.setdefault((kernel, rule.t), (rule, []))
    tensors.append((w, copy, with_layout_of(parameter.array, parameter.grad),
                    [rule.state[name] for name in names], decay))


def in_float32(parameter):
    """The parameter, or if it is in float16 the one that its rule keeps and updates for it."""
    if parameter.dtype != np.float16:
        return parameter
    rule = parameter.update_rule
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(
            parameter.array.astype(np.float32), name=parameter.name)
    return rule._fp32_param


@wraps_stock(optimizer.Optimizer, 'update_loss_scale')
def carry_out(stock, method):
    """The last that Chainer does in an update."""
    for (kernel, _), (rule, tensors) in (notes.groups if notes else {}).items():
        backend(tensors[0][0]).optimizers.update(
            kernel, tensors, functools.partial(factors, method, rule), notes.overflow)
    stock(method)


def factors(method, rule):
    return 1 / (method._loss_scale or 1), *RULES[type(rule)][2](rule)


def adam_factors(rule):
    hp = rule.hyperparam
    rule._check_eps(np.float32)
    return (rule.alpha_t * hp.eta, 1 - hp.beta1, 1 - hp.beta2, hp.eps,
            hp.eta * hp.weight_decay_rate)


def momentum_factors(rule):
    return rule.hyperparam.lr, rule.hyperparam.momentum


RULES = {  # of each rule a kernel, its states, and what varies from step to step
    adam.AdamRule: ('adam', ('m', 'v'), adam_factors),
    momentum_sgd.MomentumSGDRule: ('momentum_sgd', ('v',), momentum_factors),
    nesterov_ag.NesterovAGRule: ('nesterov_ag', ('v',), momentum_factors)}
