"""Work shared among threads of Python's, in each of which BLAS computes alone.

NumPy leaves Python's interpreter free while it computes, so its operations run side by side; and
what a thread has just computed, its next operation finds in the cache of the same core.  Threads of
BLAS's own serve one caller at a time and would have to meet at every product.
"""
import functools
import os
from queue import SimpleQueue
import threading

from threadpoolctl import ThreadpoolController

from engine.environment import threads

WORTH = 1 << 18  # elements; on fewer, work is done before another thread wakes up


def each(function, n, step, elements):
    """``[function(slice), ...]`` for slices of ``step`` out of n, in order, on several threads.

    The slices do not depend on the number of threads, so neither do the results.  Where fewer
    than ``WORTH`` elements are met, everything runs in this thread.  Not to be used in itself.
    """
    slices = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    others = min(threads(), len(slices)) - 1
    if others < 1 or elements < WORTH:
        return [function(part) for part in slices]

    results = [None] * len(slices)
    todo = enumerate(slices)  # whoever is free takes the next one

    def share():
        try:
            for i, part in todo:
                results[i] = function(part)
        except BaseException as error:
            return error

    tasks, answers = queue(os.getpid(), threads()), SimpleQueue()
    for _ in range(others):
        tasks.put((share, answers))
    errors = [share(), *(answers.get() for _ in range(others))]
    for error in filter(None, errors):
        raise error
    return results


@functools.lru_cache(maxsize=None)
def queue(process, threads):
    """Where the other threads of a process, which a fork would leave behind, wait for work."""
    tasks = SimpleQueue()

    def work():
        while True:
            share, answers = tasks.get()
            answers.put(share())
            del share, answers  # and the arrays that they hold
    for _ in range(threads - 1):
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
