"""Convolution by 3x3 kernels with stride 1: Winograd's F(4x4, 3x3), as in Lavin & Gray (2016).

Tiles of 4x4 outputs are sums of 6x6 products, 36 where the definition takes 144:

    y = A ((G w G^T) * (B x B^T)) A^T

with x one channel of a tile of 6x6 inputs, w the kernel, and the product * summed over the
channels: for a batch, these are 36 products of matrices (tiles, C) @ (C, O).  The gradients are the
transposes of the same sums.  Shapes and dtypes are those of ``convolution.py``.

The transforms are products of matrices too: BLAS does many small ones in a row faster than NumPy
adds whole arrays.  In float32 the relative error is about 1e-6, some six times that of the
definition.
"""
import functools

import numpy as np
from numpy.lib.stride_tricks import as_strided

from engine.cpu.threads import parallel_for

OUT = 4  # outputs of a tile along each axis
SIZE = 6  # its inputs, and its products
# The numbers at which polynomials are evaluated, besides infinity; these lose the fewest digits.
POINTS = 0, .5 ** .5, -.5 ** .5, 2 ** .5, -2 ** .5

TILES = 128  # of a chunk, whose products stay in the cache
FEWEST = 32  # channels; with fewer, the transforms take longer than the products
BLOCKS = 4  # of images, each with a weight gradient of its own, which are added at the end
CHANNELS = 64  # of a block, where channels are divided rather than images


@functools.cache
def matrices(dtype):
    """A (4, 6), B (6, 6) and G (6, 3) of a dtype."""
    def powers(n):
        return np.array([[p ** i for i in range(n)] for p in POINTS] + [[0] * (n - 1) + [1]])
    # Rows of B are the polynomials that vanish at all other points.
    others = [[q for q in POINTS if q != p] for p in POINTS]
    B = np.zeros((SIZE, SIZE))
    for row, roots in zip(B, [*others, POINTS]):
        row[:len(roots) + 1] = np.poly(roots)[::-1]
    scale = [np.prod([p - q for q in roots]) for p, roots in zip(POINTS, others)] + [1]
    G = powers(SIZE - OUT + 1) / np.array(scale)[:, np.newaxis]
    return [np.ascontiguousarray(m, dtype) for m in (powers(OUT).T, B, G)]


def suits(x_shape, w_shape, stride, pad):
    """Whether this algorithm does a convolution, and saves at least a third of the products."""
    if (w_shape[1:3], stride) != ((3, 3), (1, 1)) or max(pad) > 2:
        return False
    if min(w_shape[0], w_shape[3]) < FEWEST:
        return False
    sizes = [size + 2 * p - 2 for size, p in zip(x_shape[1:3], pad)]
    # Outputs times taps, without the taps that lie on padding.
    direct = [sum(min(3, size + p - i) - max(0, p - i) for i in range(out))
              for size, out, p in zip(x_shape[1:3], sizes, pad)]
    tiled = [SIZE * tiles_along(out) for out in sizes]
    return 2 * direct[0] * direct[1] > 3 * tiled[0] * tiled[1]


