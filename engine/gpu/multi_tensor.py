"""The update of all parameters on a GPU by one kernel.

Chainer updates one parameter after another.  Here one replaced ``update`` gathers what the update
rules need into tensor lists, as apex and PyTorch's foreach optimizers do, and one kernel goes
through each list: division by the loss scale, weight decay, the step itself and, under mixed16, the
rounding of the float32 master weights to the float16 ones.
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
from engine.master_weights import master_weights
from engine.seam import replaces


@replaces(optimizer.GradientMethod, 'update')
def update(method, /, lossfun=None, *args, **kwds):
    """Do what ``GradientMethod.update`` does, in its order, with all parameters at once."""
    if not covers(method):
        return NotImplemented
    if lossfun is not None:
        loss = lossfun(*args, **kwds)
        if getattr(method, '_use_cleargrads', True):
            method.target.cleargrads()
        else:
            method.target.zerograds()
        loss.backward(loss_scale=method._loss_scale)
        del loss  # and with it the memory of the graph
    method.reallocate_cleared_grads()

    parameters = trained(method)
    optimizers = backend(parameters[0].array).optimizers
    with chainer.using_device(parameters[0].device):
        found_inf = check_gradients(method, parameters, optimizers)
        method.t += 1
        if method.is_safe_to_update():
            for (kernel, _), (rule, tensors) in tensor_lists(method, parameters).items():
                optimizers.update(
                    kernel, tensors, functools.partial(factors, method, rule), found_inf)
    method.update_loss_scale()


def covers(method):
    """Whether one kernel can do what an optimizer, its update rules and their hooks do.

    It can for initialized parameters on one GPU without hooks other than weight decay.
    """
    if method.target is None or not only_decays(method):
        return False
    parameters = trained(method)
    return len({p.device for p in parameters}) == 1 and all(
        p.array is not None and is_covered(p.update_rule, p.array, method) for p in parameters)


def trained(method):
    """The parameters that an optimizer changes: a list of chainer.Parameter."""
    return [p for p in method.target.params()
            if p.update_rule is not None and p.update_rule.enabled]


def is_covered(rule, array, method):
    ops, hp = backend(array), rule.hyperparam
    return (type(rule) in RULES and has_known_layout(array)
            and ops is not None and ops.optimizers is not None
            and (array.dtype.char == 'f' or rule._use_fp32_update) and only_decays(rule)
            and vars(hp) == {'_parent': method.hyperparam}  # no values of its own
            and not getattr(hp, 'amsgrad', False) and not getattr(hp, 'adabound', False))


def only_decays(owner):
    """Whether an optimizer or an update rule has no hooks but weight decay before the update."""
    return not hooks(owner, 'post') and all(
        type(hook) is weight_decay.WeightDecay for hook in hooks(owner, 'pre'))


def hooks(owner, timing):
    return list(getattr(owner._hookable, f'_{timing}_update_hooks').values())


def weight_decay_of(owner):
    """The sum of the rates of the weight decays that an optimizer or an update rule has."""
    return sum(hook.rate for hook in hooks(owner, 'pre'))


def check_gradients(method, parameters, optimizers):
    """Look for infinite and NaN gradients where the loss scale is dynamic.

    Chainer asks the GPU about one parameter after another.  A step that is being recorded cannot
    ask at all: its update reads the answer on the GPU, and the host learns it after each replay.

    Returns:
        An int32 array of shape () on the GPU, not 0 where one has been found; None where nobody
        looks.
    """
    if not method._loss_scaling_is_dynamic:
        method.check_nan_in_grads()  # notes that there are none
        return None
    found_inf = optimizers.found_inf([with_layout_of(p.array, p.grad) for p in parameters])
    recording = graph_inputs.recording
    if recording:
        recording.found_inf = found_inf
    note_found_inf(method, not recording and bool(found_inf))
    return found_inf


def note_found_inf(method, found_inf):
    """Set what Chainer's ``is_safe_to_update`` and ``update_loss_scale`` read.

    Args:
        method (chainer.GradientMethod): An optimizer with dynamic loss scaling.
        found_inf (bool): Whether a gradient of its current step is infinite or NaN.
    """
    method._loss_scaling_isnan = found_inf
    method._loss_scaling_isnan_ever |= found_inf


def tensor_lists(method, parameters):
    """Count one more update of each parameter, and list what the kernels read and write.

    Returns:
        dict: By the name of the kernel and the number of the update, an update rule that stands
        for all in the list, and the list as ``optimizers.update`` takes it.
    """
    lists, decay = {}, weight_decay_of(method)
    for parameter in parameters:
        rule = parameter.update_rule
        rule.t += 1
        kernel, states, _ = RULES[type(rule)]
        master = master_weights(parameter)
        rule._init_states(master)
        w = master.array
        for name in states:  # read from a snapshot they have another layout than the parameter
            rule.state[name] = with_layout_of(w, rule.state[name])
        _, tensors = lists.setdefault((kernel, rule.t), (rule, []))
        tensors.append((w, None if master is parameter else parameter.array,
                        with_layout_of(parameter.array, parameter.grad),
                        [rule.state[name] for name in states],
                        decay + weight_decay_of(rule)))
    return lists


def factors(method, rule):
    """What may differ from step to step: 1 / loss scale, then what the kernel of the rule reads."""
    return 1 / (method._loss_scale or 1), *RULES[type(rule)][2](rule)


def adam_factors(rule):
    hp = rule.hyperparam
    rule._check_eps(np.float32)
    return (rule.alpha_t * hp.eta, 1 - hp.beta1, 1 - hp.beta2, hp.eps,
            hp.eta * hp.weight_decay_rate)


def momentum_factors(rule):
    return rule.hyperparam.lr, rule.hyperparam.momentum


# For each type of update rule: its kernel, its states, and the function that gives its factors.
RULES = {
    adam.AdamRule: ('adam', ('m', 'v'), adam_factors),
    momentum_sgd.MomentumSGDRule: ('momentum_sgd', ('v',), momentum_factors),
    nesterov_ag.NesterovAGRule: ('nesterov_ag', ('v',), momentum_factors)}
