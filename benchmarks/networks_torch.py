"""The networks of ``model`` in PyTorch, layer by layer what Chainer computes."""
from torch import nn


def network(architecture, stem):
    """The twin of ``model.ARCHITECTURES[architecture](10, stem)``."""
    block, counts = NETWORKS[architecture]
    is_wide = architecture.startswith('wrn')
    n_in, groups = (16, (160, 320, 640)) if is_wide else (64, (64, 128, 256, 512))
    size, stride = (7, 2) if stem == 'imagenet' else (3, 1)
    layers = [nn.Conv2d(3, n_in, size, stride, size // 2, bias=architecture == 'resnet50')]
    if issubclass(block, Block):
        layers += bn_relu(n_in)
    if stem == 'imagenet':
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    for count, n in zip(counts, groups, strict=True):
        for i in range(count):
            layers.append(block(n_in, n, 2 if n != groups[0] and i == 0 else 1))
            n_in = block.expansion * n
    if is_wide:
        layers += bn_relu(n_in)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 10))


def conv(n_in, n_out, size, stride=1):
    return nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)


def bn_relu(n):
    return nn.BatchNorm2d(n), nn.ReLU(inplace=True)


def basic(n_in, n, stride):
    return conv(n_in, n, 3, stride), *bn_relu(n), conv(n, n, 3)


def bottleneck(n_in, n, first, second):
    """Convolutions with BN and ReLU between them; ``first`` and ``second`` are two strides."""
    return (conv(n_in, n, 1, first), *bn_relu(n), conv(n, n, 3, second), *bn_relu(n),
            conv(n, 4 * n, 1))


class Block(nn.Module):
    """A sum, then ReLU."""

    def __init__(self, n_in, n, stride):
        super().__init__()
        n_out = self.expansion * n
        self.main = nn.Sequential(*self.convolutions(n_in, n, stride), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Identity() if n_in == n_out else nn.Sequential(
            conv(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x):
        return nn.functional.relu(self.main(x) + self.shortcut(x), inplace=True)


class BasicBlock(Block):
    expansion, convolutions = 1, staticmethod(basic)


class Bottleneck(Block):
    """The stride is in the first convolution, as in Chainer's ResNet50Layers."""

    expansion = 4

    def convolutions(self, n_in, n, stride):
        return bottleneck(n_in, n, stride, 1)


class PreAct(nn.Module):
    """BN and ReLU, then a sum."""

    def __init__(self, n_in, n, stride):
        super().__init__()
        n_out = self.expansion * n
        self.first = nn.Sequential(*bn_relu(n_in))
        self.main = nn.Sequential(*self.convolutions(n_in, n, stride))
        self.shortcut = None if n_in == n_out else conv(n_in, n_out, 1, stride)

    def forward(self, x):
        h = self.first(x)
        return self.main(h) + (self.shortcut(h) if self.shortcut else x)


class PreActBlock(PreAct):
    expansion, convolutions = 1, staticmethod(basic)


class PreActBottleneck(PreAct):
    expansion = 4

    def convolutions(self, n_in, n, stride):
        return bottleneck(n_in, n, 1, stride)


# The class of the blocks, and how many each group has
NETWORKS = {
    'resnet50': (Bottleneck, (3, 4, 6, 3)), 'resnet18': (BasicBlock, (2, 2, 2, 2)),
    'preactresnet18': (PreActBlock, (2, 2, 2, 2)), 'preactresnet34': (PreActBlock, (3, 4, 6, 3)),
    'preactresnet50': (PreActBottleneck, (3, 4, 6, 3)), 'wrn28-10': (PreActBlock, (4, 4, 4))}
