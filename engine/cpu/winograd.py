"""Convolution by 3x3 kernels with stride 1: Winograd's F(2x2, 3x3), as in Lavin & Gray (2016).

Tiles of 2x2 outputs are sums of 4x4 products, 16 where the definition takes 36:

    y = A^T ((G w G^T) * (B^T x B)) A

with x a tile of 4x4 inputs, one channel of it, w the kernel, and the product * summed over the
channels, which makes 16 products of matrices (tiles, C) @ (C, O) of a batch.  The gradients are the
same sums read the other way.  Shapes are those of ``convolution.py``.

All is done for one row of the 4x4 after another, over as many images as have some hundred tiles, so
that what belongs to them stays in the cache.
"""
import numpy as np

from engine.cpu.threads import each

# Tiles at once: enough that BLAS seldom rearranges the kernels, and seldom adds to the gradients of
# the weights; few enough that what belongs to them stays in the cache.
TILES = 128
ELEMENTS = 1 << 15  # of the inputs at one of the 4x4 places, where channels are few
FEWEST = 32  # channels; with fewer, the transforms take longer than the products
SHARES = 4  # of the images, whose gradients of the weights are added at the end

# Each row of B^T as what is done to which two of four operands.
B = (np.subtract, 0, 2), (np.add, 1, 2), (np.subtract, 2, 1), (np.subtract, 1, 3)


def suits(x_shape, w_shape, stride, pad):
    """Whether this is a convolution for this file, and saves at least a third of the products."""
    if (w_shape[1:3], stride) != ((3, 3), (1, 1)) or max(pad) > 2:
        return False
    if min(w_shape[0], w_shape[3]) < FEWEST:
        return False
    sizes = [size + 2 * p - 2 for size, p in zip(x_shape[1:3], pad)]
    # outputs times taps, without those that meet padding
    direct = [sum(min(3, size + p - i) - max(0, p - i) for i in range(out))
              for size, out, p in zip(x_shape[1:3], sizes, pad)]
    tiled = [4 * tiles_along(out) for out in sizes]
    return 2 * direct[0] * direct[1] > 3 * tiled[0] * tiled[1]


