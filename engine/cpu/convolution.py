"""Two-dimensional convolution of channels-last arrays, as products of matrices.

Shapes: x (N, H, W, C), y (N, H', W', O), W (O, kh, kw, C), of one dtype; stride and pad are pairs.
The forward computation and both gradients have the same three ways:

- a 1x1 kernel is one product;
- a 3x3 kernel with stride 1 goes by Winograd's algorithm where that needs fewer multiplications,
  see ``winograd.py``;
- any other kernel goes by im2col.  The outputs are grouped by the taps that have an input under
  them, so that padding is neither stored nor multiplied.  The columns are made again for the
  gradients, which takes less time than to read them from memory.
"""
import itertools
import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from engine.cpu import winograd
from engine.cpu.activation import add
from engine.cpu.matmul import matmul
from engine.cpu.threads import parallel_for
from engine.geometry import output_size
from engine.layout import pixel_rows

COLUMNS = 3 << 20  # bytes of columns at once, in each thread
FEWEST = 64  # channels of a block
THIN = 16  # channels: with fewer, padding with zeros costs less than a product for each tap group
BLOCKS = 4  # of channels; or of images, each with a weight gradient of its own, added at the end


def forward(x, W, stride, pad):
    """The convolution y."""
    n, out = len(x), len(W)
    h, w = output_size(x.shape, W.shape[1:3], stride, pad)
    if is_pointwise(W.shape, pad):
        return matmul(pixel_rows(subsampled(x, stride)), W.reshape(out, -1).T).reshape(n, h, w, out)
    if winograd.suits(x.shape, W.shape, stride, pad):
        return winograd.forward(x, W, pad)

    x, pad = padded_if_thin(x, pad)
    groups = tap_groups((h, w), x.shape, W.shape, stride, pad)
    y = np.zeros((n, h, w, out), x.dtype)

    def convolve(images, channels):
        for group in groups:
            outputs = y[images][group.places][..., channels]
            columns = group.columns(x[images])
            outputs[...] = (columns @ group.matrix(W[channels]).T).reshape(outputs.shape)
    parallel_for_blocks(convolve, n, out, groups, x.itemsize)
    return y


def weight_gradient(x, gy, w_shape, stride, pad):
    """The gradient of W, of shape ``w_shape``, for the gradient gy of y."""
    n, h, w, out = gy.shape
    if is_pointwise(w_shape, pad):
        return matmul(pixel_rows(gy).T, pixel_rows(subsampled(x, stride))).reshape(w_shape)
    if winograd.suits(x.shape, w_shape, stride, pad):
        return winograd.weight_gradient(x, gy, pad)

    x, pad = padded_if_thin(x, pad)
    groups = tap_groups((h, w), x.shape, w_shape, stride, pad)
    size = chunk_size(n, groups, x.itemsize)

    def accumulate(gW, images, channels):
        for start in range(images.start, images.stop, size):
            chunk = slice(start, min(start + size, images.stop))
            for group in groups:
                weights = gW[group.taps]
                outputs = pixel_rows(gy[chunk][group.places][..., channels])
                weights += (outputs.T @ group.columns(x[chunk])).reshape(weights.shape)
        return gW
    if size == n:
        gW = np.zeros(w_shape, x.dtype)
        parallel_for_blocks(
            lambda images, channels: accumulate(gW[channels], images, channels),
            n, out, groups, x.itemsize)
        return gW
    gW, *others = parallel_for_blocks(
        lambda images, channels: accumulate(np.zeros(w_shape, x.dtype), images, channels),
        n, out, groups, x.itemsize, image_blocks=BLOCKS)
    for other in others:
        gW += other
    return gW


def input_gradient(gy, W, x_shape, stride, pad, onto=None):
    """The gradient of x, of shape ``x_shape``, for the gradient gy of y; plus ``onto``, if any."""
    n, h, w, out = gy.shape
    if is_pointwise(W.shape, pad):
        W = W.reshape(out, -1)
        if stride == (1, 1):
            onto = None if onto is None else pixel_rows(onto)
            return matmul(pixel_rows(gy), W, onto).reshape(x_shape)
        return spread(matmul(pixel_rows(gy), W).reshape(n, h, w, -1), x_shape, stride, onto)
    if onto is not None:
        gx = input_gradient(gy, W, x_shape, stride, pad)
        return add(gx, onto, out=gx)
    if winograd.suits(x_shape, W.shape, stride, pad):
        return winograd.input_gradient(gy, W, pad)

    groups = tap_groups((h, w), x_shape, W.shape, stride, pad)
    gx = np.zeros(x_shape, gy.dtype)

    def scatter(images, channels):
        for group in groups:
            columns = pixel_rows(gy[images][group.places]) @ group.matrix(W[..., channels])
            group.add(gx[images][..., channels], columns)
    parallel_for_blocks(scatter, n, x_shape[3], groups, gy.itemsize)
    return gx


def is_pointwise(w_shape, pad):
    return w_shape[1:3] == (1, 1) and pad == (0, 0)


def subsampled(x, stride):
    """The pixels that a 1x1 kernel reads, a contiguous array."""
    return np.ascontiguousarray(x[:, ::stride[0], ::stride[1]])


