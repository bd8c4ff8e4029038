"""Sizes of what convolution and pooling write."""
from chainer.utils import conv


def output_size(x_shape, kernel, stride, pad=(0, 0), cover_all=False):
    """The height and width of an output, one element for each place of the window.

    Args:
        x_shape (tuple): (N, H, W, C).
        kernel, stride, pad (pair of int): Vertical and horizontal.
        cover_all (bool): Whether a last window may reach beyond the input, so that no input is
            left out.
    """
    return tuple(conv.get_conv_outsize(*axis, cover_all)
                 for axis in zip(x_shape[1:3], kernel, stride, pad))
