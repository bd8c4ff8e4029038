"""Two-dimensional convolution on channels-last arrays, as matrix products.

Shapes: x (N, H, W, C), W (O, kh, kw, C), y (N, H', W', O); stride and pad are pairs.  The forward
computation and both gradients have the same three ways:

- a 1x1 kernel is one matrix product;
- on a map of fewer pixels than the kernel has taps, most of which meet padding, one product for
  each row of the taps at each place of the output;
- otherwise im2col, in chunks of the batch whose columns stay in the cache.  The columns are made
  again for the gradients, which takes less time than to read them from memory.
"""
import numpy as np
from numpy.lib.stride_tricks import as_strided

from engine.cpu.blocks import each

COLUMNS = 3 << 20  # bytes of columns at once


def output_size(x_shape, w_shape, stride, pad):
    return tuple((size + 2 * p - k) // s + 1 for size, k, s, p in
                 zip(x_shape[1:3], w_shape[1:3], stride, pad))


def forward(x, W, stride, pad):
    n, out = len(x), len(W)
    h, w = output_size(x.shape, W.shape, stride, pad)
    if W.shape[1:3] == (1, 1) and pad == (0, 0):
        x = subsampled(x, stride)
        return (rows(x) @ W.reshape(out, -1).T).reshape(n, h, w, out)
    if small(x.shape, W.shape):
        y = np.zeros((n, h, w, out), x.dtype)
        for (i, j), inside, taps in places((h, w), x.shape, W.shape, stride, pad):
            y[:, i, j] += x[inside].reshape(n, -1) @ W[taps].reshape(out, -1).T
        return y
    y = np.empty((n, h, w, out), x.dtype)
    Wt = W.reshape(out, -1).T
    for chunk, columns in im2col(x, (h, w), W.shape[1:3], stride, pad):
        np.matmul(columns, Wt, out=rows(y[chunk]))
    return y


def weight_gradient(x, gy, w_shape, stride, pad):
    n, h, w, out = gy.shape
    if w_shape[1:3] == (1, 1) and pad == (0, 0):
        return (rows(gy).T @ rows(subsampled(x, stride))).reshape(w_shape)
    gW = np.zeros(w_shape, x.dtype)
    if small(x.shape, w_shape):
        for (i, j), inside, taps in places((h, w), x.shape, w_shape, stride, pad):
            gW[taps] += (gy[:, i, j].T @ x[inside].reshape(n, -1)).reshape(gW[taps].shape)
        return gW
    flat = gW.reshape(out, -1)
    for chunk, columns in im2col(x, (h, w), w_shape[1:3], stride, pad):
        flat += rows(gy[chunk]).T @ columns
    return gW


def input_gradient(gy, W, x_shape, stride, pad):
    n, h, w, out = gy.shape
    kernel = W.shape[1:3]
    if kernel == (1, 1) and pad == (0, 0):
        gx = (rows(gy) @ W.reshape(out, -1)).reshape(n, h, w, -1)
        return gx if stride == (1, 1) else spread(gx, x_shape, stride)
    if small(x_shape, W.shape):
        gx = np.zeros(x_shape, gy.dtype)
        for (i, j), inside, taps in places((h, w), x_shape, W.shape, stride, pad):
            gx[inside] += (gy[:, i, j] @ W[taps].reshape(out, -1)).reshape(gx[inside].shape)
        return gx
    if stride == (1, 1) and all(p < k for k, p in zip(kernel, pad)):
        # the convolution of gy with the kernel turned by half
        turned = np.ascontiguousarray(W[:, ::-1, ::-1].transpose(3, 1, 2, 0))
        return forward(gy, turned, stride, tuple(k - 1 - p for k, p in zip(kernel, pad)))
    return col2im(gy, W, x_shape, stride, pad)


def rows(x):
    """The pixels of an array as a matrix of channels."""
    return x.reshape(-1, x.shape[-1])


def small(x_shape, w_shape):
    """Whether the map has fewer pixels than the kernel has taps."""
    return x_shape[1] * x_shape[2] < w_shape[1] * w_shape[2]


def subsampled(x, stride):
    """The pixels that a 1x1 kernel meets."""
    return np.ascontiguousarray(x[:, ::stride[0], ::stride[1]])


def spread(gx, x_shape, stride):
    """The gradient of :func:`subsampled`."""
    full = np.zeros(x_shape, gx.dtype)
    full[:, ::stride[0], ::stride[1]] = gx
    return full


def places(y_size, x_shape, w_shape, stride, pad):
    """Which inputs meet which row of taps at each place of the output."""
    (sy, sx), (ph, pw) = stride, pad
    _, x_h, x_w, _ = x_shape
    _, kh, kw, _ = w_shape
    everything = slice(None)
    for i in range(y_size[0]):
        for j in range(y_size[1]):
            left = j * sx - pw
            lo, hi = max(left, 0), min(left + kw, x_w)
            for tap in range(kh):
                line = i * sy - ph + tap
                if 0 <= line < x_h and lo < hi:
                    yield ((i, j), (everything, line, slice(lo, hi)),
                           (everything, tap, slice(lo - left, hi - left)))


def im2col(x, y_size, kernel, stride, pad):
    """Chunks of the batch, each with its columns: (images * H' * W', kh * kw * C)."""
    n, x_h, x_w, c = x.shape
    (h, w), (kh, kw), (sy, sx), (ph, pw) = y_size, kernel, stride, pad
    size = max(1, min(n, COLUMNS // (h * w * kh * kw * c * x.itemsize)))
    buffer = np.empty((size, h, w, kh, kw * c), x.dtype)
    padded = np.zeros((size, x_h + 2 * ph, x_w + 2 * pw, c), x.dtype) if ph or pw else None
    for start in range(0, n, size):
        chunk = slice(start, min(start + size, n))
        images = x[chunk]
        if padded is not None:
            padded[:len(images), ph:ph + x_h, pw:pw + x_w] = images
            images = padded[:len(images)]
        # Not images.strides: those of axes of length 1 may be anything.
        by_pixel = c * x.itemsize
        by_row = images.shape[2] * by_pixel
        by_image = images.shape[1] * by_row
        windows = as_strided(
            images, (len(images), h, w, kh, kw * c),
            (by_image, by_row * sy, by_pixel * sx, by_row, x.itemsize), writeable=False)
        columns = buffer[:len(images)]
        each(lambda part: np.copyto(columns[part], windows[part]), len(images), 1, columns.size)
        yield chunk, columns.reshape(-1, kh * kw * c)


def col2im(gy, W, x_shape, stride, pad):
    """The gradient of the columns, each added where it was taken from."""
    n, h, w, out = gy.shape
    _, x_h, x_w, c = x_shape
    (kh, kw), (sy, sx), (ph, pw) = W.shape[1:3], stride, pad
    matrix = W.reshape(out, -1)
    gx = np.empty(x_shape, gy.dtype)
    size = max(1, min(n, COLUMNS // (h * w * kh * kw * c * gy.itemsize)))
    for start in range(0, n, size):
        chunk = slice(start, min(start + size, n))
        columns = (rows(gy[chunk]) @ matrix).reshape(-1, h, w, kh, kw, c)
        padded = np.zeros((len(columns), max(x_h + 2 * ph, sy * h + kh),
                           max(x_w + 2 * pw, sx * w + kw), c), gy.dtype)
        for i in range(kh):
            for j in range(kw):
                padded[:, i:i + sy * h:sy, j:j + sx * w:sx] += columns[:, :, :, i, j]
        gx[chunk] = padded[:, ph:ph + x_h, pw:pw + x_w]
    return gx
