"""Which device a run uses, and one line that says what it is."""
import glob
import importlib.util
import os
import platform

import chainer
import numpy as np
from chainer.backends import cuda

from engine.gpu import cudnn_interface
from experiment.errors import Invalid

DTYPES = {'float32': np.dtype(np.float32), 'mixed16': chainer.mixed16}  # --dtype


def use_device(args):
    """Make the device of ``--device`` the current one, and decide what is left to ``auto``.

    Networks made from now on have the numbers of ``--dtype``.

    Args:
        args: Its ``device`` is ``'cpu'``, the number of a GPU, or ``'auto'``, GPU 0 where there is
            one.  Afterwards its ``engine`` is ``'fast'`` or ``'stock'``, its ``graph`` ``'on'`` or
            ``'off'``.

    Returns:
        chainer.backend.Device: A line with its ``describe(device)`` has been printed.

    Raises:
        Invalid: If there is no such device, it does not work, or the engine or the dtype does not
            work on it.
    """
    name, advice = args.device, ''
    if name == 'auto':
        name = 'cpu'
        if cuda.available or (has_nvidia_gpu() and has_cupy()):
            name = '0'
        elif has_nvidia_gpu():
            advice = ('; there is a GPU, which requirements-gpu.txt lets Chainer use with a '
                      'driver for CUDA 12 or later')
    if name == 'cpu':
        device = chainer.get_device('@numpy')
    elif name.isdecimal():
        check_gpu(int(name))
        device = chainer.get_device(f'@cupy:{name}')
    else:
        raise Invalid(f'--device: given {name!r}, valid: cpu, auto, or the number of a GPU')
    device.use()
    on_gpu = device.xp is not np
    choose_dtype(args, on_gpu)
    choose_engine(args, on_gpu)
    choose_algorithms(args, on_gpu)
    if args.graph == 'on':
        advice = ', graph on'
    elif on_gpu and args.engine == 'stock':
        advice = ' (slow: convolutions without cuDNN)'
    print(f'Device: {describe(device)}, {args.dtype}, engine {args.engine}{advice}', flush=True)
    return device


def choose_dtype(args, on_gpu):
    if args.dtype == 'mixed16' and not on_gpu:
        raise Invalid('--dtype: given mixed16, valid: float32, but on a GPU')
    chainer.global_config.dtype = DTYPES[args.dtype]


def choose_engine(args, on_gpu):
    if args.engine == 'auto':
        args.engine = 'stock' if on_gpu else 'fast'
    can_record = on_gpu and args.engine == 'fast'
    version, why_not = find_cudnn() if can_record else (None, None)
    if can_record and version is None:
        raise Invalid(f'--engine: given fast, but there is no cuDNN ({why_not}); install '
                      'requirements-gpu.txt, or take --engine stock')
    if args.graph == 'auto':
        args.graph = 'on' if can_record else 'off'
    if args.graph == 'on' and not can_record:
        raise Invalid('--graph: given on, valid: off or auto, but with --engine fast on a GPU')


def choose_algorithms(args, on_gpu):
    """Of cuDNN: such as give the same bits in each run, or the fastest."""
    if args.autotune and not (on_gpu and args.engine == 'fast'):
        raise Invalid('--autotune: valid with --engine fast on a GPU')
    chainer.global_config.autotune = args.autotune
    chainer.global_config.cudnn_deterministic = not args.autotune


def find_cudnn():
    """The version of cuDNN that the engine can use, such as '9.28.0', and why there is none."""
    try:
        version = cudnn_interface.load().backend_version()
    except Exception as error:  # a missing package or library; what raises differs
        return None, str(error)
    return f'{version // 10000}.{version // 100 % 100}.{version % 100}', None


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
    version, why_not = find_cudnn()
    cudnn = f'cuDNN {version}' if version else f'no cuDNN ({why_not})'
    return (f'GPU {device.device.id} ({properties["name"].decode()}), '
            f'CuPy {cupy.__version__}, {cudnn}')


def cpu_model():
    try:
        with open('/proc/cpuinfo') as file:
            models = [line.split(':', 1)[1].strip() for line in file if 'model name' in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
