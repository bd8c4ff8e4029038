"""The device of a run: which one it is, whether it works, and a line that describes it."""
import glob
import importlib.util
import os
import platform

import chainer
import numpy as np
from chainer.backends import cuda

from experiment.errors import Invalid


def use_device(args):
    """Make the device of ``--device`` the current one.

    Args:
        args: Its ``device`` is ``'cpu'``, the number of a GPU, or ``'auto'``: GPU 0 where there is
            one.

    Returns:
        chainer.backend.Device: The device.

    Raises:
        Invalid: If there is no such device or it does not work.
    """
    name = args.device
    if name == 'auto':
        name = '0' if cuda.available or (has_nvidia_gpu() and has_cupy()) else 'cpu'
    if name == 'cpu':
        device = chainer.get_device('@numpy')
    elif name.isdecimal():
        check_gpu(int(name))
        device = chainer.get_device(f'@cupy:{name}')
    else:
        raise Invalid(f'--device: given {name!r}, valid: cpu, auto, or the number of a GPU')
    device.use()
    return device


def find_cudnn():
    """Return the version of cuDNN that the engine can use, such as '9.28.0', and None.

    Where there is none, return None and the reason.
    """
    from engine.gpu import cudnn_interface
    try:
        version = cudnn_interface.load().backend_version()
    except Exception as error:  # a missing package or library; what raises differs
        return None, str(error)
    return f'{version // 10000}.{version // 100 % 100}.{version % 100}', None


def has_nvidia_gpu():
    """Whether the driver shows a GPU to this process, and the user does not hide it."""
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES', '0') in ('', '-1')
    return bool(glob.glob('/dev/nvidia[0-9]*')) and not hidden


def has_cupy():
    return importlib.util.find_spec('cupy') is not None


def check_gpu(number):
    """Raise Invalid with the reason and the remedy unless the GPU of that number computes."""
    if not cuda.available:
        reason, remedy = why_no_gpu()
        raise Invalid(f'--device: given {number}, but no GPU can be used: {reason}; '
                      f'{remedy}, or take --device cpu')
    count = cuda.cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise Invalid(f'--device: given {number}, valid: 0 to {count - 1}')
    try:
        compute(number)
    except Exception as error:  # CuPy, CUDA and the driver have many kinds
        reason, remedy = diagnose(error)
        raise Invalid(f'--device: GPU {number} is there, but cannot compute: {reason}; '
                      f'{remedy}, or take --device cpu') from error


def why_no_gpu():
    """Return why CuPy can use no GPU, and what to do: two clauses."""
    if not has_cupy():
        return ('CuPy is not installed',
                'install requirements-gpu.txt, with a driver for CUDA 12 or later')
    try:
        import cupy
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return diagnose(error)
    return diagnose(cuda._resolution_error)


def diagnose(error):
    """Return what an error of CuPy's means, and what to do: two clauses."""
    if 'cudaErrorInsufficientDriver' in str(error):
        return ("there is no NVIDIA driver, or it is for an older CUDA than CuPy's",
                'install or update it (nvidia-smi shows its CUDA, which must be 12 or later)')
    if 'cudaErrorNoDevice' in str(error):
        return ('no GPU is visible',
                'see what nvidia-smi lists and CUDA_VISIBLE_DEVICES hides')
    reason = f'{type(error).__name__}: {error.__cause__ or error}'  # CuPy's own words are many
    remedy = 'install requirements-gpu.txt anew'
    if not isinstance(error, ImportError):
        remedy = f'see whether another program fills the GPU (nvidia-smi), {remedy}'
    return reason, remedy


def compute(number):
    """Run a kernel and a matrix product; either fails where libraries are missing.

    Raises:
        Exception: CuPy's, of many kinds, or ArithmeticError if the result is wrong.
    """
    xp = cuda.cupy
    with xp.cuda.Device(number):
        x = xp.ones((2, 2), np.float32)
        found = float((x + x @ x).sum())
    if found != 12:
        raise ArithmeticError(f'4 * (1 + 2) = {found}')


def describe(device):
    """Describe a device in one line: its name, the array library, cuDNN."""
    if device.xp is np:
        return f'CPU ({cpu_model()}, {os.cpu_count()} cores), NumPy {np.__version__}'
    cupy = cuda.cupy
    properties = cupy.cuda.runtime.getDeviceProperties(device.device.id)
    version, why_not = find_cudnn()
    cudnn = f'cuDNN {version}' if version else f'no cuDNN ({why_not})'
    return (f'GPU {device.device.id} ({properties["name"].decode()}), '
            f'CuPy {cupy.__version__}, {cudnn}')


def cpu_model():
    """Return the name of the processor, such as 'AMD EPYC'."""
    try:
        with open('/proc/cpuinfo') as file:
            models = [line.split(':', 1)[1].strip() for line in file if 'model name' in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
