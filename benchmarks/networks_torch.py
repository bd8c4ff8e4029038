"""The networks of the benchmarks in PyTorch, layer by layer what Chainer computes."""
from torch import nn

# Channels of the first convolution, blocks in a group, channels and stride of each group, and
# whether BN and ReLU follow the last one.
PREACT = {'preactresnet18': (64, 2, ((64, 1), (128, 2), (256, 2), (512, 2)), False),
          'wrn28-10': (16, 4, ((160, 1), (320, 2), (640, 2)), True)}


def network(architecture, stem):
    """model.ResNet50 (a bias in the first convolution, strides in the 1x1), or one of PREACT."""
    if architecture == 'resnet50':
        size, stride = (7, 2) if stem == 'imagenet' else (3, 1)
        n_in = 64
        layers = [nn.Conv2d(3, n_in, size, stride, size // 2), *bn_relu(n_in)]
        if stem == 'imagenet':
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for count, n_mid, stride in (3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2):
            for i in range(count):
                layers.append(Bottleneck(n_in, n_mid, 1 if i else stride))
                n_in = 4 * n_mid
    else:
        n_in, depth, groups, ends_in_bn = PREACT[architecture]
        layers = [conv(3, n_in, 3)]
        for n_out, stride in groups:
            layers.append(PreActBlock(n_in, n_out, stride))
            layers += [PreActBlock(n_out, n_out, 1) for _ in range(depth - 1)]
            n_in = n_out
        layers += bn_relu(n_in) if ends_in_bn else ()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 10))


def conv(n_in, n_out, size, stride=1):
    return nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)


def bn_relu(n):
    return nn.BatchNorm2d(n), nn.ReLU(inplace=True)


class Bottleneck(nn.Module):

    def __init__(self, n_in, n_mid, stride):
        super().__init__()
        n_out = 4 * n_mid
        self.main = nn.Sequential(
            conv(n_in, n_mid, 1, stride), *bn_relu(n_mid), conv(n_mid, n_mid, 3), *bn_relu(n_mid),
            conv(n_mid, n_out, 1), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Identity() if n_in == n_out else nn.Sequential(
            conv(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x):
        return nn.functional.relu(self.main(x) + self.shortcut(x), inplace=True)


class PreActBlock(nn.Module):

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.first = nn.Sequential(*bn_relu(n_in))
        self.main = nn.Sequential(
            conv(n_in, n_out, 3, stride), *bn_relu(n_out), conv(n_out, n_out, 3))
        self.shortcut = None if n_in == n_out else conv(n_in, n_out, 1, stride)

    def forward(self, x):
        h = self.first(x)
        return self.main(h) + (self.shortcut(h) if self.shortcut else x)
