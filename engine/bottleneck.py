"""The bottleneck blocks of Chainer's ResNets, each as one node of the graph.

Inside it batch normalization, sum and ReLU are one pass over the feature maps, and the gradient
through the convolutions is added in place to the one through the residual.
"""
import chainer
import chainer.functions as F
from chainer import links as L
from chainer.links.model.vision import resnet

from engine.backends import backend
from engine.layout import pixel_rows, to_nchw, to_nhwc
from engine.seam import replaces


@replaces(resnet.BottleneckA, 'forward')
@replaces(resnet.BottleneckB, 'forward')
def bottleneck(block, x):
    links = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    if isinstance(block, resnet.BottleneckA):
        links.append((block.conv4, block.bn4))
    if not all(map(is_plain, sum(links, ()))):
        return NotImplemented
    inputs = [chainer.as_variable(v) for v in (
        x, *(v for conv, bn in links for v in (conv.W, bn.gamma, bn.beta)))]
    if not is_covered([v for _, bn in links for v in (bn.avg_mean, bn.avg_var)], *inputs):
        return NotImplemented
    y, = Bottleneck(links).apply(inputs)
    return y


def is_plain(link):
    """Whether a link is plain: Chainer's convolution or batch normalization, and nothing around."""
    if link.local_link_hooks or chainer._get_link_hooks():
        return False
    if type(link) is L.Convolution2D:
        return link.b is None and link.dilate == (1, 1) and link.groups == 1
    return (type(link) is L.BatchNormalization and link.axis is None
            and all(v is not None for v in (link.avg_mean, link.gamma, link.beta)))


def is_covered(running, x, *parameters):
    """Whether a backend computes a bottleneck with these running statistics and variables."""
    config = chainer.config
    return (all(v.array is not None for v in parameters)
            and backend(*(v.array for v in (x, *parameters[::3])), per_channel=(
                *running, *(v.array for v in (*parameters[1::3], *parameters[2::3])))) is not None
            and x.ndim == 4 and x.shape[1] == parameters[0].shape[1]
            and len(x) > 1  # Chainer may warn about a batch of one
            and (config.train or not config.enable_backprop))


class Layer:
    """A convolution, its batch normalization, and a sum and a ReLU where they are asked for.

    Feature maps are (N, H, W, C) arrays; W has Chainer's shape, (O, C, kh, kw).
    """

    def __init__(self, conv, bn):
        self.stride, self.pad = conv.stride, conv.pad
        self.eps, self.decay = bn.eps, bn.decay
        self.running_mean, self.running_var = bn.avg_mean, bn.avg_var

    def forward(self, ops, x, W, gamma, beta, residual=None, relu=True):
        """The output, for which :meth:`backward` then gives the gradients."""
        self.ops, self.x, self.W, self.gamma = ops, x, to_nhwc(W), gamma
        self.h = ops.convolution.forward(x, self.W, self.stride, self.pad)
        residual = None if residual is None else pixel_rows(residual)
        normalization = ops.normalization
        if chainer.config.train:
            running = () if chainer.config.in_recomputing else (
                self.running_mean, self.running_var)
            y, self.mean, self.inv_std = normalization.forward(
                pixel_rows(self.h), gamma, beta, self.eps, self.decay, *running, residual=residual,
                relu=relu)
        else:
            y = normalization.normalize(
                pixel_rows(self.h), self.running_mean,
                normalization.inverse_deviation(self.running_var, self.eps), gamma, beta, residual,
                relu)
        y = y.reshape(self.h.shape)
        self.y = y if relu else None
        return y

    def backward(self, gy, residual=False, onto=None):
        """The gradients for the gradient gy of the output.

        Args:
            residual (bool): Whether that of the residual is wanted.
            onto: An array to which the gradient of x is added, in place where that is possible.

        Returns:
            tuple: The gradient of x; those of W, gamma and beta as a tuple; that of the residual,
            or None.
        """
        gh, ggamma, gbeta, gr = self.ops.normalization.gradients(
            pixel_rows(self.h), pixel_rows(gy), self.mean, self.inv_std, self.gamma,
            None if self.y is None else pixel_rows(self.y), residual)
        gh = gh.reshape(self.h.shape)
        conv = self.ops.convolution
        gW = conv.weight_gradient(self.x, gh, self.W.shape, self.stride, self.pad)
        gx = conv.input_gradient(gh, self.W, self.x.shape, self.stride, self.pad, onto)
        return gx, (to_nchw(gW), ggamma, gbeta), gr.reshape(self.h.shape) if residual else None

    def composed(self, x, W, gamma, beta):
        """The convolution and the batch normalization as nodes of Chainer's."""
        h = F.convolution_2d(x, W, stride=self.stride, pad=self.pad)
        return F.batch_normalization(h, gamma, beta, eps=self.eps)


class Bottleneck(chainer.FunctionNode):
    """relu(third(second(first(x))) + residual); the residual is x, or fourth(x).

    Its inputs are x, feature maps (N, C, H, W), followed by W, gamma and beta of each layer.
    Statistics, running ones included, are those of Chainer's ``BatchNormalization``; if
    ``chainer.config.train`` is False the running ones are used, and there is no gradient.

    Args:
        links (list of tuple): A convolution and its batch normalization for each of three or four
            layers.
    """

    def __init__(self, links):
        self.layers = [Layer(*pair) for pair in links]

    def forward(self, inputs):
        self.retain_inputs(tuple(range(len(inputs))))
        x, *parameters = inputs
        ops = backend(x)
        x = to_nhwc(x)
        W = by_layer(parameters)
        first, second, third, *projection = self.layers
        h = second.forward(ops, first.forward(ops, x, *W[0]), *W[1])
        residual = projection[0].forward(ops, x, *W[3], relu=False) if projection else x
        return to_nchw(third.forward(ops, h, *W[2], residual)),

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:  # gradients of these gradients are wanted
            inputs = self.get_retained_inputs()
            return chainer.grad([self.composed(*inputs)], inputs, grad_outputs,
                                enable_double_backprop=True)
        first, second, third, *projection = self.layers
        gh, third_gradients, gx = third.backward(to_nhwc(grad_outputs[0].array), residual=True)
        gh, second_gradients, _ = second.backward(gh)
        fourth_gradients = ()
        if projection:
            gx, fourth_gradients, _ = projection[0].backward(gx)
        gx, first_gradients, _ = first.backward(gh, onto=gx)
        return tuple(map(chainer.Variable, (
            to_nchw(gx), *first_gradients, *second_gradients, *third_gradients,
            *fourth_gradients)))

    def composed(self, x, *parameters):
        """The same as a graph of Chainer's nodes, for gradients of gradients."""
        W = by_layer(parameters)
        first, second, third, *projection = self.layers
        h = F.relu(second.composed(F.relu(first.composed(x, *W[0])), *W[1]))
        residual = projection[0].composed(x, *W[3]) if projection else x
        return F.relu(third.composed(h, *W[2]) + residual)


def by_layer(parameters):
    """The parameters as a list of (W, gamma, beta), one for each layer."""
    return [parameters[i:i + 3] for i in range(0, len(parameters), 3)]
