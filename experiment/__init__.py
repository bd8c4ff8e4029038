"""What both scripts do alike: options, data, augmentation, optimizer, trainer, run directory."""
import engine  # isort: skip  # noqa: F401  # before NumPy: its OpenBLAS reads once what this sets
from experiment.augmentation import AUGMENTATIONS
from experiment.batches import BatchConverter, Normalization
from experiment.computation import choose_engine, use_dtype, use_engine
from experiment.dataset import load as load_dataset
from experiment.device import use_device
from experiment.errors import one_line_errors
from experiment.evaluator import ExactEvaluator
from experiment.model_files import load_pretrained
from experiment.optimizer import setup_optimizer
from experiment.options import parse_args
from experiment.random_streams import RandomStreams
from experiment.trainer import extend, start

__all__ = [
    'AUGMENTATIONS', 'BatchConverter', 'ExactEvaluator', 'Normalization', 'RandomStreams',
    'choose_engine', 'extend', 'load_dataset', 'load_pretrained', 'one_line_errors', 'parse_args',
    'setup_optimizer', 'start', 'use_device', 'use_dtype', 'use_engine']
