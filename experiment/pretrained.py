"""Initial weights from Chainer's ResNet-50-model.npz (ImageNet)."""
from experiment.npz import load_npz


def load_pretrained(path, network):
    """Fill ``network.base`` from the file of ``--pretrained``; None leaves it as it is.

    The classifier ``fc6`` keeps its random weights, as in the blog post: ImageNet has other
    classes.

    Raises:
        Invalid: If the file is missing or does not fit.
    """
    if path is not None:
        load_npz(path, network.base, '--pretrained')
