"""Environment variables that BLAS reads once, when NumPy is imported; so this comes before NumPy.

A variable that the user has set stays as it is.
"""
import functools
import os
import sys

MOST_THREADS = 8  # they share one interpreter and one memory bus, so that more would only wait


def cpu_flags():
    """The instruction sets of the processor, as Linux names them; none where it does not say."""
    try:
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('flags'):
                    return set(line.split(':', 1)[1].split())
    except OSError:
        pass
    return set()


def wanted(flags):
    """Environment variables, name to value, for OpenBLAS on a processor with these flags."""
    # By itself OpenBLAS takes its AVX2 kernels on AMD's processors that have AVX-512.
    avx512 = {'avx512f', 'avx512dq', 'avx512bw', 'avx512vl'} <= flags
    return {'OPENBLAS_CORETYPE': 'SkylakeX'} if avx512 else {}


def prepare():
    """Set the variables that the user has not set, unless NumPy has been imported already.

    Returns:
        dict: Those that were set.
    """
    if 'numpy' in sys.modules:
        return {}
    new = {name: value for name, value in wanted(cpu_flags()).items() if name not in os.environ}
    os.environ.update(new)
    return new


def in_effect():
    """The variables that BLAS reads, name to value, whoever has set them."""
    return {name: value for name, value in sorted(os.environ.items())
            if name.startswith(('OPENBLAS_', 'OMP_'))}


@functools.cache
def threads():
    """The number of threads that may compute: what the user allows BLAS, or one for each core."""
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        if os.environ.get(name, '').isdecimal():
            return max(1, min(int(os.environ[name]), MOST_THREADS))
    return min(cores(), MOST_THREADS)


def cores():
    """The number of cores that this process may use."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return known or 1


prepare()
