"""Convolution by 3x3 kernels with stride 1: Winograd's F(2x2, 3x3), as in Lavin & Gray (2016).

Tiles of 2x2 outputs are sums of 4x4 products, 16 where the definition takes 36:

    y = A^T ((G w G^T) * (B^T x B)) A

with x one channel of a tile of 4x4 inputs, w the kernel, and the product * summed over the
channels: for a batch, these are 16 products of matrices (tiles, C) @ (C, O).  The gradients are the
transposes of the same sums.  Shapes and dtypes are those of ``convolution.py``.

The rows of the 4x4 are done one after another, for a chunk of images with some hundred tiles at a
time, so that everything that belongs to a chunk stays in the cache.
"""
import numpy as np

from engine.cpu.threads import parallel_for

# Tiles of a chunk: enough that BLAS seldom rearranges the kernels, and seldom adds to the gradients
# of the weights; few enough that what belongs to them stays in the cache.
TILES = 128
ELEMENTS = 1 << 15  # of a chunk's inputs at one of the 4x4 places, where channels are few
FEWEST = 32  # channels; with fewer, the transforms take longer than the products
BLOCKS = 4  # of images, each with a weight gradient of its own, which are added at the end

# Each row of B^T as an operation and the two of four operands to which it applies.
B = (np.subtract, 0, 2), (np.add, 1, 2), (np.subtract, 2, 1), (np.subtract, 1, 3)


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
    tiled = [4 * tiles_along(out) for out in sizes]
    return 2 * direct[0] * direct[1] > 3 * tiled[0] * tiled[1]


