"""Channels-last memory behind Chainer's shapes.

An array of shape (N, C, H, W) is channels-last where its memory is that of a contiguous
(N, H, W, C) array.  Its pixels are then rows of channels, on which a convolution is a product of
matrices and batch normalization a matter of columns.
"""
import chainer


def to_nhwc(x):
    """The contiguous (N, H, W, C) array of an (N, C, H, W) one; a view where x is channels-last."""
    xp = chainer.backend.get_array_module(x)
    return xp.ascontiguousarray(x.transpose(0, 2, 3, 1))


def to_nchw(x):
    """An (N, H, W, C) array seen as (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2)


def is_channels_last(x):
    return x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous


def to_rows(x):
    """The contiguous (N * H * W, C) matrix of an (N, C, H, W) array; an (N, C) array likewise."""
    if x.ndim == 2:
        return chainer.backend.get_array_module(x).ascontiguousarray(x)
    return to_nhwc(x).reshape(-1, x.shape[1])


def from_rows(matrix, shape):
    """The opposite of :func:`to_rows`."""
    if len(shape) == 2:
        return matrix
    n, c, h, w = shape
    return to_nchw(matrix.reshape(n, h, w, c))


def as_pixels(matrix):
    """An (N, C) matrix as contiguous (N, 1, 1, C) maps."""
    return to_rows(matrix)[:, None, None]


def lies_as(model, array):
    """Whether an array is of the shape, dtype and order of elements of another one."""
    return (array.shape == model.shape and array.dtype == model.dtype
            and (array.strides == model.strides or order(array) == order(model)))


def order(array):
    """Its strides, but for axes of length 1, where they mean nothing."""
    return [stride for stride, size in zip(array.strides, array.shape) if size > 1]


def laid_out_as(model, array):
    """The array, or a copy of it whose elements lie in memory as those of ``model``."""
    if lies_as(model, array):
        return array
    copy = chainer.backend.get_array_module(model).empty_like(model)
    copy[...] = array
    return copy


def has_known_layout(x):
    """Whether the elements lie without gaps, in the order of C or channels-last."""
    return x.flags.c_contiguous or is_channels_last(x)


def lay_out_weights(model):
    """Give the weights of a model's convolutions channels-last memory, in which they are read."""
    for link in model.links():
        if isinstance(link, chainer.links.Convolution2D) and link.W.array is not None:
            link.W.array = to_nchw(to_nhwc(link.W.array))
            precise = getattr(link.W.update_rule, '_fp32_param', None)
            if precise is not None:  # it has to lie as the weights do
                precise.array = to_nchw(to_nhwc(precise.array))
