"""What both scripts do alike: options, data, augmentation, optimizer, trainer, run directory."""
import engine  # before NumPy, hence before Chainer
from recipe.augmentation import AUGMENTATIONS
from recipe.converter import BatchConverter, Normalization
from recipe.dataset import load as load_dataset
from recipe.device import use_device
from recipe.errors import one_line_errors
from recipe.evaluator import ExactEvaluator
from recipe.optimizer import setup_optimizer
from recipe.options import parse_args
from recipe.pretrained import load_pretrained
from recipe.random_streams import RandomStreams
from recipe.trainer import extend, start

__all__ = [
    'AUGMENTATIONS', 'BatchConverter', 'ExactEvaluator', 'Normalization', 'RandomStreams',
    'extend', 'load_dataset', 'load_pretrained', 'one_line_errors', 'parse_args',
    'setup_optimizer', 'start', 'use_device']
