"""Which of Chainer's functions compute by the engine.

Each replacement is handed Chainer's own as ``stock``, and leaves to it whatever it does not cover:
arrays without a backend, dilation, groups, other axes.  What Chainer's own notes on the node for
its gradients, it notes too.
"""
import chainer
from chainer.functions.activation import relu
from chainer.functions.array import permutate
from chainer.functions.connection import convolution_2d, deconvolution_2d, linear
from chainer.functions.loss import softmax_cross_entropy
from chainer.functions.math import basic_math
from chainer.functions.math import sum as sum_
from chainer.functions.normalization import batch_normalization
from chainer.functions.pooling import average_pooling_2d, max_pooling_nd

from engine.backends import backend
from engine.layout import as_pixels, from_rows, is_channels_last, to_nchw, to_nhwc, to_rows
from engine.seam import replaces


# Convolution: the three functions of which Chainer makes its gradients of any order

def is_plain(node):
    return node.dy == node.dx == node.groups == 1 and not node.cover_all


def geometry(node):
    return (node.sy, node.sx), (node.ph, node.pw)


@replaces(convolution_2d.Convolution2DFunction, '_forward_cpu_core', '_forward_gpu_core')
def convolve(stock, node, x, W, b):
    ops = backend(x, W)
    if not ops or not is_plain(node):
        return stock(node, x, W, b)
    node._get_out_size(x.shape, W.shape)  # raises where the output would be empty
    y = ops.convolution.forward(to_nhwc(x), to_nhwc(W), *geometry(node))
    if b is not None:
        y += b
    return to_nchw(y),


@replaces(convolution_2d.Convolution2DGradW, '_forward_cpu_core', '_forward_gpu_core')
def convolution_weight_gradient(stock, node, x, gy):
    ops = backend(x, gy)
    if not ops or not is_plain(node):
        return stock(node, x, gy)
    out, channels, kh, kw = node.W_shape
    gW = ops.convolution.weight_gradient(
        to_nhwc(x), to_nhwc(gy), (out, kh, kw, channels), *geometry(node))
    return to_nchw(gW).astype(node.W_dtype, copy=False),


@replaces(deconvolution_2d.Deconvolution2DFunction, '_forward_cpu_core', '_forward_gpu_core')
def convolution_input_gradient(stock, node, gy, W, b):
    ops = backend(gy, W)
    if not ops or not is_plain(node):
        return stock(node, gy, W, b)
    gx = ops.convolution.input_gradient(
        to_nhwc(gy), to_nhwc(W), (len(gy), node.outh, node.outw, W.shape[1]), *geometry(node))
    if b is not None:
        gx += b
    return to_nchw(gx),


# Batch normalization over all axes but the channels: what its function and that of its gradient do

BATCH_NORMALIZATION = batch_normalization.GeneralBatchNormalizationImpl


def is_per_channel(x, axis):
    return (x.ndim, axis) in ((2, (0,)), (4, (0, 2, 3)))


@replaces(BATCH_NORMALIZATION, 'forward')
def normalize_batch(stock, impl, *, axis, gamma, x, beta, eps, decay, running_mean, running_var,
                    **others):
    running = () if running_mean is None else (running_mean, running_var)
    ops = backend(x, per_channel=(gamma, beta, *running))
    if not ops or not is_per_channel(x, axis):
        return stock(impl, axis=axis, gamma=gamma, x=x, beta=beta, eps=eps, decay=decay,
                     running_mean=running_mean, running_var=running_var, **others)
    rows = to_rows(x)
    y, mean, inv_std = ops.normalization.forward(rows, gamma, beta, eps, decay, *running)
    var = None  # only iDeep reads it
    return (from_rows(y, x.shape), others['x_layout'], running_mean, running_var, mean, var,
            inv_std, None)


