"""Batch normalization fused with what follows it: a ReLU, or the sum with a residual and a ReLU.

Inside a link, Chainer's batch normalization waits for the next function.  If that is its ReLU, one
node of the graph computes both, in one pass over the feature maps.  If it is its sum with a
residual of the same shape, the sum waits in its place.  Before any other function, as soon as the
variable is looked at, and when the outermost link returns, what waits is computed by Chainer's own
functions.  So running statistics are updated in Chainer's order and exactly once, whether the value
is used twice or never; that is seen once the next function has been applied.

A variable that is looked at after it has been fused is computed by itself, and the gradient through
the fused node does not reach it, only its input.
"""
import threading
import weakref

import chainer
from chainer.functions.activation import relu
from chainer.functions.math import basic_math
from chainer.functions.normalization import batch_normalization

from engine.backends import backend
from engine.functions import is_per_channel, is_unobserved
from engine.layout import from_rows, to_rows
from engine.seam import wraps_stock

apply_stock = chainer.FunctionNode.apply


class State(threading.local):
    """What waits in a thread, and whether anything may: None outside of all links."""

    waiting = None
    in_link = None

    def compute(self):
        if self.waiting is not None:
            self.waiting.compute()


STATE = State()


class Deferred(chainer.Variable):
    """A variable whose value is computed when it is looked at; then it is an ordinary one.

    Args:
        function (chainer.FunctionNode): Batch normalization, or its sum with a residual.
        inputs (tuple): Those of the function.
        summands (tuple): What is added, if it is a sum: the batch normalization, deferred too, and
            the residual.
    """

    def __init__(self, function, inputs, *summands):
        self.deferred = function, inputs, chainer.config.enable_backprop
        self.summands = summands

    def compute(self):
        if STATE.waiting is self:
            STATE.waiting = None
        function, inputs, enable_backprop = self.deferred
        with chainer.using_config('enable_backprop', enable_backprop):
            y, = apply_stock(function, inputs)
        del self.deferred, self.summands
        vars(self).update({**vars(y), **vars(self)})
        self._node._variable = weakref.ref(self)
        self.__class__ = chainer.Variable

    def __getattr__(self, name):  # of everything that Variable.__init__ would have set
        self.compute()
        return getattr(self, name)

    def __copy__(self):
        self.compute()
        return self.__copy__()


@wraps_stock(chainer.Link, '__call__')
def call(stock, link, *args, **kwargs):
    outer = STATE.in_link
    hooks = chainer._get_link_hooks() or link._n_local_link_hooks
    STATE.in_link = outer is not False and not hooks
    try:
        return stock(link, *args, **kwargs)
    finally:
        STATE.in_link = outer
        if outer is None:
            STATE.compute()


@wraps_stock(chainer.FunctionNode, 'apply')
def apply(stock, node, inputs):
    waiting = STATE.waiting
    if waiting is not None and follows(node, inputs, waiting):
        STATE.waiting = None
        if type(node) is relu.ReLU:
            return fuse(*(waiting.summands or (waiting,)))
        STATE.waiting = Deferred(node, inputs, waiting, other(waiting, inputs))
        return STATE.waiting,
    STATE.compute()
    if STATE.in_link and is_unobserved() and is_covered(node, inputs):
        STATE.waiting = Deferred(node, inputs)
        return STATE.waiting,
    return stock(node, inputs)


def is_covered(node, inputs):
    """Whether a function is a batch normalization per channel that a backend computes."""
    if type(node) is batch_normalization.BatchNormalization:
        running = [a for a in (node.running_mean, node.running_var) if a is not None]
    elif (type(node) is batch_normalization.FixedBatchNormalization
          and not chainer.config.enable_backprop):
        running = []
    else:
        return False
    arrays = [*map(plain_array, inputs), *running]
    if any(a is None for a in arrays):
        return False
    x, *per_channel = arrays
    axis = batch_normalization._compute_axis(x.ndim, 1, node.axis)
    return (is_per_channel(x, axis) and all(a.shape == x.shape[1:2] for a in per_channel)
            and x.size > x.shape[1]  # Chainer warns about a single row
            and backend(x, per_channel=per_channel) is not None)