def tiles_along(size):
    return -(-size // 2)


def forward(x, W, pad):
    return filtered(x, kernel_tiles(W).swapaxes(2, 3), pad)


def input_gradient(gy, W, pad):
    # The convolution with the kernel turned by half, which exchanges the outer rows of its tiles.
    return filtered(gy, kernel_tiles(W, outer=(3, 0)), tuple(2 - p for p in pad))


def filtered(x, U, pad):
    """y, of U (4, 4, C, O)."""
    n, h, w, c = x.shape
    out = U.shape[3]
    h, w = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    th, tw = tiles_along(h), tiles_along(w)
    y = np.empty((n, h, w, out), x.dtype)

    def part(images):
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
                met = y[images, i::2, j::2]
                p, q = (s.reshape(-1, th, tw, out)[:, :met.shape[1], :met.shape[2]] for s in (p, q))
                op(p, q, out=met)
    each(part, n, images_at_once(n, th * tw, max(c, out)), y.size * c)
    return y


def weight_gradient(x, gy, pad):
    n, h, w, out = gy.shape
    c = x.shape[3]
    th, tw = tiles_along(h), tiles_along(w)
    size = images_at_once(n, th * tw, max(c, out))

    def part(share):
        U = np.empty((4, 4, out, c), x.dtype)
        for start in range(share.start, share.stop, size):
            images = slice(start, min(start + size, share.stop))
            inputs = InputTiles(x[images], th, tw, pad)
            outputs = OutputTiles(gy[images], th, tw)
            for a in range(4):
                factors = outputs.row(a).swapaxes(1, 2), inputs.row(a)
                if start == share.start:
                    np.matmul(*factors, out=U[a])
                else:
                    U[a] += np.matmul(*factors)
        return U
    U, *others = each(part, n, max(size, -(-n // SHARES)), gy.size * c)
    for other in others:
        U += other
    return kernel_gradient(U)


def images_at_once(n, tiles, channels):
    """Half of all at most."""
    at_once = max(TILES, ELEMENTS // channels, channels // 2)
    parts = max(2, -(-n * tiles // at_once))
    return -(-n // parts)


class InputTiles:
    """B^T x B of some images."""

    def __init__(self, x, th, tw, pad):
        n, _, _, c = x.shape
        x = split(x, 2 * th + 2, tw + 1, pad)
        self.lines = [x[:, :, first:first + 2 * th:2] for first in range(4)]
        self.vertical = np.empty(self.lines[0].shape, x.dtype)
        self.columns = [part[:, :, first:first + tw] for first in (0, 1) for part in self.vertical]
        self.both = np.empty((4, n, th, tw, c), x.dtype)
        self.count = n * th * tw

    def row(self, a):
        """Of row a of each tile: (4, tiles, C), which lasts until the next call."""
        op, p, q = B[a]
        op(self.lines[p], self.lines[q], out=self.vertical)
        for (op, p, q), out in zip(B, self.both):
            op(self.columns[p], self.columns[q], out=out)
        return self.both.reshape(4, self.count, -1)


class OutputTiles:
    """A gy A^T of some images; the last row and the last column have the other sign."""

    def __init__(self, gy, th, tw):
        n, _, _, out = gy.shape
        gy = split(gy, 2 * th, tw, (0, 0))
        self.lines = gy[:, :, ::2], gy[:, :, 1::2]
        self.both = np.empty((4, n, th, tw, out), gy.dtype)
        self.count = n * th * tw

    def row(self, a):
        """Of row a of each tile: (4, tiles, O), which lasts until the next call."""
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
    """Images with zeros around them, their even and their odd columns apart: (2, N, rows, columns,
    C)."""
    n, h, w, c = x.shape
    top, left = pad
    parts = np.empty((2, n, rows, columns, c), x.dtype)
    parts[:, :, :top] = parts[:, :, top + h:] = 0
    for parity in (0, 1):
        met = x[:, :, (parity + left) % 2::2]
        first = (left + 1 - parity) // 2
        last = first + met.shape[2]
        part = parts[parity, :, top:top + h]
        part[:, :, :first] = part[:, :, last:] = 0
        part[:, :, first:last] = met
    return parts


def kernel_tiles(W, outer=(0, 3)):
    """G w G^T as (4, 4, O, C), whose outer rows and columns may change places."""
    out, _, _, c = W.shape
    U = np.empty((4, 4, out, c), W.dtype)

    def part(block):
        w = W[block].transpose(1, 2, 0, 3)
        vertical = np.empty((4, 3, *w.shape[2:]), W.dtype)
        expand(w, vertical, outer)
        expand(vertical.swapaxes(0, 1), U[:, :, block].swapaxes(0, 1), outer)
    each(part, out, 64, U.size)
    return U


def expand(w, out, outer):
    """G w along the first axis."""
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
    """The gradient of :func:`kernel_tiles` as (O, 3, 3, C)."""
    _, _, out, c = U.shape
    gW = np.empty((out, 3, 3, c), U.dtype)

    def part(block):
        u = U[:, :, block]
        vertical = np.empty((3, *u.shape[1:]), U.dtype)
        contract(u, vertical)
        contract(vertical.swapaxes(0, 1), gW[block].transpose(2, 1, 0, 3))
    each(part, out, 64, U.size)
    return gW


def contract(u, out):
    """G^T u along the first axis, the sign of whose last row is the other one."""
    half = u.dtype.type(.5)
    total = np.add(u[1], u[2], out=out[2])
    total *= half
    np.add(u[0], total, out=out[0])
    np.subtract(u[1], u[2], out=out[1])
    out[1] *= half
    total -= u[3]
