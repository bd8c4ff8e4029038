"""ResNet-18 that can mix its hidden states after any stage.

On 32x32 images:

    layer_mix   after       shape of h, stem='imagenet'     stem='cifar'
    0           the input   (N,   3, 32, 32)                (N,   3, 32, 32)
    1           the stem    (N,  64,  8,  8)                (N,  64, 32, 32)
    2           res2        (N,  64,  8,  8)                (N,  64, 32, 32)
    3           res3        (N, 128,  4,  4)                (N, 128, 16, 16)
    4           res4        (N, 256,  2,  2)                (N, 256,  8,  8)
    5           res5        (N, 512,  1,  1)                (N, 512,  4,  4)
"""
import chainer
import chainer.functions as F
import chainer.links as L

from mixup import ManifoldMixupNetwork
from model.residual import Group, convolution


class BasicBlock(chainer.Chain):
    """Two 3x3 convolutions, each followed by BN, and a shortcut; ReLU after the first and the sum.

    Args:
        n_in (int): Channels of the input.
        n (int): Channels of both convolutions, and of the output.
        stride (int): That of the first convolution.
    """

    expansion = 1  # channels of the output to n

    def __init__(self, n_in, n, stride):
        super().__init__()
        with self.init_scope():
            self.conv1 = convolution(n_in, n, 3, stride)
            self.bn1 = L.BatchNormalization(n)
            self.conv2 = convolution(n, n, 3)
            self.bn2 = L.BatchNormalization(n)
            self.shortcut = None if n_in == n and stride == 1 else chainer.Sequential(
                convolution(n_in, n, 1, stride), L.BatchNormalization(n))

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        shortcut = self.shortcut(x) if self.shortcut else x
        return F.relu(h + shortcut)


class ResNet18(ManifoldMixupNetwork):
    """ResNet-18 (He et al., 2016a, https://arxiv.org/abs/1512.03385) with projection shortcuts.

    It has 11,173,962 parameters with 10 classes and ``stem='cifar'``.

    Args:
        n_class (int): Number of classes.
        stem (str): ``'imagenet'`` is a 7x7 convolution with stride 2 and 3x3 max pooling with
            stride 2; ``'cifar'`` a 3x3 convolution alone, usual for 32x32 images.

    Raises:
        ValueError: If there is no such stem.
    """

    layers = range(6)
    stems = 'imagenet', 'cifar'

    def __init__(self, n_class=10, stem='imagenet'):
        super().__init__()
        if stem not in self.stems:
            raise ValueError(f"stem must be 'imagenet' or 'cifar', not {stem!r}")
        self.pool = stem == 'imagenet'
        with self.init_scope():
            if stem == 'imagenet':
                self.conv1 = convolution(3, 64, 7, 2)
            else:
                self.conv1 = convolution(3, 64, 3)
            self.bn1 = L.BatchNormalization(64)
            self.res2 = Group(BasicBlock, 2, 64, 64)
            self.res3 = Group(BasicBlock, 2, 64, 128, 2)
            self.res4 = Group(BasicBlock, 2, 128, 256, 2)
            self.res5 = Group(BasicBlock, 2, 256, 512, 2)
            self.fc = L.Linear(512, n_class)

    @property
    def stages(self):
        return F.identity, self.stem, self.res2, self.res3, self.res4, self.res5

    def stem(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.max_pooling_2d(h, 3, stride=2) if self.pool else h

    def head(self, h):
        return self.fc(F.average_pooling_2d(h, h.shape[2:]))
