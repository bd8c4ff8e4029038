"""Work shared among threads, each of which lets BLAS compute in it alone.

NumPy leaves Python's interpreter free while it computes, so its operations run side by side in
threads of Python's; and what a thread has just computed, the next operation on it finds in the
cache of the same core.  BLAS's own threads would meet at every product instead.
"""
import functools
import os
from queue import SimpleQueue
import threading

from threadpoolctl import ThreadpoolController

from engine.environment import threads

WORTH = 1 << 18  # elements; on fewer, work is done before another thread wakes up
HERE = threading.local()  # busy: whether this thread is at work on a share


def each(function, n, step, elements):
    """``[function(slice), ...]`` for slices of ``step`` out of n, in order, on several threads.

    The slices do not depend on the number of threads, so neither do the results.  Inside another
    ``each``, or where fewer than ``WORTH`` elements are met, everything runs in this thread.
    """
    slices = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    count = min(threads(), len(slices))
    if count == 1 or elements < WORTH or getattr(HERE, 'busy', False):
        return [function(part) for part in slices]

    results = [None] * len(slices)
    todo = enumerate(slices)  # whoever is free takes the next one

    def share():
        HERE.busy = True
        try:
            for i, part in todo:
                results[i] = function(part)
        except BaseException as error:
            return error
        finally:
            HERE.busy = False

    tasks, answers = queue(os.getpid()), SimpleQueue()
    for _ in range(count - 1):
        tasks.put((share, answers))
    errors = [share(), *(answers.get() for _ in range(count - 1))]
    for error in filter(None, errors):
        raise error
    return results


@functools.lru_cache(maxsize=1)
def queue(process):
    """Where the threads of a process, which a fork leaves behind, wait for work."""
    tasks = SimpleQueue()

    def work():
        while True:
            share, answers = tasks.get()
            answers.put(share())
    for _ in range(threads() - 1):
        threading.Thread(target=work, daemon=True).start()
    return tasks


class BlasThreads:
    """How many threads BLAS may use: as many as it likes, or one."""

    def __init__(self):
        self.limit = None

    def restrict(self):
        if self.limit is None:
            self.limit = ThreadpoolController().limit(limits=1, user_api='blas')

    def restore(self):
        if self.limit is not None:
            self.limit.restore_original_limits()
            self.limit = None


BLAS = BlasThreads()
