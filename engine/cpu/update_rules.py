"""Chainer's update rules on a CPU, computed block by block."""
import numpy as np
from chainer.optimizers import adam, momentum_sgd, nesterov_ag

from engine.cpu.blocks import flat, for_each_block
from engine.layout import with_layout_of
from engine.seam import replaces


def is_covered(parameter):
    """Whether a parameter has a gradient, no gaps in its memory, and float32 or float64 values."""
    w = parameter.data
    return parameter.grad is not None and w.dtype.char in 'fd' and flat(w) is not None


def update_in_blocks(rule, parameter, states, step):
    """Call ``step(parameter, gradient, *states, scratch)`` for each block, to update it in place.

    Args:
        rule (chainer.UpdateRule): The rule of the parameter.
        parameter (chainer.Parameter): One for which :func:`is_covered` is true.
        states (tuple of str): Names of the rule's states that are used.
        step (callable): It is given flat arrays of one length; ``scratch`` may be overwritten.
    """
    w = parameter.data
    for name in states:  # read from a snapshot they have another layout than the parameter
        rule.state[name] = with_layout_of(w, rule.state[name])
    views = [flat(array) for array in (
        w, with_layout_of(w, parameter.grad), *(rule.state[name] for name in states))]

    def update(block):
        arrays = [view[block] for view in views]
        step(*arrays, np.empty_like(arrays[0]))
    for_each_block(update, w.size)


@replaces(adam.AdamRule, 'update_core_cpu')
def adam_update(rule, parameter):
    hp = rule.hyperparam
    if hp.amsgrad or hp.adabound or not is_covered(parameter):
        return NotImplemented
    rule._check_eps(parameter.dtype.type)
    beta1, beta2, eps, eta = hp.beta1, hp.beta2, hp.eps, hp.eta
    alpha = float(rule.alpha_t) * eta
    kept = 1 - eta * hp.weight_decay_rate

    def step(w, g, m, v, t):
        np.subtract(g, m, out=t)
        t *= 1 - beta1
        m += t
        np.multiply(g, g, out=t)
        t -= v
        t *= 1 - beta2
        v += t
        np.sqrt(v, out=t)
        t += eps
        np.divide(m, t, out=t)
        t *= alpha
        if kept != 1:
            w *= kept
        w -= t
    update_in_blocks(rule, parameter, ('m', 'v'), step)


@replaces(momentum_sgd.MomentumSGDRule, 'update_core_cpu')
def momentum_update(rule, parameter):
    if not is_covered(parameter):
        return NotImplemented
    lr, momentum = float(rule.hyperparam.lr), float(rule.hyperparam.momentum)

    def step(w, g, v, t):
        v *= momentum
        np.multiply(g, lr, out=t)
        v -= t
        w += v
    update_in_blocks(rule, parameter, ('v',), step)


@replaces(nesterov_ag.NesterovAGRule, 'update_core_cpu')
def nesterov_update(rule, parameter):
    if not is_covered(parameter):
        return NotImplemented
    lr, momentum = float(rule.hyperparam.lr), float(rule.hyperparam.momentum)

    def step(w, g, v, t):
        np.multiply(g, lr, out=t)
        v *= momentum
        v -= t
        w -= t
        np.multiply(v, momentum, out=t)
        w += t
    update_in_blocks(rule, parameter, ('v',), step)
