"""The networks of the benchmarks in Chainer; their twins are in networks_torch.py."""
import chainer
import chainer.functions as F
import chainer.links as L

from model import ResNet50


def network(architecture, stem):
    """model.ResNet50, or a pre-activation network that stands in until ``model`` has it."""
    if architecture == 'resnet50':
        return ResNet50(10, stem)
    return {'preactresnet18': preactresnet18, 'wrn28-10': wrn28_10}[architecture]()


def preactresnet18():
    """PreActResNet-18 as is usual for CIFAR: nothing between the last block and the pooling."""
    return preact(64, 2, ((64, 1), (128, 2), (256, 2), (512, 2)))


def wrn28_10():
    """Wide ResNet 28-10 (Zagoruyko and Komodakis, 2016) without dropout."""
    return preact(16, 4, ((160, 1), (320, 2), (640, 2)), L.BatchNormalization(640), F.relu)


def preact(n_in, depth, groups, *last):
    layers = [L.Convolution2D(3, n_in, 3, 1, 1, nobias=True)]
    for n_out, stride in groups:
        layers.append(PreActBlock(n_in, n_out, stride))
        layers += [PreActBlock(n_out, n_out, 1) for _ in range(depth - 1)]
        n_in = n_out
    return chainer.Sequential(*layers, *last, lambda h: F.average_pooling_2d(h, h.shape[2:]),
                              L.Linear(n_in, 10))


class PreActBlock(chainer.Chain):

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        with self.init_scope():
            self.bn1 = L.BatchNormalization(n_in)
            self.conv1 = L.Convolution2D(n_in, n_out, 3, stride, 1, nobias=True)
            self.bn2 = L.BatchNormalization(n_out)
            self.conv2 = L.Convolution2D(n_out, n_out, 3, 1, 1, nobias=True)
            if n_in != n_out:
                self.shortcut = L.Convolution2D(n_in, n_out, 1, stride, nobias=True)

    def forward(self, x):
        h = F.relu(self.bn1(x))
        x = self.shortcut(h) if hasattr(self, 'shortcut') else x
        h = self.conv1(h)
        return self.conv2(F.relu(self.bn2(h))) + x