@replaces(batch_normalization, '_apply_bn_fwd')
def normalize(stock, xp, x, mean, inv_std, gamma, beta):
    parameters = mean, inv_std, gamma, beta  # each expanded to broadcast with x
    ops = backend(x, per_channel=parameters)
    if not ops or x.ndim not in (2, 4) or any(
            p.ndim != x.ndim or not p.size == p.shape[1] == x.shape[1] for p in parameters):
        return stock(xp, x, *parameters)
    y = ops.normalization.normalize(to_rows(x), *(p.ravel() for p in parameters))
    return from_rows(y, x.shape)


@replaces(BATCH_NORMALIZATION, 'backward')
def normalization_gradients(stock, impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std,
                            *others):
    ops = backend(x, gy, per_channel=(gamma,))
    if not ops or not is_per_channel(x, axis):
        return stock(impl, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, *others)
    gx, ggamma, gbeta, _ = ops.normalization.gradients(
        to_rows(x), to_rows(gy), mean, inv_std, gamma)
    return from_rows(gx, x.shape), x_layout, ggamma, gbeta


# Linear: products with every pixel, of which there is one

@replaces(linear.LinearFunction, 'forward')
def apply_linear(stock, node, inputs):
    ops = backend(*inputs)
    if not ops:
        return stock(node, inputs)
    note_inputs(node)
    x, W, *b = inputs
    y = ops.convolution.forward(as_pixels(x), as_pixels(W), *POINTWISE).reshape(len(x), -1)
    for bias in b:
        y += bias
    return y,


@replaces(linear.LinearGradData, 'forward')
def linear_input_gradient(stock, node, inputs):
    ops = backend(*inputs)
    if not ops:
        return stock(node, inputs)
    note_inputs(node)
    W, gy = map(as_pixels, inputs)
    gx = ops.convolution.input_gradient(gy, W, (len(gy), 1, 1, W.shape[-1]), *POINTWISE)
    return gx.reshape(len(gy), -1),


@replaces(linear.LinearGradWeight, 'forward')
def linear_weight_gradient(stock, node, inputs):
    ops = backend(*inputs)
    if not ops or inputs[0].dtype != node._w_dtype:
        return stock(node, inputs)
    note_inputs(node)
    x, gy = map(as_pixels, inputs)
    shape = gy.shape[-1], 1, 1, x.shape[-1]
    return ops.convolution.weight_gradient(x, gy, shape, *POINTWISE).reshape(shape[0], -1),


def note_inputs(node):
    node.retain_inputs((0, 1))
    node._config_use_ideep = chainer.config.use_ideep


POINTWISE = (1, 1), (0, 0)  # stride and pad


@replaces(sum_.Sum, 'forward')
def sum_of_maps(stock, node, inputs):
    """Over all but the channels, as for the gradient of a convolution's bias."""
    x, = inputs
    ops = backend(x)
    if not ops or node.axis != (0, 2, 3) or node.keepdims or not is_channels_last(x):
        return stock(node, inputs)
    return ops.normalization.channel_sum(to_rows(x)),


# Pooling

@replaces(max_pooling_nd.MaxPoolingND, 'forward_cpu', 'forward_gpu')
def max_pooling(stock, node, inputs):
    x, = inputs
    ops = backend(x)
    if not ops or not is_channels_last(x) or node.pad != (0, 0):
        return stock(node, inputs)
    y, indexes = ops.pooling.maximum(to_nhwc(x), node.ksize, node.stride, node.cover_all)
    node._in_shape, node._in_dtype = x.shape, x.dtype
    node.indexes = to_nchw(indexes)
    return to_nchw(y),


@replaces(max_pooling_nd.MaxPoolingNDGrad, 'forward_cpu', 'forward_gpu')
def max_pooling_gradient(stock, node, inputs):
    gy, = inputs
    ops = backend(gy)
    pool = node.func
    if not ops or not is_channels_last(pool.indexes) or pool.pad != (0, 0):
        return stock(node, inputs)
    n, c, h, w = pool._in_shape
    return to_nchw(ops.pooling.maximum_gradient(
        to_nhwc(gy), to_nhwc(pool.indexes), (n, h, w, c), pool.ksize, pool.stride)),


