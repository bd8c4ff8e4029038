"""WRN-28-10 that can mix its hidden states after any stage.

On 32x32 images, ``stem='cifar'``:

    layer_mix   after       shape of h
    0           the input   (N,   3, 32, 32)
    1           conv1       (N,  16, 32, 32)
    2           res2        (N, 160, 32, 32)
    3           res3        (N, 320, 16, 16)
    4           res4        (N, 640,  8,  8)
"""
import chainer.functions as F
import chainer.links as L

from mixup import ManifoldMixupNetwork
from model.preact_resnet import PreActBlock
from model.residual import Group, convolution


class WideResNet(ManifoldMixupNetwork):
    """A wide residual network (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146).

    It has no dropout.  Its blocks are the basic ones of PreActResNet.  The stem is linear, so
    mixing after it is mixing the input.

    Subclasses set ``depth``, 6 n + 4 with n blocks in a group, and ``width``, the factor on the
    channels 16, 32 and 64 of the three groups.

    Args:
        n_class (int): Number of classes.
        stem (str): ``'cifar'``, a 3x3 convolution without BN, is the only one.

    Raises:
        ValueError: If there is no such stem.
    """

    layers = range(5)
    stems = ('cifar',)

    def __init__(self, n_class=10, stem='cifar'):
        super().__init__()
        if stem not in self.stems:
            raise ValueError(f"stem must be 'cifar', not {stem!r}")
        count, width = (self.depth - 4) // 6, self.width
        with self.init_scope():
            self.conv1 = convolution(3, 16, 3)
            self.res2 = Group(PreActBlock, count, 16, 16 * width)
            self.res3 = Group(PreActBlock, count, 16 * width, 32 * width, 2)
            self.res4 = Group(PreActBlock, count, 32 * width, 64 * width, 2)
            self.bn = L.BatchNormalization(64 * width)
            self.fc = L.Linear(64 * width, n_class)

    @property
    def stages(self):
        return F.identity, self.conv1, self.res2, self.res3, self.res4

    def head(self, h):
        h = F.relu(self.bn(h))
        return self.fc(F.average_pooling_2d(h, h.shape[2:]))


class WideResNet28_10(WideResNet):
    """WRN-28-10: 36,479,194 parameters with 10 classes."""

    depth, width = 28, 10
