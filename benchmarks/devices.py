"""Clock, memory and rates of the device that a contestant computes on, through its own library."""
import resource
import statistics
import subprocess
import sys
import time


class Cpu:
    """Has the host's clock and no memory of its own; to try everything without a GPU."""

    def synchronize(self):
        pass

    def mark(self):
        """A point in the work that has been issued."""
        return time.perf_counter()

    def milliseconds(self, first, last):
        """Between two marks, when the work before the last one is done."""
        return 1e3 * (last - first)

    def free(self):
        """Bytes; None where that is not known."""

    def peak(self):
        """Bytes that this process has taken at most."""
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == 'darwin' else 2 ** 10 * size


class Cupy:

    def __init__(self, number):
        import cupy
        self.cupy = cupy
        self.device = cupy.cuda.Device(number)
        self.device.use()
        self.pools = [cupy.get_default_memory_pool()]

    def synchronize(self):
        self.device.synchronize()

    def mark(self):
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def milliseconds(self, first, last):
        return self.cupy.cuda.get_elapsed_time(first, last)

    def free(self):
        return self.cupy.cuda.runtime.memGetInfo()[0]

    def peak(self):
        # A pool gives nothing back unless memory is short, so this is the most that it has had.
        return sum(pool.total_bytes() for pool in self.pools)


class Torch:

    def __init__(self, number):
        import torch
        self.torch = torch
        torch.cuda.set_device(number)

    def synchronize(self):
        self.torch.cuda.synchronize()

    def mark(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, first, last):
        return first.elapsed_time(last)

    def free(self):
        return self.torch.cuda.mem_get_info()[0]

    def peak(self):
        return self.torch.cuda.max_memory_reserved()


def use(name, library):
    """The device of ``--device``, made the current one; ``library`` is Cupy or Torch."""
    return Cpu() if name == 'cpu' else library(int(name))


def describe(name):
    """What there is, by CuPy's account.

    Raises:
        Invalid: If there is no such device or it does not work.
    """
    if name == 'cpu':
        from experiment.device import cpu_model
        return {'device': cpu_model()}
    from experiment import device
    device.check_gpu(int(name))
    import cupy
    properties = cupy.cuda.runtime.getDeviceProperties(int(name))
    return {'device': properties['name'].decode(),
            'memory_gib': round(properties['totalGlobalMem'] / 2 ** 30, 1),
            'driver': driver_version(),
            'driver_cuda': cupy.cuda.runtime.driverGetVersion(),
            'cupy_cuda': cupy.cuda.runtime.runtimeGetVersion(),
            'cudnn': device.find_cudnn()[0]}


def driver_version():
    try:
        answer = subprocess.run(
            ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
            capture_output=True, text=True, timeout=30, check=True)
        return answer.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def rates(name):
    """TFLOP/s of large products of matrices, by precision, and GB/s of a copy, read and written.

    By PyTorch where it is installed and has the device, otherwise by CuPy, for which CUPY_TF32 must
    have been set.
    """
    try:
        import torch
    except ImportError:
        torch = None
    if torch and name != 'cpu' and not torch.cuda.is_available():
        torch = None
    device = use(name, Torch if torch else Cupy)
    n, size = (512, 2 ** 24) if name == 'cpu' else (8192, 2 ** 30)
    product, copy = torch_work(torch, name) if torch else cupy_work(name)
    found = {precision: 2e-9 * n ** 3 / milliseconds(device, product(precision, n))
             for precision in ('tf32', 'fp16')}
    found['copy_gb_per_s'] = 2e-6 * size / milliseconds(device, copy(size))
    return {**{name: float(f'{rate:.4g}') for name, rate in found.items()},
            'by': 'torch' if torch else 'chainer'}


def milliseconds(device, work, rounds=5, repetitions=10):
    for _ in range(3):
        work()
    taken = []
    for _ in range(rounds):
        first = device.mark()
        for _ in range(repetitions):
            work()
        last = device.mark()
        device.synchronize()
        taken.append(device.milliseconds(first, last) / repetitions)
    return statistics.median(taken)


def torch_work(torch, name):
    """Functions of a precision and a size, and of bytes, that give one without arguments."""
    where = 'cpu' if name == 'cpu' else f'cuda:{name}'
    torch.backends.cuda.matmul.allow_tf32 = True

    def product(precision, n):
        dtype = {'tf32': torch.float32, 'fp16': torch.float16}[precision]
        a, b, c = (torch.rand(n, n, device=where).to(dtype) for _ in range(3))
        return lambda: torch.matmul(a, b, out=c)

    def copy(size):
        a, b = (torch.ones(size // 4, device=where) for _ in range(2))
        return lambda: b.copy_(a)
    return product, copy


def cupy_work(name):
    import numpy
    if name == 'cpu':
        xp = numpy
    else:
        import cupy as xp

    def product(precision, n):
        dtype = {'tf32': numpy.float32, 'fp16': numpy.float16}[precision]
        a, b = (xp.asarray(numpy.random.rand(n, n).astype(dtype)) for _ in range(2))
        c = xp.empty_like(a)
        return lambda: xp.matmul(a, b, out=c)

    def copy(size):
        a, b = (xp.ones(size // 4, numpy.float32) for _ in range(2))
        return lambda: xp.copyto(b, a)
    return product, copy
