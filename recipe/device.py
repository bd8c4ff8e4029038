"""Which device a run uses, and one line that says what it is."""
import os
import platform

import chainer
import numpy as np
from chainer.backends import cuda

from recipe.errors import Invalid


def use_device(name):
    """Make a device the current one.

    Args:
        name (str): ``'cpu'``, the number of a GPU, or ``'auto'``: GPU 0 where there is one.

    Returns:
        chainer.backend.Device: Its ``describe(device)`` line has been printed.

    Raises:
        Invalid: If there is no such device.
    """
    if name == 'auto':
        name = '0' if cuda.available else 'cpu'
    if name == 'cpu':
        device = chainer.get_device('@numpy')
    elif name.isdecimal():
        check_gpu(int(name))
        device = chainer.get_device(f'@cupy:{name}')
    else:
        raise Invalid(f'--device: given {name!r}, valid: cpu, auto, or the number of a GPU')
    device.use()
    print(f'Device: {describe(device)}', flush=True)
    return device


def check_gpu(number):
    if not cuda.available:
        reason = ' '.join(str(cuda._resolution_error or 'CuPy finds no GPU').split())
        raise Invalid(f'--device: given {number}, but no GPU can be used ({reason}); install '
                      'requirements-gpu.txt on a machine with an NVIDIA GPU, or take --device cpu')
    count = cuda.cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise Invalid(f'--device: given {number}, valid: 0 to {count - 1}')


def describe(device):
    """One line: device, array library, cuDNN."""
    if device.xp is np:
        return f'CPU ({cpu_model()}, {os.cpu_count()} cores), NumPy {np.__version__}'
    cupy = cuda.cupy
    properties = cupy.cuda.runtime.getDeviceProperties(device.device.id)
    cudnn = 'cuDNN' if cuda.cudnn_enabled else 'no cuDNN for Chainer'
    return (f'GPU {device.device.id} ({properties["name"].decode()}), '
            f'CuPy {cupy.__version__}, {cudnn}')


def cpu_model():
    try:
        with open('/proc/cpuinfo') as file:
            models = [line.split(':', 1)[1].strip() for line in file if 'model name' in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
