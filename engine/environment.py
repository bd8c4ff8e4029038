"""What the engine wants of the process; imported before NumPy, whose BLAS reads it once.

A variable that the user has set stays as it is.
"""
import functools
import os
import sys

MOST_THREADS = 8  # they share one interpreter and one memory


def cpu_flags():
    try:
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('flags'):
                    return set(line.split(':', 1)[1].split())
    except OSError:
        pass
    return set()


def wanted(flags):
    """Environment variables for OpenBLAS on a processor with these flags."""
    # It takes AVX2 kernels on AMD's processors with AVX-512.
    avx512 = {'avx512f', 'avx512dq', 'avx512bw', 'avx512vl'} <= flags
    return {'OPENBLAS_CORETYPE': 'SkylakeX'} if avx512 else {}


def prepare():
    """Set the variables and return those that are new."""
    if 'numpy' in sys.modules:
        return {}
    new = {name: value for name, value in wanted(cpu_flags()).items() if name not in os.environ}
    os.environ.update(new)
    return new


def in_effect():
    """What BLAS has been told by the environment, whoever has set it."""
    return {name: value for name, value in sorted(os.environ.items())
            if name.startswith(('OPENBLAS_', 'OMP_'))}


@functools.lru_cache(maxsize=None)
def threads():
    """How many threads may work: the cores of this process, or what the user has asked of BLAS."""
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        if os.environ.get(name, '').isdecimal():
            return max(1, min(int(os.environ[name]), MOST_THREADS))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return min(cores or 1, MOST_THREADS)


SET = prepare()
