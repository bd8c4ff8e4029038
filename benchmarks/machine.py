"""The machine of a benchmark: what it is, how fast its device is, and the floor of a step on it."""
import importlib
import importlib.util
import statistics

from benchmarks import devices
from benchmarks.workers import Unsupported, Worker


def worker(device, log):
    """A worker that answers requests by the functions below."""
    return Worker('from benchmarks import machine, workers; workers.serve(lambda: machine)',
                  devices.kind(device).ENVIRONMENT, log)


def describe(name):
    """The device of ``--device`` and its libraries, by CuPy's account.

    Raises:
        Unsupported: If there is no such device or it does not work.
    """
    if name == 'cpu':
        from experiment.device import cpu_model
        return {'device': cpu_model(), 'cores': devices.CORES, 'threads': devices.THREADS}
    from experiment import device
    from experiment.errors import Invalid
    try:
        device.check_gpu(int(name))
    except Invalid as error:
        raise Unsupported(error) from None
    import cupy
    properties = cupy.cuda.runtime.getDeviceProperties(int(name))
    return {'device': properties['name'].decode(),
            'memory_gib': round(properties['totalGlobalMem'] / 2 ** 30, 1),
            'driver': devices.nvidia_smi('driver_version'),
            'driver_cuda': cupy.cuda.runtime.driverGetVersion(),
            'cupy_cuda': cupy.cuda.runtime.runtimeGetVersion(),
            'cudnn': device.find_cudnn()[0]}


def torch_libraries():
    """The releases of PyTorch's libraries, as a dictionary."""
    import torch
    return {'torch_cuda': torch.version.cuda, 'torch_cudnn': torch.backends.cudnn.version()}


def floor(architecture, stem, batch, precision, rates):
    """The floor of a training step on a device of these rates, or of unknown ones; see floor.py."""
    if not importlib.util.find_spec('torch'):
        raise Unsupported('it is counted on the network in PyTorch')
    from benchmarks.floor import kernels, milliseconds, total
    found = kernels(architecture, stem, batch, precision)
    operations, size = total(found)
    return {'operations': operations, 'bytes': size, 'ms': rates and round(
        milliseconds(found, rates[precision], rates['copy_gb_per_s']), 4)}


def rates(name):
    """TFLOP/s of large matrix products, by precision, and GB/s of a copy, read and written.

    Measured by PyTorch where it is installed and has the device, otherwise by CuPy, for which
    CUPY_TF32 must have been set.
    """
    torch = importlib.util.find_spec('torch') and importlib.import_module('torch')
    if torch and (name == 'cpu' or torch.cuda.is_available()):
        device, by = devices.use(name, devices.Torch), 'torch'
        where = 'cpu' if name == 'cpu' else f'cuda:{name}'
        torch.backends.cuda.matmul.allow_tf32 = True
        matmul, copy = torch.matmul, torch.Tensor.copy_

        def random(*shape, dtype='float32'):
            return torch.rand(*shape, device=where).to(getattr(torch, dtype))
    else:
        device, by = devices.use(name, devices.Cupy), 'chainer'
        import numpy
        xp = numpy if name == 'cpu' else importlib.import_module('cupy')
        matmul, copy = xp.matmul, xp.copyto

        def random(*shape, dtype='float32'):
            return xp.asarray(numpy.random.default_rng().random(shape, 'float32').astype(dtype))

    def seconds(function, *arrays, **out):
        turns = [device.turn(lambda: function(*arrays, **out), 10) for _ in range(6)]
        return statistics.median(ms for turn in turns for ms in turn['ms']) / 1e3
    n, size = (512, 2 ** 24) if name == 'cpu' else (8192, 2 ** 30)
    found = {}
    for precision, dtype in ('tf32', 'float32'), ('fp16', 'float16'):
        a, b, c = (random(n, n, dtype=dtype) for _ in range(3))
        found[precision] = 2e-12 * n ** 3 / seconds(matmul, a, b, out=c)
    a, b = random(size // 4), random(size // 4)
    found['copy_gb_per_s'] = 2e-9 * size / seconds(copy, a, b)
    return {**{name: float(f'{rate:.4g}') for name, rate in found.items()}, 'by': by}
