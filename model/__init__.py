"""The networks, each a :class:`mixup.ManifoldMixupNetwork`: their stages in order and a head.

``ARCHITECTURES[name](n_class, stem)`` makes one of them; the class says which ``layers`` and
``stems`` it has.
"""
from model.resnet50 import BaseResNet50, ResNet50

__all__ = ['BaseResNet50', 'ResNet50', 'ARCHITECTURES']

ARCHITECTURES = {'resnet50': ResNet50}
