"""Chainer's functions that the engine computes, and the cases that it covers.

Each replacement returns ``NotImplemented``, and so leaves to Chainer's own, what it does not cover:
arrays without a backend, dilation, groups, other axes.  What Chainer's own keeps on the node for
its gradients, it keeps too.
"""
import chainer
from chainer.functions.activation import relu
from chainer.functions.array import permutate
from chainer.functions.connection import convolution_2d, deconvolution_2d, linear
from chainer.functions.loss import softmax_cross_entropy
from chainer.functions.math import basic_math, sum as sum_
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import average_pooling_2d, max_pooling_nd

from engine.backends import backend
from engine.layout import (
    as_pixels,
    from_rows,
    is_channels_last,
    pixel_rows,
    share_one_layout,
    to_nchw,
    to_nhwc,
    to_rows,
)
from engine.seam import replaces


def is_unobserved():
    """Whether nobody would notice that functions are not applied one by one."""
    return not (chainer.get_function_hooks() or chainer.is_debug() or chainer.config.schedule_func)


# Convolution: the three functions of which Chainer makes its gradients of any order

def is_plain(node):
    return node.dy == node.dx == node.groups == 1 and not node.cover_all


def geometry(node):
    return (node.sy, node.sx), (node.ph, node.pw)


@replaces(convolution_2d.Convolution2DFunction, '_forward_cpu_core', '_forward_gpu_core')
def convolve(node, x, W, b):
    ops = backend(x, W)
    if not (ops and is_plain(node)):
        return NotImplemented
    node._get_out_size(x.shape, W.shape)  # raises where the output would be empty
    y = ops.convolution.forward(to_nhwc(x), to_nhwc(W), *geometry(node))
    if b is not None:
        y += b
    return to_nchw(y),


@replaces(convolution_2d.Convolution2DGradW, '_forward_cpu_core', '_forward_gpu_core')
def convolution_weight_gradient(node, x, gy):
    ops = backend(x, gy)
    if not (ops and is_plain(node)):
        return NotImplemented
    out, channels, kh, kw = node.W_shape
    gW = ops.convolution.weight_gradient(
        to_nhwc(x), to_nhwc(gy), (out, kh, kw, channels), *geometry(node))
    return to_nchw(gW).astype(node.W_dtype, copy=False),


@replaces(deconvolution_2d.Deconvolution2DFunction, '_forward_cpu_core', '_forward_gpu_core')
def convolution_input_gradient(node, gy, W, b):
    ops = backend(gy, W)
    if not (ops and is_plain(node)):
        return NotImplemented
    gx = ops.convolution.input_gradient(
        to_nhwc(gy), to_nhwc(W), (len(gy), node.outh, node.outw, W.shape[1]), *geometry(node))
    if b is not None:
        gx += b
    return to_nchw(gx),


@replaces(convolution_2d.Convolution2DFunction, 'backward_accumulate')
def convolution_gradients(node, indexes, grad_outputs, grad_inputs):
    """All gradients at once, that of x plus what it has from other functions already."""
    x, W = node.get_retained_inputs()
    gy, = grad_outputs
    before = dict(zip(indexes, grad_inputs))
    onto = before.get(0)
    arrays = [v.array for v in (x, W, gy, onto) if v is not None]
    ops = backend(*arrays)
    if not (ops and is_plain(node) and is_unobserved() and not chainer.config.enable_backprop):
        return NotImplemented
    x, W, gy, *onto = map(to_nhwc, arrays)
    gradients = {}
    if 0 in indexes:
        gradients[0] = to_nchw(ops.convolution.input_gradient(
            gy, W, x.shape, *geometry(node), *onto))
    if 1 in indexes:
        gradients[1] = to_nchw(ops.convolution.weight_gradient(x, gy, W.shape, *geometry(node)))
    if 2 in indexes:
        gradients[2] = ops.normalization.channel_sum(pixel_rows(gy))
    gradients = {i: chainer.Variable(g) for i, g in gradients.items()}
    return tuple(g if i == 0 or before[i] is None else g + before[i]
                 for i, g in gradients.items())


# Batch normalization over all axes but the channels: forward, with fixed statistics, backward

BATCH_NORMALIZATION = batch_normalization.GeneralBatchNormalizationImpl


def is_per_channel(x, axis):
    return (x.ndim, axis) in ((2, (0,)), (4, (0, 2, 3)))


