"""What the residual networks are made of: convolutions, and groups of blocks."""
import chainer
import chainer.links as L
from chainer.initializers import HeNormal


def convolution(n_in, n_out, size, stride=1):
    """A convolution without bias that keeps height and width, or divides them by ``stride``.

    Its weights have the variance 2 / (size * size * n_out), which keeps that of gradients (He et
    al., 2015), as in the programs of He et al. (2016b) and of Zagoruyko and Komodakis (2016).

    Args:
        n_in, n_out (int): Numbers of channels.
        size (int): Height and width of the filter, odd.
        stride (int): Distance between two places of the filter.
    """
    return L.Convolution2D(n_in, n_out, size, stride, size // 2, nobias=True,
                           initialW=HeNormal(fan_option='fan_out'))


class Group(chainer.ChainList):
    """Blocks in a row, of which the first has the stride.

    It is no chainer.Sequential, which gives its links their names in another order.

    Args:
        block (type): The class of the blocks, made by ``block(n_in, n, stride)``; their output has
            ``block.expansion * n`` channels.
        count (int): Number of blocks.
        n_in, n (int): Channels of the input, and within a block.
        stride (int): That of the first block.
    """

    def __init__(self, block, count, n_in, n, stride=1):
        super().__init__(block(n_in, n, stride),
                         *(block(block.expansion * n, n, 1) for _ in range(count - 1)))

    def forward(self, h):
        for block in self:
            h = block(h)
        return h
