"""Two-dimensional convolution on channels-last arrays, as products of matrices.

Shapes: x (N, H, W, C), y (N, H', W', O), W (O, kh, kw, C); stride and pad are pairs.  The forward
computation and both gradients have the same three ways:

- a 1x1 kernel is one product;
- for a 3x3 kernel with stride 1, Winograd's algorithm needs fewer multiplications, see
  ``winograd.py``;
- otherwise im2col.  The places of the output are grouped by the taps that meet the input there, so
  that padding is neither stored nor multiplied.  The columns are made again for the gradients,
  which takes less time than to read them from memory.
"""
import itertools
import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from engine.cpu import winograd
from engine.cpu.matmul import matmul
from engine.cpu.threads import each

COLUMNS = 3 << 20  # bytes of columns at once, in each thread
FEWEST = 64  # channels of a share
THIN = 16  # channels
SHARES = 4  # of the channels, or of the images, whose gradients of the weights are added at the end


def output_size(x_shape, w_shape, stride, pad):
    return tuple((size + 2 * p - k) // s + 1 for size, k, s, p in
                 zip(x_shape[1:3], w_shape[1:3], stride, pad))


def forward(x, W, stride, pad):
    n, out = len(x), len(W)
    h, w = output_size(x.shape, W.shape, stride, pad)
    if is_pointwise(W.shape, pad):
        return matmul(rows(subsampled(x, stride)), W.reshape(out, -1).T).reshape(n, h, w, out)
    if winograd.suits(x.shape, W.shape, stride, pad):
        return winograd.forward(x, W, pad)

    x, pad = padded_if_thin(x, pad)
    groups = tap_groups((h, w), x.shape, W.shape, stride, pad)
    y = np.zeros((n, h, w, out), x.dtype)

    def part(images, channels):
        for group in groups:
            met = y[images][group.places][..., channels]
            columns = group.columns(x[images])
            met[...] = (columns @ group.matrix(W[channels]).T).reshape(met.shape)
    share(part, n, out, groups, x.itemsize)
    return y


def weight_gradient(x, gy, w_shape, stride, pad):
    n, h, w, out = gy.shape
    if is_pointwise(w_shape, pad):
        return matmul(rows(gy).T, rows(subsampled(x, stride))).reshape(w_shape)
    if winograd.suits(x.shape, w_shape, stride, pad):
        return winograd.weight_gradient(x, gy, pad)

    x, pad = padded_if_thin(x, pad)
    groups = tap_groups((h, w), x.shape, w_shape, stride, pad)
    size = images_at_once(n, groups, x.itemsize)

    def accumulate(gW, images, channels):
        for start in range(images.start, images.stop, size):
            some = slice(start, min(start + size, images.stop))
            for group in groups:
                met = gW[group.taps]
                rows_of_gy = rows(gy[some][group.places][..., channels])
                met += (rows_of_gy.T @ group.columns(x[some])).reshape(met.shape)
        return gW
    if size == n:
        gW = np.zeros(w_shape, x.dtype)
        share(lambda images, channels: accumulate(gW[channels], images, channels),
              n, out, groups, x.itemsize)
        return gW
    gW, *others = share(
        lambda images, channels: accumulate(np.zeros(w_shape, x.dtype), images, channels),
        n, out, groups, x.itemsize, shares=SHARES)
    for other in others:
        gW += other
    return gW


def input_gradient(gy, W, x_shape, stride, pad, onto=None):
    """Where ``onto`` is given, an array for the purpose, the gradient is added to it."""
    n, h, w, out = gy.shape
    if is_pointwise(W.shape, pad):
        W = W.reshape(out, -1)
        if stride == (1, 1):
            return matmul(rows(gy), W, None if onto is None else rows(onto)).reshape(x_shape)
        return spread(matmul(rows(gy), W).reshape(n, h, w, -1), x_shape, stride, onto)
    if onto is not None:
        onto += input_gradient(gy, W, x_shape, stride, pad)
        return onto
    if winograd.suits(x_shape, W.shape, stride, pad):
        return winograd.input_gradient(gy, W, pad)

    groups = tap_groups((h, w), x_shape, W.shape, stride, pad)
    gx = np.zeros(x_shape, gy.dtype)

    def part(images, channels):
        for group in groups:
            columns = rows(gy[images][group.places]) @ group.matrix(W[..., channels])
            group.add(gx[images][..., channels], columns)
    share(part, n, x_shape[3], groups, gy.itemsize)
    return gx


def is_pointwise(w_shape, pad):
    return w_shape[1:3] == (1, 1) and pad == (0, 0)