@replaces(BATCH_NORMALIZATION, 'forward')
def normalize_batch(impl, *, axis, gamma, x, x_layout, beta, eps, decay, running_mean, running_var,
                    **_):
    running = () if running_mean is None else (running_mean, running_var)
    ops = backend(x, per_channel=(gamma, beta, *running))
    if not (ops and is_per_channel(x, axis)):
        return NotImplemented
    y, mean, inv_std = ops.normalization.forward(to_rows(x), gamma, beta, eps, decay, *running)
    var = None  # only iDeep reads it
    return (from_rows(y, x.shape), x_layout, running_mean, running_var, mean, var, inv_std, None)


@replaces(batch_normalization, '_apply_bn_fwd')
def normalize(xp, x, mean, inv_std, gamma, beta):
    parameters = mean, inv_std, gamma, beta  # each expanded to broadcast with x
    ops = backend(x, per_channel=parameters)
    if not (ops and x.ndim in (2, 4) and all(
            p.ndim == x.ndim and p.size == p.shape[1] == x.shape[1] for p in parameters)):
        return NotImplemented
    y = ops.normalization.normalize(to_rows(x), *(p.ravel() for p in parameters))
    return from_rows(y, x.shape)


@replaces(BATCH_NORMALIZATION, 'backward')
def normalization_gradients(impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, *_):
    ops = backend(x, gy, per_channel=(gamma,))
    if not (ops and is_per_channel(x, axis)):
        return NotImplemented
    gx, ggamma, gbeta, _ = ops.normalization.gradients(
        to_rows(x), to_rows(gy), mean, inv_std, gamma)
    return from_rows(gx, x.shape), x_layout, ggamma, gbeta


# Linear: the 1x1 convolution of images of one pixel

POINTWISE = (1, 1), (0, 0)  # stride and pad


@replaces(linear.LinearFunction, 'forward')
def apply_linear(node, inputs):
    ops = backend(*inputs)
    if not ops:
        return NotImplemented
    keep_inputs(node)
    x, W, *b = inputs
    y = ops.convolution.forward(as_pixels(x), as_pixels(W), *POINTWISE).reshape(len(x), -1)
    for bias in b:
        y += bias
    return y,


@replaces(linear.LinearGradData, 'forward')
def linear_input_gradient(node, inputs):
    ops = backend(*inputs)
    if not ops:
        return NotImplemented
    keep_inputs(node)
    W, gy = map(as_pixels, inputs)
    gx = ops.convolution.input_gradient(gy, W, (len(gy), 1, 1, W.shape[-1]), *POINTWISE)
    return gx.reshape(len(gy), -1),


@replaces(linear.LinearGradWeight, 'forward')
def linear_weight_gradient(node, inputs):
    ops = backend(*inputs)
    if not (ops and inputs[0].dtype == node._w_dtype):
        return NotImplemented
    keep_inputs(node)
    x, gy = map(as_pixels, inputs)
    shape = gy.shape[-1], 1, 1, x.shape[-1]
    return ops.convolution.weight_gradient(x, gy, shape, *POINTWISE).reshape(shape[0], -1),


def keep_inputs(node):
    node.retain_inputs((0, 1))
    node._config_use_ideep = chainer.config.use_ideep


@replaces(sum_.Sum, 'forward')
def sum_per_channel(node, inputs):
    """The sum over all axes but the channels: the gradient of a convolution's bias."""
    x, = inputs
    ops = backend(x)
    if not (ops and node.axis == (0, 2, 3) and not node.keepdims and is_channels_last(x)):
        return NotImplemented
    return ops.normalization.channel_sum(to_rows(x)),


# Pooling: maxima without padding, and means over whole feature maps

@replaces(max_pooling_nd.MaxPoolingND, 'forward_cpu', 'forward_gpu')
def max_pooling(node, inputs):
    x, = inputs
    ops = backend(x)
    if not (ops and is_channels_last(x) and node.pad == (0, 0)):
        return NotImplemented
    y, indexes = ops.pooling.maximum(to_nhwc(x), node.ksize, node.stride, node.cover_all)
    node._in_shape, node._in_dtype = x.shape, x.dtype
    node.indexes = to_nchw(indexes)
    return to_nchw(y),


@replaces(max_pooling_nd.MaxPoolingNDGrad, 'forward_cpu', 'forward_gpu')
def max_pooling_gradient(node, inputs):
    gy, = inputs
    ops = backend(gy)
    pool = node.func
    if not (ops and is_channels_last(pool.indexes) and pool.pad == (0, 0)):
        return NotImplemented
    n, c, h, w = pool._in_shape
    return to_nchw(ops.pooling.maximum_gradient(
        to_nhwc(gy), to_nhwc(pool.indexes), (n, h, w, c), pool.ksize, pool.stride)),


