"""The networks, each with a place for Manifold Mixup after every stage."""
from model.resnet50 import BaseResNet50, ResNet50

__all__ = ['BaseResNet50', 'ResNet50', 'ARCHITECTURES']

ARCHITECTURES = {'resnet50': ResNet50}
