"""ResNet-50 with Manifold Mixup, written anew in PyTorch; shares no code with ``model/``.

Follows the Caffe network of He et al. that Chainer's ``ResNet50Layers`` describes: stride on the
first 1x1 convolution of a stage, BN with eps 2e-5, pooling that covers the whole map.
"""
import torch
import torch.nn.functional as F

STAGES = {'res2': (3, 1), 'res3': (4, 2), 'res4': (6, 2), 'res5': (3, 2)}  # blocks, stride


def loss_and_gradients(values, x, t, stem, layer_mix=None, lam=None, index=None, dtype='float64'):
    """One training step.

    Args:
        values (dict): Chainer's parameter and statistics names to NumPy arrays.
        x, t, index (numpy.ndarray): Images, labels, permutation.
        stem (str): ``'imagenet'`` or ``'cifar'``.
        layer_mix (int or None): Where to mix; None does not mix.

    Returns:
        tuple: loss (float), logits, gradients and new statistics by name, all NumPy.
    """
    dtype = getattr(torch, dtype)
    v = {name: torch.tensor(value, dtype=dtype) for name, value in values.items()}
    parameters = {name: value.requires_grad_() for name, value in v.items()
                  if not name.endswith(('avg_mean', 'avg_var'))}
    t = torch.tensor(t, dtype=torch.long)

    def bn(h, name):
        return F.batch_norm(h, v[f'{name}/avg_mean'], v[f'{name}/avg_var'], v[f'{name}/gamma'],
                            v[f'{name}/beta'], training=True, momentum=0.1, eps=2e-5)

    def conv_bn(h, block, i, stride=1, padding=0):
        return bn(F.conv2d(h, v[f'{block}/conv{i}/W'], stride=stride, padding=padding),
                  f'{block}/bn{i}')

    def bottleneck(x, block, stride, project):
        h = conv_bn(x, block, 1, stride).relu()
        h = conv_bn(h, block, 2, padding=1).relu()
        shortcut = conv_bn(x, block, 4, stride) if project else x
        return (conv_bn(h, block, 3) + shortcut).relu()

    def mix(h, layer):
        return lam * h + (1 - lam) * h[torch.tensor(index)] if layer == layer_mix else h

    h = mix(torch.tensor(x, dtype=dtype), 0)
    stride, padding = (2, 3) if stem == 'imagenet' else (1, 1)
    h = F.conv2d(h, v['base/conv1/W'], v['base/conv1/b'], stride, padding)
    h = bn(h, 'base/bn1').relu()
    if stem == 'imagenet':
        h = F.max_pool2d(h, 3, 2, ceil_mode=True)
    h = mix(h, 1)
    for layer, (stage, (blocks, stride)) in enumerate(STAGES.items(), 2):
        h = bottleneck(h, f'base/{stage}/a', stride, True)
        for i in range(1, blocks):
            h = bottleneck(h, f'base/{stage}/b{i}', 1, False)
        h = mix(h, layer)
    y = h.mean((2, 3)) @ v['fc6/W'].T + v['fc6/b']

    loss = F.cross_entropy(y, t)
    if layer_mix is not None:
        loss = lam * loss + (1 - lam) * F.cross_entropy(y, t[torch.tensor(index)])
    loss.backward()
    return (loss.item(), y.detach().numpy(),
            {name: value.grad.numpy() for name, value in parameters.items()},
            {name: value.numpy() for name, value in v.items() if name not in parameters})
