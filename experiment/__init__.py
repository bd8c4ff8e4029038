"""The parts of an experiment that both scripts share.

First of all
    supported_python refuses another Python than those that the tests pass on

Before the training
    options         the command line: every option once, with its default
    recipes         the defaults that --recipe decides
    errors          one line on stderr for what is invalid or refused by the system
    memory          how much of it is free
    device          which device, and whether it works
    computation     dtype, engine, CUDA graphs, cuDNN's algorithms
    random_streams  four random streams from one seed

Data
    dataset         the sets by name
    labeled_images  one split of a set as arrays, and what a run records of it
    cifar           CIFAR's archives and Chainer's cache
    svhn            SVHN's MAT-files
    download        files that Chainer's dataset folder keeps, by their checksums
    archive         the files in an archive or a folder, none of them trusted
    image_folder    folders of images
    train_size      the first so many images of a training set, of each class as many
    augmentation    random changes to a batch of images, as chainercv defines them
    batches         normalisation, and batches on a CPU or a GPU (batch.cu)

Training
    optimizer       optimizer, weight decay, schedule of the learning rate
    evaluator       exact validation figures
    trainer         extensions; start, interruption and resumption of a run
    mixed_precision what a mixed16 run adds to snapshots and logs
    estimate        how long a run would take

Files
    run_directory   who may use a directory, and run.json
    log             the log as strict JSON
    plots           loss.png and accuracy.png
    model_files     models, snapshots and pretrained weights
    npz             npz files, of which nothing is unpickled
    atomic_file     files that appear whole or not at all

Several runs
    grid            a program: it trains every method with every seed and compares them
    processes       runs in processes of their own, some at once
    progress        how they come along
"""
from experiment import supported_python  # isort: skip  # noqa: F401  # before what may fail
import engine  # isort: skip  # noqa: F401  # before NumPy: BLAS reads once what this sets
from experiment.augmentation import AUGMENTATIONS
from experiment.batches import BatchConverter, Normalization
from experiment.computation import choose_engine, use_dtype, use_engine
from experiment.dataset import load_dataset
from experiment.device import use_device
from experiment.errors import one_line_errors
from experiment.evaluator import ExactEvaluator
from experiment.model_files import load_pretrained
from experiment.optimizer import setup_optimizer
from experiment.options import parse_args
from experiment.random_streams import RandomStreams
from experiment.run_directory import claim as claim_directory
from experiment.trainer import extend, start

__all__ = [
    'AUGMENTATIONS', 'BatchConverter', 'ExactEvaluator', 'Normalization', 'RandomStreams',
    'choose_engine', 'claim_directory', 'extend', 'load_dataset', 'load_pretrained',
    'one_line_errors', 'parse_args', 'setup_optimizer', 'start', 'use_device', 'use_dtype',
    'use_engine']
