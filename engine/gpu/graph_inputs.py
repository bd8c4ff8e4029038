"""What kernels read from the GPU's memory but the host decides.

A step that is recorded as a CUDA graph is replayed with the same memory: there nothing can be sent
while it is recorded, and what varies from step to step has to be sent before each replay.
"""
import contextlib

import numpy as np
from chainer.backends import cuda

ALIGNMENT = 256  # bytes, as CuPy's own

recording = None  # the one that is going on
n_sent = 0  # bytes since the beginning, each array rounded up


class Recording:
    """The values of one recorded step.

    Their memory is nobody else's: what the step itself allocates is used over and over in it.

    Args:
        capacity (int): Bytes for all of them, each rounded up.

    Attributes:
        factors (dict): Numbers that stand, in what is recorded, for an element of an array.
        found_inf (array): Not 0 where a step has found gradients that are not finite, and so has
            changed no weights; None where it does not look.
    """

    def __init__(self, capacity):
        self.memory = cuda.cupy.empty(capacity, np.uint8)
        self.host = np.zeros(capacity, np.uint8)
        self.used = 0
        self.functions = []
        self.factors = {}
        self.found_inf = None

    @contextlib.contextmanager
    def __call__(self):
        """The step is recorded in this context."""
        global recording
        recording = self
        try:
            yield
        finally:
            recording = None

    def add(self, value):
        """Room for an array; it on the GPU, and on the host where it is sent from."""
        place = slice(self.used, self.used + value.nbytes)
        self.used += rounded(value.nbytes)
        arrays = [memory[place].view(value.dtype).reshape(value.shape)
                  for memory in (self.memory, self.host)]
        arrays[1][...] = value
        return arrays

    def varying(self, function):
        array, host = self.add(function())
        self.functions.append((host, function))
        return array

    def send(self):
        """To be called before each replay."""
        for host, function in self.functions:
            host[...] = function()
        self.memory[:self.used] = cuda.cupy.asarray(self.host[:self.used])


def rounded(n_bytes):
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def sent(value):
    global n_sent
    n_sent += rounded(value.nbytes)
    return cuda.cupy.asarray(value)


def constant(host):
    """A NumPy array on the GPU."""
    return recording.add(host)[0] if recording else sent(host)


def varying(function):
    """The NumPy array ``function()`` on the GPU; the function is asked anew for every replay."""
    return recording.varying(function) if recording else sent(function())


def factor(value):
    """The array of one element that stands for a number in a recording; None for others."""
    return recording.factors.get(value) if recording else None
