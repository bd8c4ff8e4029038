"""Batch normalization, a sum and ReLU in one node, for the blocks of Chainer's ResNets.

One pass over the maps then does what takes one for each of the three.
"""
import chainer
from chainer import links as L
from chainer.functions.activation.relu import ReLUGrad2, relu
from chainer.functions.normalization import batch_normalization
from chainer.links.model.vision import resnet

from engine.backends import backend
from engine.layout import from_rows, to_rows
from engine.seam import replaces


@replaces(resnet.BottleneckA, 'forward')
def bottleneck_with_projection(stock, block, x):
    h = rectified(block.bn1, block.conv1(x))
    h = rectified(block.bn2, block.conv2(h))
    return rectified(block.bn3, block.conv3(h), block.bn4(block.conv4(x)))


@replaces(resnet.BottleneckB, 'forward')
def bottleneck(stock, block, x):
    h = rectified(block.bn1, block.conv1(x))
    h = rectified(block.bn2, block.conv2(h))
    return rectified(block.bn3, block.conv3(h), x)


def rectified(bn, x, *residual):
    """relu(bn(x)), or relu(bn(x) + residual); one node where that is possible."""
    if is_plain(bn):
        inputs = [chainer.as_variable(v) for v in (x, bn.gamma, bn.beta, *residual)]
        if can_fuse(*inputs):
            y, = BatchNormalizationReLU(bn).apply(inputs)
            return y
    h = bn(x)
    for r in residual:
        h += r
    return relu(h)


def is_plain(bn):
    """Whether all that its link does is Chainer's batch normalization of maps."""
    return (type(bn) is L.BatchNormalization and bn.axis is None and bn.avg_mean is not None
            and bn.gamma is not None and bn.beta is not None
            and not bn.local_link_hooks and not chainer._get_link_hooks())


def can_fuse(x, gamma, beta, *residual):
    config = chainer.config
    return (backend(*(v.array for v in (x, gamma, beta, *residual))) is not None
            and x.ndim == 4 and x.size > x.shape[1] == gamma.size
            and all(r.shape == x.shape for r in residual)
            and (config.train or not config.enable_backprop))


class BatchNormalizationReLU(chainer.FunctionNode):
    """relu(bn(x) + residual) of maps (N, C, H, W).

    Its inputs are x, gamma, beta and, where there is one, residual.  Statistics, the running ones
    as well, are those of Chainer's ``BatchNormalization``; by ``chainer.config.train`` the running
    ones are used instead, then without a gradient.

    Args:
        bn (L.BatchNormalization): The link.
    """

    def __init__(self, bn):
        self.eps, self.decay = bn.eps, bn.decay
        self.running_mean, self.running_var = bn.avg_mean, bn.avg_var

    def forward(self, inputs):
        x, gamma, beta, *residual = inputs
        self.retain_inputs((0, 1))
        self.retain_outputs((0,))
        xp = chainer.backend.get_array_module(x)
        ops = backend(x)
        rows = to_rows(x)
        if chainer.config.train:
            mean, var = ops.normalization.mean_and_variance(rows)
            if not chainer.config.in_recomputing:
                self.update_running_statistics(mean, var, len(rows))
        else:
            mean, var = self.running_mean, self.running_var
        self.mean, self.inv_std = mean, xp.reciprocal(xp.sqrt(var + self.eps))
        y = ops.normalization.normalize(
            rows, self.mean, self.inv_std, gamma, beta, *map(to_rows, residual), relu=True)
        return from_rows(y, x.shape),

    def update_running_statistics(self, mean, var, m):
        self.running_mean *= self.decay
        self.running_mean += (1 - self.decay) * mean
        self.running_var *= self.decay
        self.running_var += (1 - self.decay) * (m / max(m - 1., 1.)) * var  # unbiased

    def backward(self, indexes, grad_outputs):
        x, gamma = self.get_retained_inputs()
        y, = self.get_retained_outputs()
        gy, = grad_outputs
        has_residual = len(self.inputs) == 4
        if chainer.config.enable_backprop:  # for gradients of these gradients
            gh, = ReLUGrad2(y.array).apply((gy,))
            gradients = batch_normalization.BatchNormalizationGrad(
                self.eps, (None, slice(None), None, None), (0, 2, 3), self.mean, None,
                self.inv_std, (1,), batch_normalization.GeneralBatchNormalizationImpl(), None
            ).apply((x, gamma, gh))
            return (*gradients, gh) if has_residual else gradients

        ops = backend(x.array, gamma.array, gy.array, y.array)
        gx, ggamma, gbeta, gh = ops.normalization.gradients(
            to_rows(x.array), to_rows(gy.array), self.mean, self.inv_std, gamma.array,
            to_rows(y.array), has_residual)
        maps = [from_rows(rows, x.shape) for rows in (gx, gh)[:1 + has_residual]]
        return tuple(map(chainer.Variable, (maps[0], ggamma, gbeta, *maps[1:])))
