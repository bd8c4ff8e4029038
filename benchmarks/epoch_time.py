"""Seconds of a whole epoch of the training script: its steps, and all that is around them."""
import json
import os
import subprocess
import sys
import tempfile

from benchmarks.workers import ROOT, Failure, one_line

EPOCHS = 3  # of which the last counts: by then every layer has mixed and been recorded


def measure(device, dataset, limit, batch=256):
    """Run ``train_manifoldmixup.py --recipe blog`` with the engine.

    On a GPU with graphs and the fastest algorithms, as the steps of the benchmark.

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
        if done.returncode:
            words = done.stderr.strip().split('\n')[-1]
            raise Failure(one_line(f'ended with status {done.returncode}: {words}'))
        with open(os.path.join(out, 'log')) as file:
            log = json.load(file)
    last = {name: log[-1][name] - log[-2][name] for name in ('elapsed_time', 'iteration')}
    return {'command': ' '.join(command), 'dataset': dataset, 'batch': batch,
            'seconds': round(last['elapsed_time'], 4), 'steps': last['iteration']}


def has_cifar10():
    from chainer.dataset import download
    return os.path.exists(os.path.join(
        download.get_dataset_root(), 'pfnet', 'chainer', 'cifar', 'cifar-10.npz'))


def describe(epoch, step_ms):
    """One line; ``step_ms`` is the benchmark's for the same batch, or None."""
    line = ('epoch of {dataset}, batch {batch}: {seconds:.3f} s with validation, {steps} steps, '
            '{:.2f} ms a step'.format(1e3 * epoch['seconds'] / epoch['steps'], **epoch))
    if step_ms is None:
        return line
    share = epoch['steps'] * step_ms / 1e3 / epoch['seconds']
    return f'{line}; {step_ms:.2f} ms x {epoch["steps"]} is {share:.0%} of it'
