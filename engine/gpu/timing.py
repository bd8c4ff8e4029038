"""How long a GPU takes for work of microseconds, which a host does not hand over as fast."""
import cupy
import numpy as np

from engine.gpu.kernels import kernel, typed

REPETITIONS = 10
SPIN = 600_000  # cycles, some 300 microseconds: as long as a host needs for the repetitions


def time(function):
    """Milliseconds of the work that ``function()`` hands over; the better of two measurements."""
    return min(measure(function) for _ in range(2))


def measure(function):
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    kernel('timing', 'spin', np.dtype('f'))((1,), (1,), typed([SPIN]))
    start.record()
    for _ in range(REPETITIONS):
        function()
    stop.record()
    stop.synchronize()
    return cupy.cuda.get_elapsed_time(start, stop) / REPETITIONS
