"""How steps are timed and memory is counted on a device, through the library that computes there.

A class for each device and library; ``use`` makes one of them.  Their attributes, which need no
device, say how a contestant takes its turns there.
"""
import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import time

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
THREADS = os.environ.get('OMP_NUM_THREADS') or str(CORES)


class Cpu:
    """The host, which computes at once.  Each step is timed by itself."""

    # The same for all: the number of threads, and the settings of malloc that suit PyTorch best.
    # glibc then keeps what is freed, where the next step would have to fault it in again.
    ENVIRONMENT = {
        'OMP_NUM_THREADS': THREADS, 'OPENBLAS_NUM_THREADS': THREADS, 'MKL_NUM_THREADS': THREADS,
        'MALLOC_TRIM_THRESHOLD_': str(2 ** 32), 'MALLOC_MMAP_THRESHOLD_': str(2 ** 32)}
    WARM_UP = 1  # steps; the first one allocates, and PyTorch chooses its kernels in it
    TURN, FEWEST, MOST = 2, 1, 50  # seconds and steps
    PAUSE = .25  # seconds after a turn: by then its threads have ceased to spin
    ROUNDS = 6
    LIMIT = 900  # seconds in which a contestant has to compile and warm up
    PARALLEL_IMPORTS = False  # they would slow down the first contestants' warm-up, and estimates

    def turn(self, step, steps):
        """Take ``steps`` steps, calls of a function.

        Returns:
            dict: ``ms``, a list of times in milliseconds, one for each step; ``wall_ms``, the mean
            time; ``last``, what the last step returned.
        """
        taken = []
        for _ in range(steps):
            start = time.perf_counter()
            last = step()
            taken.append(1e3 * (time.perf_counter() - start))
        return {'ms': taken, 'wall_ms': statistics.mean(taken), 'last': last}

    def free(self):
        """Bytes of memory that are free; None: unknown."""

    def peak(self):
        """The largest number of bytes that this process has taken."""
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == 'darwin' else 2 ** 10 * size


class Gpu:
    """A GPU, which works through a queue.  All steps of a turn are timed together.

    Subclasses make it the current device of their library.  They have ``synchronize()``;
    ``event()``, two of which have ``milliseconds(first, last)`` between them; ``free()`` and
    ``peak()`` as above.
    """

    ENVIRONMENT = {'CUPY_TF32': '1'}  # CuPy's own matrix products round to TF32 too
    WARM_UP = 5  # steps: kernels are chosen in the first, graphs are recorded up to the third
    TURN, FEWEST, MOST = .2, 3, 50  # seconds and steps
    PAUSE = 0  # clocks would fall
    ROUNDS = 10
    LIMIT = 240  # seconds in which a contestant has to compile and warm up
    PARALLEL_IMPORTS = True  # they take the host, not the GPU

    def turn(self, step, steps):
        """Take ``steps`` steps, between two events on the GPU, after three that are not counted.

        Returns:
            dict: ``ms``, a list of one number, the mean time of a step in milliseconds;
            ``wall_ms``, the same by the host's clock; ``host_ms``, the time in which the host
            issues a step; ``last``, what the last step returned.
        """
        for _ in range(2):
            step()
        self.synchronize()
        start = time.perf_counter()
        step()  # nothing is queued before it, so the host waits for no place in the queue
        host = time.perf_counter() - start
        self.synchronize()

        start, first, end = time.perf_counter(), self.event(), self.event()
        first.record()
        for _ in range(steps):
            last = step()
        end.record()
        self.synchronize()
        wall = time.perf_counter() - start
        return {'ms': [self.milliseconds(first, end) / steps], 'wall_ms': 1e3 * wall / steps,
                'host_ms': 1e3 * host, 'last': last}


class Cupy(Gpu):

    def __init__(self, number):
        import cupy
        device = cupy.cuda.Device(number)
        device.use()
        self.pools = [cupy.get_default_memory_pool()]
        self.synchronize = device.synchronize
        self.event, self.milliseconds = cupy.cuda.Event, cupy.cuda.get_elapsed_time
        self.free = lambda: cupy.cuda.runtime.memGetInfo()[0]

    def peak(self):
        # A pool gives nothing back unless memory is short, so this is the most that it has had.
        return sum(pool.total_bytes() for pool in self.pools)


class Torch(Gpu):

    def __init__(self, number):
        from torch import cuda
        cuda.set_device(number)
        self.synchronize = cuda.synchronize
        self.event = functools.partial(cuda.Event, enable_timing=True)
        self.milliseconds = cuda.Event.elapsed_time
        self.free = lambda: cuda.mem_get_info()[0]
        self.peak = cuda.max_memory_reserved


def name(text):
    """An argument type: a ``--device``, ``'cpu'`` or the number of a GPU."""
    if text == 'cpu' or text.isdecimal():
        return text
    raise argparse.ArgumentTypeError(f'given {text!r}, valid: the number of a GPU, or cpu')


def kind(name):
    """The class with the attributes of a device, by its ``--device``."""
    return Cpu if name == 'cpu' else Gpu


def use(name, library):
    """The device of ``--device``, made the current one; ``library`` is Cupy or Torch."""
    return Cpu() if name == 'cpu' else library(int(name))


def nvidia_smi(query):
    """The first line of what nvidia-smi says of GPUs, such as 'name,driver_version', or None."""
    try:
        answer = subprocess.run(
            ['nvidia-smi', f'--query-gpu={query}', '--format=csv,noheader'],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=True)
        return answer.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