def is_global(node, x_shape):
    return x_shape[2:] == (node.kh, node.kw) and (node.ph, node.pw) == (0, 0)


@replaces(average_pooling_2d.AveragePooling2D, 'forward_cpu', 'forward_gpu')
def global_average_pooling(stock, node, inputs):
    x, = inputs
    ops = backend(x)
    if not ops or not is_global(node, x.shape):
        return stock(node, inputs)
    node._in_shape, node._in_dtype = x.shape, x.dtype
    return to_nchw(ops.pooling.average(to_nhwc(x))),


@replaces(average_pooling_2d.AveragePooling2DGrad, 'forward_cpu', 'forward_gpu')
def global_average_pooling_gradient(stock, node, inputs):
    gy, = inputs
    ops = backend(gy)
    if not ops or not is_global(node, node._in_shape):
        return stock(node, inputs)
    n, c, h, w = node._in_shape
    return to_nchw(ops.pooling.average_gradient(to_nhwc(gy), (n, h, w, c))),


# Loss

@replaces(softmax_cross_entropy.SoftmaxCrossEntropy, 'forward_gpu')
def cross_entropy(stock, node, inputs):
    x, t = inputs
    ops = backend(x)
    if (not ops or not ops.loss or x.ndim != 2 or t.dtype.char != 'i' or t.ndim != 1 or not node.normalize
            or node.reduce != 'mean' or node.class_weight is not None or chainer.is_debug()):
        return stock(node, inputs)
    node.retain_inputs((0, 1))
    xp = chainer.backend.get_array_module(x)
    y, node.y, node._coeff = ops.loss.softmax_cross_entropy(
        xp.ascontiguousarray(x), xp.ascontiguousarray(t), node.ignore_label)
    return y,


@replaces(softmax_cross_entropy._SoftmaxCrossEntropyGrad_NoDoubleBackprop, 'forward_gpu')
def cross_entropy_gradient(stock, node, inputs):
    x, t, gloss = inputs
    ops = backend(x, gloss)
    if (not ops or not ops.loss or x.ndim != 2 or t.dtype.char != 'i' or t.ndim != 1 or gloss.ndim != 0
            or node.class_weight is not None or node.y is None or node.y.dtype.char != 'f'):
        return stock(node, inputs)
    xp = chainer.backend.get_array_module(x)
    return ops.loss.softmax_cross_entropy_gradient(
        xp.ascontiguousarray(node.y), xp.ascontiguousarray(t), gloss, node.coeff,
        node.ignore_label),


# Elementwise functions keep the layout of what they are given

@replaces(relu.ReLU, 'forward_cpu', 'forward_gpu')
def rectify(stock, node, inputs):
    ops = backend(*inputs)
    y = ops.activation.relu(*inputs) if ops else None
    if y is None:
        return stock(node, inputs)
    node.retain_outputs((0,))
    return y,


@replaces(relu.ReLUGrad2, 'forward_cpu', 'forward_gpu')
def rectifier_gradient(stock, node, inputs):
    ops = backend(node.b, *inputs)
    gx = ops.activation.relu_gradient(node.b, *inputs) if ops else None
    return stock(node, inputs) if gx is None else (gx,)


@replaces(basic_math.Add, 'forward')
def add(stock, node, inputs):
    ops = backend(*inputs)
    y = ops.activation.add(*inputs) if ops and len(inputs) == 2 else None
    return stock(node, inputs) if y is None else (y,)


@replaces(basic_math.MulConstant, 'forward')
def multiply(stock, node, inputs):
    ops = backend(*inputs)
    y = ops.scale(*inputs, node.value) if ops and ops.scale else None
    return stock(node, inputs) if y is None else (y,)


@replaces(permutate.Permutate, '_permutate')
def permute(stock, node, x, indices, inv):
    if not backend(x) or node.axis != 0 or not is_channels_last(x):
        return stock(node, x, indices, inv)
    if inv:
        indices = permutate._inverse_indices(indices)
    return to_nchw(to_nhwc(x)[indices])
