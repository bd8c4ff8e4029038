"""ResNet-50 that can mix its hidden states after any stage.

On 32x32 images, ``stem='imagenet'``:

    layer_mix   after            shape of h
    0           the input        (N,    3, 32, 32)
    1           conv1 ... pool   (N,   64,  8,  8)
    2           res2             (N,  256,  8,  8)
    3           res3             (N,  512,  4,  4)
    4           res4             (N, 1024,  2,  2)
    5           res5             (N, 2048,  1,  1)
"""
import chainer.functions as F
import chainer.links as L
from chainer.links.model.vision.resnet import BuildingBlock

from mixup import ManifoldMixupNetwork


class BaseResNet50(ManifoldMixupNetwork):
    """The convolutional part of ResNet-50 (He et al., 2016), built from Chainer's blocks.

    Its forward is that of :class:`mixup.ManifoldMixupNetwork`: it goes through the stages below,
    picks one of layers 0-5 where it is to mix, and calls ``mixup_data`` there.  It returns the
    hidden states of the last stage, shape ``(N, 2048, H', W')``.

    Its parameters have the names and shapes of Chainer's ``ResNet50Layers``, so that ImageNet
    weights for that network fit.

    Args:
        stem (str): ``'imagenet'`` is a 7x7 convolution with stride 2 and 3x3 max pooling with
            stride 2; ``'cifar'`` a 3x3 convolution alone, usual for 32x32 images.

    Raises:
        ValueError: If there is no such stem.
    """

    layers = range(6)  # where layer_mix may be
    stems = 'imagenet', 'cifar'

    def __init__(self, stem='imagenet'):
        super().__init__()
        if stem not in self.stems:
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

    @property
    def stages(self):
        return F.identity, self.stem, self.res2, self.res3, self.res4, self.res5

    def stem(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.max_pooling_2d(h, 3, stride=2) if self.pool else h


class ResNet50(ManifoldMixupNetwork):
    """:class:`BaseResNet50`, global average pooling and a linear classifier: logits.

    Args:
        n_class (int): Number of classes.
        stem (str): See :class:`BaseResNet50`.
    """

    layers = BaseResNet50.layers
    stems = BaseResNet50.stems

    def __init__(self, n_class=10, stem='imagenet'):
        super().__init__()
        with self.init_scope():
            self.base = BaseResNet50(stem)
            self.fc6 = L.Linear(2048, n_class)

    @property
    def stages(self):
        return self.base.stages

    def head(self, h):
        return self.fc6(F.average_pooling_2d(h, h.shape[2:]))

    @property
    def backbone(self):
        return self.base
