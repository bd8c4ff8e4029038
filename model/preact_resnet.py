"""PreActResNet-18, -34 and -50 that can mix their hidden states after any stage.

On 32x32 images, ``stem='cifar'``:

    layer_mix   after       shape of h          in PreActResNet-50
    0           the input   (N,   3, 32, 32)
    1           conv1       (N,  64, 32, 32)
    2           res2        (N,  64, 32, 32)    (N,  256, 32, 32)
    3           res3        (N, 128, 16, 16)    (N,  512, 16, 16)
    4           res4        (N, 256,  8,  8)    (N, 1024,  8,  8)
    5           res5        (N, 512,  4,  4)    (N, 2048,  4,  4)
"""
import chainer
import chainer.functions as F
import chainer.links as L

from mixup import ManifoldMixupNetwork
from model.residual import Group, convolution


class PreActBlock(chainer.Chain):
    """Two 3x3 convolutions, each after BN and ReLU, and a shortcut.

    Args:
        n_in (int): Channels of the input.
        n (int): Channels of both convolutions, and of the output.
        stride (int): That of the first convolution.
    """

    expansion = 1  # channels of the output to n

    def __init__(self, n_in, n, stride):
        super().__init__()
        with self.init_scope():
            self.bn1 = L.BatchNormalization(n_in)
            self.conv1 = convolution(n_in, n, 3, stride)
            self.bn2 = L.BatchNormalization(n)
            self.conv2 = convolution(n, n, 3)
            self.shortcut = projection(n_in, n, stride)

    def forward(self, x):
        h = F.relu(self.bn1(x))
        shortcut = self.shortcut(h) if self.shortcut else x
        h = self.conv1(h)
        h = self.conv2(F.relu(self.bn2(h)))
        return h + shortcut


class PreActBottleneck(chainer.Chain):
    """Convolutions 1x1, 3x3 and 1x1, each after BN and ReLU, and a shortcut.

    Args:
        n_in (int): Channels of the input.
        n (int): Channels of the first two convolutions; the output has four times as many.
        stride (int): That of the second convolution.
    """

    expansion = 4

    def __init__(self, n_in, n, stride):
        super().__init__()
        with self.init_scope():
            self.bn1 = L.BatchNormalization(n_in)
            self.conv1 = convolution(n_in, n, 1)
            self.bn2 = L.BatchNormalization(n)
            self.conv2 = convolution(n, n, 3, stride)
            self.bn3 = L.BatchNormalization(n)
            self.conv3 = convolution(n, 4 * n, 1)
            self.shortcut = projection(n_in, 4 * n, stride)

    def forward(self, x):
        h = F.relu(self.bn1(x))
        shortcut = self.shortcut(h) if self.shortcut else x
        h = self.conv1(h)
        h = self.conv2(F.relu(self.bn2(h)))
        h = self.conv3(F.relu(self.bn3(h)))
        return h + shortcut


def projection(n_in, n_out, stride):
    """The 1x1 convolution of a shortcut, or None where the input has the shape of the output."""
    return None if n_in == n_out and stride == 1 else convolution(n_in, n_out, 1, stride)


class PreActResNet(ManifoldMixupNetwork):
    """A residual network with pre-activation (He et al., 2016b, https://arxiv.org/abs/1603.05027).

    As in the Manifold Mixup authors' code, and as is usual for CIFAR, nothing lies between the last
    block and the global average pooling, where He et al. have BN and ReLU.  The stem is linear, so
    mixing after it is mixing the input.

    Subclasses set ``block``, the class of the blocks, and ``counts``, how many each group has.

    Args:
        n_class (int): Number of classes.
        stem (str): ``'cifar'``, a 3x3 convolution without BN, is the only one.

    Raises:
        ValueError: If there is no such stem.
    """

    layers = range(6)
    stems = ('cifar',)

    def __init__(self, n_class=10, stem='cifar'):
        super().__init__()
        if stem not in self.stems:
            raise ValueError(f"stem must be 'cifar', not {stem!r}")
        block, counts, expansion = self.block, self.counts, self.block.expansion
        with self.init_scope():
            self.conv1 = convolution(3, 64, 3)
            self.res2 = Group(block, counts[0], 64, 64)
            self.res3 = Group(block, counts[1], expansion * 64, 128, 2)
            self.res4 = Group(block, counts[2], expansion * 128, 256, 2)
            self.res5 = Group(block, counts[3], expansion * 256, 512, 2)
            self.fc = L.Linear(expansion * 512, n_class)

    @property
    def stages(self):
        return F.identity, self.conv1, self.res2, self.res3, self.res4, self.res5

    def head(self, h):
        return self.fc(F.average_pooling_2d(h, h.shape[2:]))


class PreActResNet18(PreActResNet):
    """Two basic blocks in each group: 11,171,146 parameters with 10 classes."""

    block, counts = PreActBlock, (2, 2, 2, 2)


class PreActResNet34(PreActResNet):
    """3, 4, 6 and 3 basic blocks: 21,279,306 parameters with 10 classes."""

    block, counts = PreActBlock, (3, 4, 6, 3)


class PreActResNet50(PreActResNet):
    """3, 4, 6 and 3 bottlenecks: 23,509,066 parameters with 10 classes."""

    block, counts = PreActBottleneck, (3, 4, 6, 3)
