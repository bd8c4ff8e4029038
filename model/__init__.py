"""The networks, each a :class:`mixup.ManifoldMixupNetwork`: their stages in order and a head.

``ARCHITECTURES[name](n_class, stem)`` makes one of them; the class says which ``layers`` and
``stems`` it has.
"""
from model.preact_resnet import PreActResNet18, PreActResNet34, PreActResNet50
from model.resnet18 import ResNet18
from model.resnet50 import BaseResNet50, ResNet50
from model.wide_resnet import WideResNet28_10

__all__ = ['BaseResNet50', 'PreActResNet18', 'PreActResNet34', 'PreActResNet50', 'ResNet18',
           'ResNet50', 'WideResNet28_10', 'ARCHITECTURES']

ARCHITECTURES = {
    'resnet50': ResNet50, 'resnet18': ResNet18, 'preactresnet18': PreActResNet18,
    'preactresnet34': PreActResNet34, 'preactresnet50': PreActResNet50,
    'wrn28-10': WideResNet28_10}
