"""Which device a run uses, and one line that says what it is."""
import glob
import importlib.util
import os
import platform

import chainer
import numpy as np
from chainer.backends import cuda

from recipe.errors import Invalid


def use_device(args):
    """Make the device of ``--device`` the current one.

    Args:
        args: Its ``device`` is ``'cpu'``, the number of a GPU, or ``'auto'``, GPU 0 where there is
            one; its ``engine`` is for the line.

    Returns:
        chainer.backend.Device: A line with its ``describe(device)`` has been printed.

    Raises:
        Invalid: If there is no such device, or it does not work.
    """
    name, advice = args.device, ''
    if name == 'auto':
        name = 'cpu'
        if cuda.available or (has_nvidia_gpu() and has_cupy()):
            name = '0'
        elif has_nvidia_gpu():
            advice = '; there is a GPU, which requirements-gpu.txt lets Chainer use'
    if name == 'cpu':
        device = chainer.get_device('@numpy')
    elif name.isdecimal():
        check_gpu(int(name))
        device = chainer.get_device(f'@cupy:{name}')
    else:
        raise Invalid(f'--device: given {name!r}, valid: cpu, auto, or the number of a GPU')
    device.use()
    engine = engine_on(device, args.engine)
    print(f'Device: {describe(device)}, engine {engine}{advice}', flush=True)
    return device


def engine_on(device, engine):
    """Which engine computes on a device, where this one is wanted."""
    return engine if device.xp is np else 'stock'


def has_nvidia_gpu():
    """Whether the driver shows one to this process, and the user does not hide it."""
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', '0') in ('', '-1')
    return bool(glob.glob('/dev/nvidia[0-9]*')) and not hidden


def has_cupy():
    return importlib.util.find_spec('cupy') is not None


def check_gpu(number):
    otherwise = ('install requirements-gpu.txt on a machine with an NVIDIA GPU and a driver for '
                 'CUDA 12 or later, or take --device cpu')
    if not cuda.available:
        raise Invalid(f'--device: given {number}, but no GPU can be used ({why_no_gpu()}); '
                      f'{otherwise}')
    count = cuda.cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise Invalid(f'--device: given {number}, valid: 0 to {count - 1}')
    try:
        compute(number)
    except Exception as error:  # CuPy, CUDA and the driver have many kinds
        raise Invalid(f'--device: GPU {number} is there, but cannot compute '
                      f'({type(error).__name__}: {error}); {otherwise}') from error


def why_no_gpu():
    if not has_cupy():
        return 'CuPy is not installed'
    try:
        import cupy
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return str(error)
    return str(cuda._resolution_error)


def compute(number):
    """A kernel and a product of matrices, of which either fails where libraries are missing."""
    xp = cuda.cupy
    with xp.cuda.Device(number):
        x = xp.ones((2, 2), np.float32)
        found = float((x + x @ x).sum())
    if found != 12:
        raise ArithmeticError(f'4 * (1 + 2) = {found}')


def describe(device):
    """One line: device, array library, cuDNN."""
    if device.xp is np:
        return f'CPU ({cpu_model()}, {os.cpu_count()} cores), NumPy {np.__version__}'
    cupy = cuda.cupy
    properties = cupy.cuda.runtime.getDeviceProperties(device.device.id)
    cudnn = ('cuDNN' if cuda.cudnn_enabled else
             'no cuDNN (Chainer has none with this CuPy: convolutions are slow)')
    return (f'GPU {device.device.id} ({properties["name"].decode()}), '
            f'CuPy {cupy.__version__}, {cudnn}')


def cpu_model():
    try:
        with open('/proc/cpuinfo') as file:
            models = [line.split(':', 1)[1].strip() for line in file if 'model name' in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
