"""What kernels read from the GPU's memory but the host decides.

A step that is recorded as a CUDA graph is replayed with the same memory: there nothing can be sent
while it is recorded, and what varies from step to step has to be sent before each replay.
"""
import contextlib

import numpy as np
import cupy

ALIGNMENT = 256  # bytes, as CuPy's own

recording = None  # the one that is going on


class Recording:
    """The values of one recorded step.

    Args:
        capacity (int): Bytes for all that varies.

    Attributes:
        factors (dict): Numbers that stand, in what is recorded, for an element of an array.
    """

    def __init__(self, capacity):
        self.varied = cupy.empty(capacity, np.uint8)
        self.host = np.zeros(capacity, np.uint8)
        self.functions = []
        self.used = 0
        self.constants = []
        self.factors = {}

    @contextlib.contextmanager
    def __call__(self):
        """The step is recorded in this context."""
        global recording
        recording = self
        try:
            yield
        finally:
            recording = None

    def constant(self, host):
        array = cupy.empty(host.shape, host.dtype)
        self.constants.append((array, host))
        return array

    def varying(self, function):
        value = function()
        start, self.used = self.used, self.used + -(-value.nbytes // ALIGNMENT) * ALIGNMENT
        place = slice(start, start + value.nbytes)
        array = self.varied[place].view(value.dtype).reshape(value.shape)
        self.functions.append((self.host[place].view(value.dtype).reshape(value.shape), function))
        return array

    def send_constants(self):
        """To be called once, after the recording."""
        for array, host in self.constants:
            array.set(host)

    def send_varying(self):
        """To be called before each replay."""
        for place, function in self.functions:
            place[...] = function()
        self.varied[:self.used] = cupy.asarray(self.host[:self.used])


def constant(host):
    """A NumPy array on the GPU."""
    return recording.constant(host) if recording else cupy.asarray(host)


def varying(function):
    """The NumPy array ``function()`` on the GPU; the function is asked anew for every replay."""
    return recording.varying(function) if recording else cupy.asarray(function())


def factor(value):
    """The array of one element that stands for a number in a recording; None for others."""
    return recording.factors.get(value) if recording else None