def tiles_along(size):
    """The number of tiles that cover so many outputs in a row."""
    return -(-size // OUT)


def forward(x, W, pad):
    """The convolution of x."""
    _, _, G = matrices(x.dtype)
    return filtered(x, lambda block: kernel_tiles(G, W[block].transpose(1, 2, 3, 0)), len(W), pad)


def input_gradient(gy, W, pad):
    """The gradient of x for the gradient gy of y."""
    _, _, G = matrices(gy.dtype)
    turned = G[:, ::-1].copy()  # the kernel by 180 degrees
    return filtered(gy, lambda block: kernel_tiles(turned, W[..., block].transpose(1, 2, 0, 3)),
                    W.shape[3], tuple(2 - p for p in pad))


def filtered(x, kernels, out, pad):
    """The convolution of x by kernels; ``kernels(channels)`` are their tiles, (6, 6, C, O)."""
    A, B, _ = matrices(x.dtype)
    n, h, w, c = x.shape
    h, w = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    th, tw = tiles_along(h), tiles_along(w)
    y = np.empty((n, h, w, out), x.dtype)
    work = y.size * c

    def multiply(V, U, images, channels):
        y[images, ..., channels] = untiled(A, V @ U, th, tw)[:, :h, :w]
    if 2 * n * th * tw <= max(c, out):
        V = all_tiles(B, x, th, tw, pad)
        parallel_for(lambda channels: multiply(V, kernels(channels), slice(n), channels),
                     out, CHANNELS, work)
    else:
        U = np.empty((SIZE, SIZE, c, out), x.dtype)

        def transform(channels):
            U[..., channels] = kernels(channels)
        parallel_for(transform, out, CHANNELS, U.size)
        parallel_for(lambda images: multiply(
            tiles(B, x[images], th, tw, pad), U, images, slice(out)),
            n, chunk_size(n, th * tw), work)
    return y


def weight_gradient(x, gy, pad):
    """The gradient of W for the gradient gy of y."""
    A, B, G = matrices(x.dtype)
    n, h, w, out = gy.shape
    c = x.shape[3]
    th, tw = tiles_along(h), tiles_along(w)
    work = gy.size * c
    gW = np.empty((out, 3, 3, c), x.dtype)

    if n * th * tw <= max(c, out):
        Q = all_tiles(A.T, gy, th, tw, (0, 0))
        V = all_tiles(B, x, th, tw, pad)

        def contract(channels):
            gW[channels] = kernel_gradient(G, Q[..., channels].swapaxes(2, 3) @ V)
        parallel_for(contract, out, CHANNELS, work)
        return gW

    size = chunk_size(n, th * tw)

    def accumulate(block):
        U = 0
        for start in range(block.start, block.stop, size):
            images = slice(start, min(start + size, block.stop))
            V = tiles(B, x[images], th, tw, pad)
            U += tiles(A.T, gy[images], th, tw, (0, 0)).swapaxes(2, 3) @ V
        return U
    U = sum(parallel_for(accumulate, n, max(size, -(-n // BLOCKS)), work))

    def contract(channels):
        gW[channels] = kernel_gradient(G, U[:, :, channels])
    parallel_for(contract, out, CHANNELS, U.size)
    return gW


def chunk_size(n, tiles):
    """How many of n images, of so many tiles each, are done at once: half of them at most."""
    chunks = max(2, -(-n * tiles // TILES))
    return -(-n // chunks)


def all_tiles(matrix, x, th, tw, pad):
    """The :func:`tiles` of all images."""
    n, _, _, c = x.shape
    y = np.empty((SIZE, SIZE, n, th * tw, c), x.dtype)

    def compute(images):
        tiles(matrix, x[images], th, tw, pad, y[:, :, images])
    parallel_for(compute, n, -(-n // BLOCKS), y.size)
    return y.reshape(SIZE, SIZE, -1, c)


def tiles(matrix, x, th, tw, pad, out=None):
    """``matrix @ tile @ matrix.T`` for the tiles of some images: (6, 6, tiles, C).

    Tiles are as large as the matrix has columns, and begin at every fourth pixel.
    """
    n, _, _, c = x.shape
    size = matrix.shape[1]
    h, w = OUT * (th - 1) + size, OUT * (tw - 1) + size
    x = padded(x, h, w, pad)
    item = x.itemsize
    rows = as_strided(x, (n, th, size, w * c), (h * w * c * item, OUT * w * c * item,
                                                w * c * item, item), writeable=False)
    half = np.empty((SIZE, n, th, w * c), x.dtype)
    np.matmul(matrix, rows, out=half.transpose(1, 2, 0, 3))
    columns = as_strided(half, (SIZE, n, th, tw, size, c), (
        n * th * w * c * item, th * w * c * item, w * c * item, OUT * c * item, c * item, item),
        writeable=False)
    if out is None:
        out = np.empty((SIZE, SIZE, n, th * tw, c), x.dtype)
    np.matmul(matrix, columns,
              out=out.reshape(SIZE, SIZE, n, th, tw, c).transpose(0, 2, 3, 4, 1, 5))
    return out.reshape(SIZE, SIZE, -1, c)


def padded(x, h, w, pad):
    """Images in the middle of zeros, or cut off, so that they have h rows and w columns."""
    (top, left), (n, x_h, x_w, c) = pad, x.shape
    if (h, w) == (x_h, x_w):
        return np.ascontiguousarray(x)
    y = np.zeros((n, h, w, c), x.dtype)
    inside = y[:, top:top + x_h, left:left + x_w]
    inside[...] = x[:, :inside.shape[1], :inside.shape[2]]
    return y


def untiled(matrix, M, th, tw):
    """Images whose tiles are ``matrix @ M @ matrix.T``: (N, 4 * th, 4 * tw, O)."""
    out = M.shape[3]
    half = matrix @ M.reshape(SIZE, SIZE, -1).swapaxes(0, 1)
    y = matrix @ half.reshape(SIZE, OUT, -1, th, tw, out).transpose(2, 3, 1, 4, 0, 5)
    return y.reshape(-1, OUT * th, OUT * tw, out)


def kernel_tiles(G, W):
    """G w G^T for all kernels, of shape (3, 3, C, O): a contiguous (6, 6, C, O) array."""
    _, _, c, out = W.shape
    half = G @ np.ascontiguousarray(W).reshape(3, 3, -1).swapaxes(0, 1)
    return (G @ half.swapaxes(0, 1)).reshape(SIZE, SIZE, c, out)


def kernel_gradient(G, U):
    """The gradient of the kernels for that of :func:`kernel_tiles`: (O, 3, 3, C)."""
    _, _, out, c = U.shape
    half = G.T @ U.reshape(SIZE, SIZE, -1).swapaxes(0, 1)
    return G.T @ half.reshape(SIZE, 3, out, c).transpose(2, 1, 0, 3)