def tiles_along(size):
    """The number of tiles that cover so many outputs in a row."""
    return -(-size // 2)


def forward(x, W, pad):
    """The convolution of x."""
    return filtered(x, kernel_tiles(W).swapaxes(2, 3), pad)


def input_gradient(gy, W, pad):
    """The gradient of x for the gradient gy of y."""
    # The convolution with the kernel turned by 180 degrees, whose tiles have their outer rows, and
    # their outer columns, exchanged.
    return filtered(gy, kernel_tiles(W, outer=(3, 0)), tuple(2 - p for p in pad))


def filtered(x, U, pad):
    """The convolution of x by kernels whose tiles are U, (4, 4, C, O)."""
    n, h, w, c = x.shape
    out = U.shape[3]
    h, w = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    th, tw = tiles_along(h), tiles_along(w)
    y = np.empty((n, h, w, out), x.dtype)

    def convolve(images):
        inputs = InputTiles(x[images], th, tw, pad)
        M = np.empty((4, inputs.count, out), x.dtype)
        S = np.empty((2, *M.shape), x.dtype)
        np.matmul(inputs.row(0), U[0], out=S[0])
        np.matmul(inputs.row(1), U[1], out=S[1])
        S[0] += S[1]
        np.matmul(inputs.row(2), U[2], out=M)
        S[0] += M
        S[1] -= M
        np.matmul(inputs.row(3), U[3], out=M)
        S[1] -= M
        for i, (s0, s1, s2, s3) in enumerate(S):
            s0 += s1
            s1 -= s2
            for j, (op, p, q) in enumerate(((np.add, s0, s2), (np.subtract, s1, s3))):
                outputs = y[images, i::2, j::2]
                _, rows, columns, _ = outputs.shape
                p, q = (s.reshape(-1, th, tw, out)[:, :rows, :columns] for s in (p, q))
                op(p, q, out=outputs)
    parallel_for(convolve, n, chunk_size(n, th * tw, max(c, out)), y.size * c)
    return y


def weight_gradient(x, gy, pad):
    """The gradient of W for the gradient gy of y."""
    n, h, w, out = gy.shape
    c = x.shape[3]
    th, tw = tiles_along(h), tiles_along(w)
    size = chunk_size(n, th * tw, max(c, out))

    def accumulate(block):
        U = np.empty((4, 4, out, c), x.dtype)
        for start in range(block.start, block.stop, size):
            images = slice(start, min(start + size, block.stop))
            inputs = InputTiles(x[images], th, tw, pad)
            outputs = OutputTiles(gy[images], th, tw)
            for a in range(4):
                factors = outputs.row(a).swapaxes(1, 2), inputs.row(a)
                if start == block.start:
                    np.matmul(*factors, out=U[a])
                else:
                    U[a] += np.matmul(*factors)
        return U
    U, *others = parallel_for(accumulate, n, max(size, -(-n // BLOCKS)), gy.size * c)
    for other in others:
        U += other
    return kernel_gradient(U)


def chunk_size(n, tiles, channels):
    """How many of n images, of so many tiles each, are done at once: half of them at most."""
    at_once = max(TILES, ELEMENTS // channels, channels // 2)
    chunks = max(2, -(-n * tiles // at_once))
    return -(-n // chunks)


class InputTiles:
    """B^T x B for the tiles of some images.

    Attributes:
        count (int): The number of tiles.
    """

    def __init__(self, x, th, tw, pad):
        n, _, _, c = x.shape
        x = split(x, 2 * th + 2, tw + 1, pad)
        self.lines = [x[:, :, first:first + 2 * th:2] for first in range(4)]
        self.vertical = np.empty(self.lines[0].shape, x.dtype)
        self.columns = [half[:, :, first:first + tw] for first in (0, 1) for half in self.vertical]
        self.both = np.empty((4, n, th, tw, c), x.dtype)
        self.count = n * th * tw

    def row(self, a):
        """Row a of each transformed tile: (4, tiles, C), overwritten by the next call."""
        op, p, q = B[a]
        op(self.lines[p], self.lines[q], out=self.vertical)
        for (op, p, q), out in zip(B, self.both):
            op(self.columns[p], self.columns[q], out=out)
        return self.both.reshape(4, self.count, -1)


class OutputTiles:
    """A gy A^T for the tiles of some images, with the signs of its last row and column reversed.

    Attributes:
        count (int): The number of tiles.
    """

    def __init__(self, gy, th, tw):
        n, _, _, out = gy.shape
        gy = split(gy, 2 * th, tw, (0, 0))
        self.lines = gy[:, :, ::2], gy[:, :, 1::2]
        self.both = np.empty((4, n, th, tw, out), gy.dtype)
        self.count = n * th * tw

    def row(self, a):
        """Row a of each transformed tile: (4, tiles, O), overwritten by the next call."""
        out = self.both[::3]
        if a in (0, 3):
            out[...] = self.lines[a // 3]
        else:
            (np.add if a == 1 else np.subtract)(*self.lines, out=out)
        first, plus, minus, last = self.both
        np.add(first, last, out=plus)
        np.subtract(first, last, out=minus)
        return self.both.reshape(4, self.count, -1)


def split(x, rows, columns, pad):
    """Images padded with zeros, with their even columns apart from the odd ones.

    Returns:
        numpy.ndarray: (2, N, rows, columns, C); first the even columns, then the odd ones.
    """
    n, h, w, c = x.shape
    top, left = pad
    parts = np.empty((2, n, rows, columns, c), x.dtype)
    parts[:, :, :top] = parts[:, :, top + h:] = 0
    for parity in (0, 1):
        pixels = x[:, :, (parity + left) % 2::2]
        first = (left + 1 - parity) // 2
        last = first + pixels.shape[2]
        part = parts[parity, :, top:top + h]
        part[:, :, :first] = part[:, :, last:] = 0
        part[:, :, first:last] = pixels
    return parts


def kernel_tiles(W, outer=(0, 3)):
    """G w G^T for all kernels, (4, 4, O, C).

    Its first and its last row and column are stored at the indexes ``outer``.
    """
    out, _, _, c = W.shape
    U = np.empty((4, 4, out, c), W.dtype)

    def transform(block):
        w = W[block].transpose(1, 2, 0, 3)
        vertical = np.empty((4, 3, *w.shape[2:]), W.dtype)
        expand(w, vertical, outer)
        expand(vertical.swapaxes(0, 1), U[:, :, block].swapaxes(0, 1), outer)
    parallel_for(transform, out, 64, U.size)
    return U


def expand(w, out, outer):
    """Write G w, along the first axis, to ``out``."""
    half = w.dtype.type(.5)
    first, last = outer
    out[first] = w[0]
    out[last] = w[2]
    mean = np.add(w[0], w[2], out=out[1])
    mean *= half
    middle = w[1] * half
    np.subtract(mean, middle, out=out[2])
    mean += middle


def kernel_gradient(U):
    """The gradient of the kernels for that of :func:`kernel_tiles`: (O, 3, 3, C)."""
    _, _, out, c = U.shape
    gW = np.empty((out, 3, 3, c), U.dtype)

    def transform(block):
        u = U[:, :, block]
        vertical = np.empty((3, *u.shape[1:]), U.dtype)
        contract(u, vertical)
        contract(vertical.swapaxes(0, 1), gW[block].transpose(2, 1, 0, 3))
    parallel_for(transform, out, 64, U.size)
    return gW


def contract(u, out):
    """Write G^T u, along the first axis, to ``out``; the sign of the last row of u is reversed."""
    half = u.dtype.type(.5)
    total = np.add(u[1], u[2], out=out[2])
    total *= half
    np.add(u[0], total, out=out[0])
    np.subtract(u[1], u[2], out=out[1])
    out[1] *= half
    total -= u[3]
