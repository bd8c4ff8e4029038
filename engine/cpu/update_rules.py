"""Optimizer updates in blocks."""
import numpy as np
from chainer.optimizers import adam, momentum_sgd, nesterov_ag

from engine.cpu.blocks import each_block, flat
from engine.layout import laid_out_as
from engine.seam import replaces


def update(rule, parameter, states, step):
    """``step(parameter, gradient, *states, scratch)`` for each block.

    False, and nothing done, where the parameter has gaps in its memory or another dtype than
    float32 and float64.
    """
    w = parameter.data
    if w.dtype.char not in 'fd' or flat(w) is None:
        return False
    for name in states:  # as read from a snapshot they lie otherwise than the parameter
        rule.state[name] = laid_out_as(w, rule.state[name])
    views = [flat(array) for array in (
        w, laid_out_as(w, parameter.grad), *(rule.state[name] for name in states))]

    def part(block):
        arrays = [view[block] for view in views]
        step(*arrays, np.empty_like(arrays[0]))
    each_block(part, w.size)
    return True


@replaces(adam.AdamRule, 'update_core_cpu')
def adam_update(stock, rule, parameter):
    hp = rule.hyperparam
    if parameter.grad is None or hp.amsgrad or hp.adabound:
        return stock(rule, parameter)
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
    if not update(rule, parameter, ('m', 'v'), step):
        stock(rule, parameter)


@replaces(momentum_sgd.MomentumSGDRule, 'update_core_cpu')
def momentum_update(stock, rule, parameter):
    lr, momentum = float(rule.hyperparam.lr), float(rule.hyperparam.momentum)

    def step(w, g, v, t):
        v *= momentum
        np.multiply(g, lr, out=t)
        v -= t
        w += v
    if parameter.grad is not None and not update(rule, parameter, ('v',), step):
        stock(rule, parameter)


@replaces(nesterov_ag.NesterovAGRule, 'update_core_cpu')
def nesterov_update(stock, rule, parameter):
    lr, momentum = float(rule.hyperparam.lr), float(rule.hyperparam.momentum)

    def step(w, g, v, t):
        np.multiply(g, lr, out=t)
        v *= momentum
        v -= t
        w -= t
        np.multiply(v, momentum, out=t)
        w += t
    if parameter.grad is not None and not update(rule, parameter, ('v',), step):
        stock(rule, parameter)
