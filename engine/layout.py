"""Channels-last memory behind Chainer's shapes.

An array of shape (N, C, H, W) is channels-last where its memory is that of a contiguous
(N, H, W, C) array.  Its pixels are then rows of channels, on which a convolution is a matrix
product, and batch normalization works column by column.

All functions take NumPy or CuPy arrays of any dtype.
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
    """Whether x has four axes and its memory is that of a contiguous (N, H, W, C) array."""
    return x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous


def to_rows(x):
    """The pixels of an (N, C, H, W) array as a contiguous (N * H * W, C) matrix.

    An (N, C) array is taken as N images of one pixel.
    """
    if x.ndim == 2:
        return chainer.backend.get_array_module(x).ascontiguousarray(x)
    return pixel_rows(to_nhwc(x))


def from_rows(matrix, shape):
    """The inverse of :func:`to_rows`: a matrix of pixels seen as an array of the given shape."""
    if len(shape) == 2:
        return matrix
    n, c, h, w = shape
    return to_nchw(matrix.reshape(n, h, w, c))


def pixel_rows(x):
    """The pixels of a contiguous (N, H, W, C) array as a (N * H * W, C) matrix, a view."""
    return x.reshape(-1, x.shape[-1])


def as_pixels(matrix):
    """An (N, C) matrix as a contiguous (N, 1, 1, C) array: images of one pixel."""
    return to_rows(matrix)[:, None, None]


def same_layout(model, array):
    """Whether two arrays agree in shape, in dtype and in the order of their elements in memory."""
    return (array.shape == model.shape and array.dtype == model.dtype
            and (array.strides == model.strides
                 or meaningful_strides(array) == meaningful_strides(model)))


def meaningful_strides(array):
    """The strides of all axes but those of length 1, where any stride means the same."""
    return [stride for stride, size in zip(array.strides, array.shape) if size > 1]


def with_layout_of(model, array):
    """The array itself if it has the layout of ``model``, otherwise a copy that has."""
    if same_layout(model, array):
        return array
    copy = chainer.backend.get_array_module(model).empty_like(model)
    copy[...] = array
    return copy


def has_known_layout(x):
    """Whether the elements lie without gaps, either in C order or channels-last."""
    return x.flags.c_contiguous or is_channels_last(x)


def share_one_layout(first, *others):
    """Whether arrays have the same layout without gaps: one loop over memory meets all of them."""
    return has_known_layout(first) and all(same_layout(first, array) for array in others)


def lay_out_weights(model):
    """Give the weights of a model's convolutions channels-last memory, in which they are read."""
    for link in model.links():
        if isinstance(link, chainer.links.Convolution2D) and link.W.array is not None:
            link.W.array = to_nchw(to_nhwc(link.W.array))
            master = getattr(link.W.update_rule, '_fp32_param', None)
            if master is not None:  # the update goes through both in one loop
                master.array = to_nchw(to_nhwc(master.array))
