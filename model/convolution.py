"""The convolution of the residual networks."""
import chainer.links as L
from chainer.initializers import HeNormal


def convolution(n_in, n_out, size, stride=1):
    """A convolution without bias that keeps height and width, or divides them by ``stride``.

    Its weights have the variance 2 / (size * size * n_out), which keeps that of gradients (He et
    al., 2015); all the papers' own programs draw them so.

    Args:
        n_in, n_out (int): Numbers of channels.
        size (int): Height and width of the filter, odd.
        stride (int): Distance between two places of the filter.
    """
    return L.Convolution2D(n_in, n_out, size, stride, size // 2, nobias=True,
                           initialW=HeNormal(fan_option='fan_out'))