def is_global(node, x_shape):
    return x_shape[2:] == (node.kh, node.kw) and (node.ph, node.pw) == (0, 0)


@replaces(average_pooling_2d.AveragePooling2D, 'forward_cpu', 'forward_gpu')
def global_average_pooling(node, inputs):
    x, = inputs
    ops = backend(x)
    if not (ops and is_global(node, x.shape)):
        return NotImplemented
    node._in_shape, node._in_dtype = x.shape, x.dtype
    return to_nchw(ops.pooling.average(to_nhwc(x))),


@replaces(average_pooling_2d.AveragePooling2DGrad, 'forward_cpu', 'forward_gpu')
def global_average_pooling_gradient(node, inputs):
    gy, = inputs
    ops = backend(gy)
    if not (ops and is_global(node, node._in_shape)):
        return NotImplemented
    n, c, h, w = node._in_shape
    return to_nchw(ops.pooling.average_gradient(to_nhwc(gy), (n, h, w, c))),


# Loss

@replaces(softmax_cross_entropy.SoftmaxCrossEntropy, 'forward_gpu')
def cross_entropy(node, inputs):
    x, t = inputs
    ops = backend(x)
    is_mean = node.reduce == 'mean'
    if not (ops and ops.loss and x.ndim == 2 and t.dtype.char == 'i' and t.ndim == 1
            and (node.normalize or not is_mean) and node.class_weight is None
            and not chainer.is_debug()):
        return NotImplemented
    node.retain_inputs((0, 1))
    xp = chainer.backend.get_array_module(x)
    y, node.y, node._coeff = ops.loss.softmax_cross_entropy(
        xp.ascontiguousarray(x), xp.ascontiguousarray(t), node.ignore_label, is_mean)
    return y,


@replaces(softmax_cross_entropy._SoftmaxCrossEntropyGrad_NoDoubleBackprop, 'forward_gpu')
def cross_entropy_gradient(node, inputs):
    x, t, gloss = inputs
    ops = backend(x, gloss)
    if not (ops and ops.loss and x.ndim == 2 and t.dtype.char == 'i' and t.ndim == 1
            and node.class_weight is None and node.y is not None and node.y.dtype.char == 'f'):
        return NotImplemented
    xp = chainer.backend.get_array_module(x)
    return ops.loss.softmax_cross_entropy_gradient(
        xp.ascontiguousarray(node.y), xp.ascontiguousarray(t), xp.ascontiguousarray(gloss),
        node.coeff, node.ignore_label),


# Elementwise functions keep the layout of their inputs

@replaces(relu.ReLU, 'forward_cpu', 'forward_gpu')
def rectify(node, inputs):
    ops = backend(*inputs)
    if not (ops and share_one_layout(*inputs)):
        return NotImplemented
    node.retain_outputs((0,))
    return ops.activation.relu(*inputs),


@replaces(relu.ReLUGrad2, 'forward_cpu', 'forward_gpu')
def rectifier_gradient(node, inputs):
    ops = backend(node.b, *inputs)
    if not (ops and share_one_layout(node.b, *inputs)):
        return NotImplemented
    return ops.activation.relu_gradient(node.b, *inputs),


@replaces(basic_math.Add, 'forward')
def add(node, inputs):
    ops = backend(*inputs)
    if not (ops and len(inputs) == 2 and share_one_layout(*inputs)):
        return NotImplemented
    return ops.activation.add(*inputs),


@replaces(basic_math.Mul, 'forward')
def multiply(node, inputs):
    """An array by one factor, or by one for each example, such as lam."""
    ops = backend(*inputs)
    x, factors = inputs if is_factors(*inputs) else inputs[::-1]
    if not (ops and ops.scale and is_factors(x, factors) and share_one_layout(x)):
        return NotImplemented
    node.retain_inputs((0, 1))
    return ops.scale(x, factors),


def is_factors(x, factors):
    """Whether the product with ``x`` has its shape and one factor for all or for each example."""
    return (factors.ndim <= x.ndim and factors.flags.c_contiguous
            and (factors.size == 1
                 or x.ndim == factors.ndim and factors.size == len(factors) == len(x)))


@replaces(permutate.Permutate, '_permutate')
def permute(node, x, indices, inv):
    if not (backend(x) and node.axis == 0 and is_channels_last(x)):
        return NotImplemented
    if inv:
        indices = permutate._inverse_indices(indices)
    return to_nchw(to_nhwc(x)[indices])
