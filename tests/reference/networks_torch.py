"""The networks with Manifold Mixup, written anew in PyTorch; shares no code with ``model/``.

Each is a function of images ``h``, of ``net``, whose layers have the names of Chainer's parameters,
of ``mix``, which is called with the hidden states and the number of each layer, and of the stem.
BN has eps 2e-5, pooling covers the whole map, as in Chainer.
"""
import torch
import torch.nn.functional as F


class Layers:
    """Convolutions, BN and linear layers with given weights, in training."""

    def __init__(self, values, dtype):
        self.v = {name: torch.tensor(value, dtype=dtype) for name, value in values.items()}
        self.parameters = {name: value.requires_grad_() for name, value in self.v.items()
                           if not name.endswith(('avg_mean', 'avg_var'))}

    def conv(self, h, name, stride=1):
        W = self.v[f'{name}/W']
        return F.conv2d(h, W, self.v.get(f'{name}/b'), stride, padding=W.shape[-1] // 2)

    def bn(self, h, name):
        mean, var, gamma, beta = (
            self.v[f'{name}/{key}'] for key in ('avg_mean', 'avg_var', 'gamma', 'beta'))
        return F.batch_norm(h, mean, var, gamma, beta, training=True, momentum=0.1, eps=2e-5)

    def classifier(self, h, name):
        return F.linear(h.mean((2, 3)), self.v[f'{name}/W'], self.v[f'{name}/b'])


# He et al., 2016a

def stem_with_bn(net, h, stem, prefix=''):
    h = net.conv(h, f'{prefix}conv1', 2 if stem == 'imagenet' else 1)
    h = net.bn(h, f'{prefix}bn1').relu()
    return F.max_pool2d(h, 3, 2, ceil_mode=True) if stem == 'imagenet' else h


def resnet50(net, h, mix, stem):
    """The Caffe network that Chainer's ResNet50Layers describes: stride on the first 1x1."""
    h = mix(stem_with_bn(net, mix(h, 0), stem, 'base/'), 1)
    for layer, count in enumerate((3, 4, 6, 3), 2):
        for i in range(count):
            block = f'base/res{layer}/' + (f'b{i}' if i else 'a')
            stride = 2 if layer > 2 and not i else 1
            x = h
            h = net.bn(net.conv(x, f'{block}/conv1', stride), f'{block}/bn1').relu()
            h = net.bn(net.conv(h, f'{block}/conv2'), f'{block}/bn2').relu()
            h = net.bn(net.conv(h, f'{block}/conv3'), f'{block}/bn3')
            if not i:
                x = net.bn(net.conv(x, f'{block}/conv4', stride), f'{block}/bn4')
            h = (h + x).relu()
        h = mix(h, layer)
    return net.classifier(h, 'fc6')


def resnet18(net, h, mix, stem):
    h = mix(stem_with_bn(net, mix(h, 0), stem), 1)
    for layer in 2, 3, 4, 5:
        for i in 0, 1:
            block, downsamples = f'res{layer}/{i}', layer > 2 and i == 0
            stride = 2 if downsamples else 1
            x = h
            h = net.bn(net.conv(x, f'{block}/conv1', stride), f'{block}/bn1').relu()
            h = net.bn(net.conv(h, f'{block}/conv2'), f'{block}/bn2')
            if downsamples:
                x = net.bn(net.conv(x, f'{block}/shortcut/0', stride), f'{block}/shortcut/1')
            h = (h + x).relu()
        h = mix(h, layer)
    return net.classifier(h, 'fc')


# He et al., 2016b

def preact(net, h, mix, counts, size):
    """The stem and all groups; those of bottlenecks have ``size`` 3, the number of convolutions."""
    h = mix(net.conv(mix(h, 0), 'conv1'), 1)
    for layer, count in enumerate(counts, 2):
        for i in range(count):
            block, stride = f'res{layer}/{i}', 2 if layer > 2 and not i else 1
            x = h
            h = net.bn(x, f'{block}/bn1').relu()
            if f'{block}/shortcut/W' in net.v:
                x = net.conv(h, f'{block}/shortcut', stride)
            for j in range(1, size + 1):
                if j > 1:
                    h = net.bn(h, f'{block}/bn{j}').relu()
                h = net.conv(h, f'{block}/conv{j}', stride if j == size - 1 else 1)
            h = h + x
        h = mix(h, layer)
    return h


def preactresnet(counts, size=2):
    """No BN, no ReLU before the pooling."""
    return lambda net, h, mix, stem: net.classifier(preact(net, h, mix, counts, size), 'fc')


def wideresnet(count):
    return lambda net, h, mix, stem: net.classifier(
        net.bn(preact(net, h, mix, 3 * [count], 2), 'bn').relu(), 'fc')


NETWORKS = {
    'resnet50': resnet50, 'resnet18': resnet18, 'preactresnet18': preactresnet((2, 2, 2, 2)),
    'preactresnet34': preactresnet((3, 4, 6, 3)), 'preactresnet50': preactresnet((3, 4, 6, 3), 3),
    'wrn16-2': wideresnet(2), 'wrn28-10': wideresnet(4)}


def loss_and_gradients(architecture, values, x, t, stem, layer_mix=None, lam=None, index=None,
                       dtype='float64'):
    """One training step.

    Args:
        architecture (str): One of ``NETWORKS``.
        values (dict): Chainer's parameter and statistics names to NumPy arrays.
        x, t, index (numpy.ndarray): Images, labels, permutation.
        stem (str): ``'imagenet'`` or ``'cifar'``.
        layer_mix (int or None): Where to mix; None does not mix.

    Returns:
        tuple: loss (float), logits, gradients and new statistics by name, all NumPy.
    """
    dtype = getattr(torch, dtype)
    net = Layers(values, dtype)
    t = torch.tensor(t, dtype=torch.long)

    def mix(h, layer):
        return lam * h + (1 - lam) * h[torch.tensor(index)] if layer == layer_mix else h
    y = NETWORKS[architecture](net, torch.tensor(x, dtype=dtype), mix, stem)

    loss = F.cross_entropy(y, t)
    if layer_mix is not None:
        loss = lam * loss + (1 - lam) * F.cross_entropy(y, t[torch.tensor(index)])
    loss.backward()
    return (loss.item(), y.detach().numpy(),
            {name: value.grad.numpy() for name, value in net.parameters.items()},
            {name: value.numpy() for name, value in net.v.items() if name not in net.parameters})
