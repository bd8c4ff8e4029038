"""Work shared among Python threads, in each of which BLAS computes by itself.

NumPy releases Python's interpreter lock while it computes, so its operations run side by side, and
what a thread has just computed, its next operation finds in the cache of the same core.  BLAS's own
threads serve one caller at a time and would have to synchronize at every product.
"""
import functools
import os
import threading
from queue import SimpleQueue

from threadpoolctl import ThreadpoolController

from engine.environment import threads

# With fewer elements than this, one thread is done before another one wakes up.
WORTHWHILE = 1 << 18


def parallel_for(function, n, step, elements):
    """Call a function for slices of ``range(n)``, ``step`` long, on several threads.

    The slices do not depend on the number of threads, so neither do the results.  Calls must not
    be nested.

    Args:
        function (callable): ``function(slice)``.
        n, step (int): The length of what is divided, and of a slice.
        elements (int): The work, in elements that are read or multiplied; with fewer than
            :data:`WORTHWHILE`, all slices are done in this thread.

    Returns:
        list: What the function returned, in the order of the slices.
    """
    slices = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    others = min(threads(), len(slices)) - 1
    if others < 1 or elements < WORTHWHILE:
        return [function(some) for some in slices]

    results = [None] * len(slices)
    todo = enumerate(slices)  # whoever is free takes the next one

    def work():
        try:
            for i, some in todo:
                results[i] = function(some)
        except BaseException as error:
            return error

    tasks, answers = queue(os.getpid(), threads()), SimpleQueue()
    for _ in range(others):
        tasks.put((work, answers))
    errors = [work(), *(answers.get() for _ in range(others))]
    for error in filter(None, errors):
        raise error
    return results


@functools.cache
def queue(process, threads):
    """The queue from which the worker threads of a process take tasks.

    Args:
        process (int): Its id: a forked process inherits the queue, but not the threads.
        threads (int): One more than there are worker threads.
    """
    tasks = SimpleQueue()

    def serve():
        while True:
            work, answers = tasks.get()
            answers.put(work())
            del work, answers  # and the arrays that they hold
    for _ in range(threads - 1):
        threading.Thread(target=serve, daemon=True).start()
    return tasks


class BlasThreads:
    """The number of threads that BLAS may use: one, or as many as before."""

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