def spread(gx, x_shape, stride, onto=None):
    """The gradient of the input of :func:`subsampled`, added to ``onto`` if that is given."""
    full = np.zeros(x_shape, gx.dtype) if onto is None else onto.copy()
    full[:, ::stride[0], ::stride[1]] += gx
    return full


def padded_if_thin(x, pad):
    """An input of few channels with its padding, then without a need for any; see :data:`THIN`."""
    if x.shape[3] >= THIN:
        return x, pad
    (top, left), (n, h, w, c) = pad, x.shape
    with_zeros = np.zeros((n, h + 2 * top, w + 2 * left, c), x.dtype)
    with_zeros[:, top:top + h, left:left + w] = x
    return with_zeros, (0, 0)


def chunk_size(n, groups, itemsize):
    """How many of n images are done at once.

    They are all if their columns of the largest tap group are at most :data:`COLUMNS` bytes, or a
    block at most.
    """
    bytes_each = itemsize * max((group.length for group in groups), default=1)
    chunks = -(-n * bytes_each // COLUMNS)
    return n if chunks <= 1 else -(-n // max(BLOCKS, chunks))


def parallel_for_blocks(function, n, channels, groups, itemsize, image_blocks=None):
    """:func:`parallel_for` over chunks of the images, or over channels if all images are one chunk.

    Args:
        function (callable): ``function(images, channels)``, of which one slice is all.
        n, channels (int): What is divided.
        groups (list of TapGroup): What is computed for each image.
        itemsize (int): Bytes of an element.
        image_blocks (int): How many blocks of the images to take in the place of chunks.
    """
    size = chunk_size(n, groups, itemsize)
    work = n * channels * sum(group.length for group in groups)
    if size == n:
        step = max(FEWEST, -(-channels // BLOCKS))
        return parallel_for(lambda block: function(slice(0, n), block), channels, step, work)
    if image_blocks:
        size = -(-n // image_blocks)
    return parallel_for(lambda images: function(images, slice(None)), n, size, work)


class TapGroup:
    """The outputs for which the same taps of a kernel have an input under them.

    Args:
        vertical, horizontal (tuple): Of each axis, what :func:`axis_groups` says about the group.
        stride (pair of int): That of the convolution.
        channels (int): C.

    Attributes:
        places, taps (tuple of slice): These outputs in y, and these taps in W.
        size (pair of int): Their number along each axis.
        first (pair of int): Where in x their windows begin.
        length (int): The elements of one image's columns.
    """

    def __init__(self, vertical, horizontal, stride, channels):
        self.size, places, taps, self.first = zip(vertical, horizontal)
        self.places, self.taps = ((slice(None), *slices) for slices in (places, taps))
        self.kernel = tuple(tap.stop - tap.start for tap in taps)
        self.stride = stride
        self.length = math.prod((*self.size, *self.kernel, channels))

    def matrix(self, W):
        """The taps of a kernel as a matrix, (O, kh * kw * C)."""
        return W[self.taps].reshape(len(W), -1)

    def columns(self, x):
        """The inputs under the taps, a row for each output: (N * H' * W', kh * kw * C)."""
        (h, w), (kh, kw), (sy, sx), (top, left) = self.size, self.kernel, self.stride, self.first
        n, x_h, x_w, c = x.shape
        # Not x.strides: NumPy may give axes of length 1 any stride.
        by_pixel = c * x.itemsize
        by_row = x_w * by_pixel
        windows = as_strided(
            x[:, top:, left:], (n, h, w, kh, kw * c),
            (x_h * by_row, sy * by_row, sx * by_pixel, by_row, x.itemsize), writeable=False)
        return np.ascontiguousarray(windows).reshape(n * h * w, -1)

    def add(self, gx, columns):
        """Add the gradient of the :meth:`columns` of x to the gradient of x, in place."""
        (h, w), (kh, kw), (sy, sx), (top, left) = self.size, self.kernel, self.stride, self.first
        columns = columns.reshape(len(gx), h, w, kh, kw, -1)
        for i in range(kh):
            for j in range(kw):
                gx[:, top + i:, left + j:][:, :sy * h:sy, :sx * w:sx] += columns[:, :, :, i, j]


def tap_groups(y_size, x_shape, w_shape, stride, pad):
    """All groups of a convolution, a list of TapGroup."""
    axes = [axis_groups(*axis) for axis in zip(y_size, x_shape[1:3], w_shape[1:3], stride, pad)]
    return [TapGroup(vertical, horizontal, stride, w_shape[3])
            for vertical, horizontal in itertools.product(*axes)]


def axis_groups(y_size, x_size, kernel, stride, pad):
    """The groups along one axis.

    Returns:
        list of tuple: How many outputs, a slice of them, the slice of their taps, and where in x
        the first of their windows begins.
    """
    def taps(place):
        return max(0, pad - place * stride), min(kernel, x_size + pad - place * stride)
    groups = []
    for (low, high), places in itertools.groupby(range(y_size), taps):
        places = list(places)
        if low < high:
            groups.append((len(places), slice(places[0], places[-1] + 1), slice(low, high),
                           places[0] * stride - pad + low))
    return groups
