"""ResNet-50 that can mix its hidden maps after any stage.

On 32x32 images, ``stem='imagenet'``:

    layer_mix   after            shape of h
    0           the input        (N,    3, 32, 32)
    1           conv1 ... pool   (N,   64,  8,  8)
    2           res2             (N,  256,  8,  8)
    3           res3             (N,  512,  4,  4)
    4           res4             (N, 1024,  2,  2)
    5           res5             (N, 2048,  1,  1)
"""
from collections.abc import Iterable

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.links.model.vision.resnet import BuildingBlock

from mixup import mixup_data


class BaseResNet50(chainer.Chain):
    """The convolutional part of ResNet-50 (He et al., 2016), built from Chainer's blocks.

    Its parameters have the names and shapes of Chainer's ``ResNet50Layers``, so that ImageNet
    weights for that network fit.

    Args:
        stem (str): ``'imagenet'`` is a 7x7 convolution with stride 2 and 3x3 max pooling with
            stride 2; ``'cifar'`` a 3x3 convolution alone, usual for 32x32 images.

    Raises:
        ValueError: If there is no such stem.
    """

    layers = range(6)  # where layer_mix may be

    def __init__(self, stem='imagenet'):
        super().__init__()
        if stem not in ('imagenet', 'cifar'):
            raise ValueError(f"stem must be 'imagenet' or 'cifar', not {stem!r}")
        self.pool = stem == 'imagenet'
        with self.init_scope():
            if stem == 'imagenet':
                self.conv1 = L.Convolution2D(3, 64, 7, 2, 3)
            else:
                self.conv1 = L.Convolution2D(3, 64, 3, 1, 1)
            self.bn1 = L.BatchNormalization(64)
            self.res2 = BuildingBlock(3, 64, 64, 256, 1)
            self.res3 = BuildingBlock(4, 256, 128, 512, 2)
            self.res4 = BuildingBlock(6, 512, 256, 1024, 2)
            self.res5 = BuildingBlock(3, 1024, 512, 2048, 2)

    def stem(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.max_pooling_2d(h, 3, stride=2) if self.pool else h

    def forward(self, x, target=None, mixup_hidden=False, lam=None, layer_mix=None, index=None):
        """Hidden maps of the last stage, mixed on the way where that is asked for.

        Args:
            x (array or chainer.Variable): Images, float, shape ``(N, 3, H, W)``.
            target (array): Their labels, int, shape ``(N,)``; needed where they are mixed.
            mixup_hidden (bool): Whether to mix, with ``lam`` (needed then) and ``index`` as in
                :func:`mixup.mixup_data`.
            layer_mix (int, collection of int, or None): Where to mix: 0 the input, 1 after the
                stem, 2-5 after res2-res5.  One of a collection, or of all where it is None, is
                drawn from NumPy's global generator.

        Returns:
            ``h``, shape ``(N, 2048, H', W')``; with ``mixup_hidden`` ``(h, t_a, t_b)``.

        Raises:
            ValueError: If a layer is outside 0-5, or if what mixing needs is missing.
        """
        if mixup_hidden and (target is None or lam is None):
            raise ValueError('mixup_hidden needs target and lam')
        layer_mix = self.draw_layer(layer_mix) if mixup_hidden else None

        h = x
        stages = F.identity, self.stem, self.res2, self.res3, self.res4, self.res5
        for layer, stage in enumerate(stages):
            h = stage(h)
            if layer == layer_mix:
                h, t_a, t_b = mixup_data(h, target, lam, index)

        return (h, t_a, t_b) if mixup_hidden else h

    def draw_layer(self, layer_mix):
        """One layer out of what :meth:`forward` takes as ``layer_mix``."""
        if layer_mix is None:
            layer_mix = self.layers
        eligible = list(layer_mix) if isinstance(layer_mix, Iterable) else [layer_mix]
        if not eligible or any(layer not in self.layers for layer in eligible):
            raise ValueError(f'layer_mix must be in 0-5, not {layer_mix}')
        return np.random.choice(eligible)


class ResNet50(chainer.Chain):
    """:class:`BaseResNet50`, global average pooling and a linear classifier.

    Args:
        n_class (int): Number of classes.
        stem (str): See :class:`BaseResNet50`.
    """

    layers = BaseResNet50.layers

    def __init__(self, n_class=10, stem='imagenet'):
        super().__init__()
        with self.init_scope():
            self.base = BaseResNet50(stem)
            self.fc6 = L.Linear(2048, n_class)

    def forward(self, x, target=None, mixup_hidden=False, lam=None, layer_mix=None, index=None):
        """Logits ``y``, shape ``(N, n_class)``; with ``mixup_hidden`` ``(y, t_a, t_b)``.

        The arguments are those of :meth:`BaseResNet50.forward`.
        """
        h = self.base(x, target, mixup_hidden, lam, layer_mix, index)
        if not mixup_hidden:
            return self.classify(h)
        h, t_a, t_b = h
        return self.classify(h), t_a, t_b

    def classify(self, h):
        return self.fc6(F.average_pooling_2d(h, h.shape[2:]))

    def draw_layer(self, layer_mix):
        """See :meth:`BaseResNet50.draw_layer`."""
        return self.base.draw_layer(layer_mix)