def rows(x):
    """The pixels of an array as a matrix of channels."""
    return x.reshape(-1, x.shape[-1])


def subsampled(x, stride):
    """The pixels that a 1x1 kernel meets."""
    return np.ascontiguousarray(x[:, ::stride[0], ::stride[1]])


def spread(gx, x_shape, stride, onto=None):
    """The gradient of :func:`subsampled`."""
    full = np.zeros(x_shape, gx.dtype) if onto is None else onto
    full[:, ::stride[0], ::stride[1]] += gx
    return full


def padded_if_thin(x, pad):
    """Of few channels, zeros cost less than one product for each group of taps."""
    if x.shape[3] >= THIN:
        return x, pad
    (top, left), (n, h, w, c) = pad, x.shape
    with_zeros = np.zeros((n, h + 2 * top, w + 2 * left, c), x.dtype)
    with_zeros[:, top:top + h, left:left + w] = x
    return with_zeros, (0, 0)


def images_at_once(n, groups, itemsize):
    """All, or a quarter at most, so that the columns of the largest group are ``COLUMNS`` bytes."""
    bytes_each = itemsize * max((group.length for group in groups), default=1)
    chunks = -(-n * bytes_each // COLUMNS)
    return n if chunks <= 1 else -(-n // max(SHARES, chunks))


def share(part, n, channels, groups, itemsize, shares=None):
    """``[part(images, channels), ...]``: slices of the images in chunks or in so many shares, or,
    where all of them are one chunk, slices of the channels."""
    size = images_at_once(n, groups, itemsize)
    work = n * channels * sum(group.length for group in groups)
    if size == n:
        step = max(FEWEST, -(-channels // SHARES))
        return each(lambda some: part(slice(0, n), some), channels, step, work)
    if shares:
        size = -(-n // shares)
    return each(lambda images: part(images, slice(None)), n, size, work)


class TapGroup:
    """Places of the output at which the same taps of a kernel meet the input.

    ``places`` indexes y, ``taps`` W; the places' windows begin at ``first`` in x.
    """

    def __init__(self, vertical, horizontal, stride, channels):
        self.size, places, taps, self.first = zip(vertical, horizontal)
        self.places, self.taps = ((slice(None), *slices) for slices in (places, taps))
        self.kernel = tuple(tap.stop - tap.start for tap in taps)
        self.stride = stride
        self.length = math.prod((*self.size, *self.kernel, channels))  # of an image's columns

    def matrix(self, W):
        """The kernel's taps, (O, kh * kw * C)."""
        return W[self.taps].reshape(len(W), -1)

    def columns(self, x):
        """What they meet, (N * H' * W', kh * kw * C)."""
        (h, w), (kh, kw), (sy, sx), (top, left) = self.size, self.kernel, self.stride, self.first
        n, x_h, x_w, c = x.shape
        # Not x.strides: those of axes of length 1 may be anything.
        by_pixel = c * x.itemsize
        by_row = x_w * by_pixel
        windows = as_strided(
            x[:, top:, left:], (n, h, w, kh, kw * c),
            (x_h * by_row, sy * by_row, sx * by_pixel, by_row, x.itemsize), writeable=False)
        return np.ascontiguousarray(windows).reshape(n * h * w, -1)

    def add(self, gx, columns):
        """Add the gradient of :meth:`columns` to that of x."""
        (h, w), (kh, kw), (sy, sx), (top, left) = self.size, self.kernel, self.stride, self.first
        columns = columns.reshape(len(gx), h, w, kh, kw, -1)
        for i in range(kh):
            for j in range(kw):
                gx[:, top + i:, left + j:][:, :sy * h:sy, :sx * w:sx] += columns[:, :, :, i, j]


def tap_groups(y_size, x_shape, w_shape, stride, pad):
    axes = [axis_groups(*axis) for axis in zip(y_size, x_shape[1:3], w_shape[1:3], stride, pad)]
    return [TapGroup(vertical, horizontal, stride, w_shape[3])
            for vertical, horizontal in itertools.product(*axes)]


def axis_groups(y_size, x_size, kernel, stride, pad):
    """Along one axis: how many places, which, with which taps, and where in x they begin."""
    def taps(place):
        return max(0, pad - place * stride), min(kernel, x_size + pad - place * stride)
    groups = []
    for (low, high), places in itertools.groupby(range(y_size), taps):
        places = list(places)
        if low < high:
            groups.append((len(places), slice(places[0], places[-1] + 1), slice(low, high),
                           places[0] * stride - pad + low))
    return groups