def plain_array(x):
    """The array of a variable, or the array itself; None where Chainer stores it in its own way."""
    return chainer.as_array(x) if getattr(x, 'layout', None) is None else None


def follows(node, inputs, waiting):
    """Whether a function is the ReLU of what waits, or the sum of that and a residual."""
    normalization = (waiting.summands or (waiting,))[0]
    if type(normalization) is not Deferred or not is_unobserved():
        return False
    _, (x, *_), enable_backprop = normalization.deferred
    if chainer.config.enable_backprop != enable_backprop:
        return False
    if type(node) is not basic_math.Add:
        return type(node) is relu.ReLU and inputs[0] is waiting
    if waiting.summands or sum(v is waiting for v in inputs) != 1:
        return False
    residual = plain_array(other(waiting, inputs))
    x = chainer.as_array(x)
    return (residual is not None and residual.shape == x.shape
            and backend(x, residual) is not None)


def other(one, pair):
    """The one of two inputs that is not the given one."""
    return pair[pair[0] is one]


def fuse(normalization, *residual):
    """The ReLU of a deferred batch normalization, plus the residual, if any: outputs as a tuple."""
    function, inputs, _ = normalization.deferred
    return apply_stock(RectifiedNormalization(function, len(residual)), (*inputs, *residual))


class RectifiedNormalization(chainer.FunctionNode):
    """relu(h + residual) or relu(h) for a batch normalization h, whose statistics are Chainer's.

    Its inputs are those of the batch normalization, and the residual.  With fixed statistics there
    is no gradient.

    Args:
        normalization (chainer.FunctionNode): Chainer's function.
        n_residuals (int): 1 or 0.
    """

    def __init__(self, normalization, n_residuals):
        self.normalization = normalization
        self.n_residuals = n_residuals

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        self.retain_outputs((0,))
        x, gamma, beta, *others = inputs
        ops = backend(x).normalization
        residual = to_rows(others.pop()) if self.n_residuals else None
        bn = self.normalization
        if others:
            mean, var = others
            y = ops.normalize(to_rows(x), mean, ops.inverse_deviation(var, bn.eps), gamma, beta,
                              residual, relu=True)
        else:
            running = () if bn.running_mean is None else (bn.running_mean, bn.running_var)
            y, self.mean, self.inv_std = ops.forward(
                to_rows(x), gamma, beta, bn.eps, bn.decay, *running, residual=residual, relu=True)
            bn.running_mean = bn.running_var = None  # they have been updated, if it is used again
        return from_rows(y, x.shape),

    def backward(self, indexes, grad_outputs):
        x, gamma = self.get_retained_inputs()
        y, = self.get_retained_outputs()
        gy, = grad_outputs
        if chainer.config.enable_backprop:  # gradients of these gradients are wanted
            gh, = relu.ReLUGrad2(y.array).apply((gy,))
            gradients = self.normalization_gradient(x).apply((x, gamma, gh))
            return (*gradients, gh)[:len(self.inputs)]
        *gradients, gh = backend(x.array).normalization.gradients(
            *map(to_rows, (x.array, gy.array)), self.mean, self.inv_std, gamma.array,
            to_rows(y.array), residual=self.n_residuals > 0)
        gx, ggamma, gbeta = gradients
        gradients = [from_rows(gx, x.shape), ggamma, gbeta]
        if self.n_residuals:
            gradients.append(from_rows(gh, x.shape))
        return tuple(map(chainer.Variable, gradients))

    def normalization_gradient(self, x):
        """Chainer's function that gives the gradients of x, gamma and beta."""
        axis = batch_normalization._compute_axis(x.ndim, 1, self.normalization.axis)
        key_axis = batch_normalization._compute_key_axis(x.ndim, 1, axis)
        expander = tuple(slice(None) if i in key_axis else None for i in range(x.ndim))
        return batch_normalization.BatchNormalizationGrad(
            self.normalization.eps, expander, axis, self.mean, None, self.inv_std, key_axis,
            batch_normalization.GeneralBatchNormalizationImpl(), None)
