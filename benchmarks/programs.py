"""Seconds that whole programs take: imports, ``make demo``, and an epoch of the training script."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import devices
from benchmarks.workers import ENVIRONMENT, ROOT, Failure, one_line

MODULES = 'engine, mixup, model, experiment, chainer, chainercv'
EPOCHS = 3  # of which the last counts: by then every layer has mixed and been recorded


def import_seconds():
    """The time to import what a training script does, in a fresh process: the median of three."""
    code = f'import time; s = time.time(); import {MODULES}; print(time.time() - s)'
    environment = {**ENVIRONMENT, **devices.Cpu.ENVIRONMENT}
    return round(statistics.median(
        float(subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, env=environment))
        for _ in range(3)), 2)


def demo_seconds():
    """The time of ``make demo``, installation left out: both trainings and their comparison.

    None where there is no make.

    Raises:
        Failure: If it ends badly.
    """
    if not shutil.which('make'):
        return None
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        demo = subprocess.run(
            ['make', 'demo', f'PYTHON={sys.executable}', f'DEMO=--out {directory}/demo'],
            cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True)
        check(demo)
        return round(time.perf_counter() - start, 1)


def check(done):
    if done.returncode:
        words = done.stderr.strip().split('\n')[-1]
        raise Failure(one_line(f'ended with status {done.returncode}: {words}'))


def epoch(device, dataset, limit, batch=256):
    """The time of an epoch of ``train_manifoldmixup.py --recipe blog`` with the engine.

    On a GPU it has graphs and the fastest algorithms, as the steps of the benchmark.

    Args:
        dataset (str): As ``--dataset``, or ``'auto'``: CIFAR-10 where Chainer has it, else digits.

    Raises:
        Failure: If it does not end within ``limit`` seconds, or ends badly.
    """
    if dataset == 'auto':
        dataset = 'cifar10' if has_cifar10() else 'digits'
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, 'run')
        command = ['train_manifoldmixup.py', '--recipe', 'blog', '--device', device,
                   '--engine', 'fast',
                   *([] if device == 'cpu' else ['--graph', 'on', '--autotune']),
                   '--dataset', dataset, '--batchsize', str(batch), '--epoch', str(EPOCHS),
                   '--snapshot-every', '0']
        try:
            done = subprocess.run([sys.executable, *command, '--out', out], cwd=ROOT, text=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failure(f'no end within {limit:.0f} s') from None
        check(done)
        with open(os.path.join(out, 'log')) as file:
            log = json.load(file)
    last = {name: log[-1][name] - log[-2][name] for name in ('elapsed_time', 'iteration')}
    return {'command': ' '.join(command), 'dataset': dataset, 'batch': batch,
            'seconds': round(last['elapsed_time'], 4), 'steps': last['iteration']}


def has_cifar10():
    from chainer.dataset import download
    return os.path.exists(os.path.join(
        download.get_dataset_root(), 'pfnet', 'chainer', 'cifar', 'cifar-10.npz'))


def describe_epoch(epoch, step_ms):
    """One line about an epoch; ``step_ms`` is the benchmark's for the same batch, or None."""
    line = ('epoch of {dataset}, batch {batch}: {seconds:.3f} s with validation, {steps} steps, '
            '{:.2f} ms a step'.format(1e3 * epoch['seconds'] / epoch['steps'], **epoch))
    if step_ms is None:
        return line
    share = epoch['steps'] * step_ms / 1e3 / epoch['seconds']
    return f'{line}; {step_ms:.2f} ms x {epoch["steps"]} is {share:.0%} of it'
