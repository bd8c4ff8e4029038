"""Inputs of recorded steps: what kernels read from the GPU's memory and the host decides.

A CUDA graph is replayed with the same memory.  Nothing can be sent to it while it is recorded, so
its inputs have memory of their own: constants are sent once, and what varies from step to step is
sent before each replay.
"""
import contextlib

import numpy as np
from chainer.backends import cuda

ALIGNMENT = 256  # bytes, as CuPy's own

recording = None  # the GraphInputs of the step that is being recorded
n_sent = 0  # bytes sent so far in eager steps, each array rounded up


class GraphInputs:
    """The inputs of one recorded step.

    They share no memory with what the step computes, which is overwritten again and again.

    Args:
        capacity (int): Bytes for all of them, each rounded up to :data:`ALIGNMENT`.

    Attributes:
        found_inf (array): Not 0 where a replayed step has found gradients that are not finite, and
            so has changed no weights; None where it does not look.
    """

    def __init__(self, capacity):
        self.memory = cuda.cupy.empty(capacity, np.uint8)
        self.host = np.zeros(capacity, np.uint8)
        self.used = 0
        self.functions = []
        self.found_inf = None

    @contextlib.contextmanager
    def __call__(self):
        """A context in which the step is recorded."""
        global recording
        recording = self
        try:
            yield
        finally:
            recording = None

    def add(self, value):
        """The array on the GPU that is to hold a value, and the one on the host it is sent from."""
        place = slice(self.used, self.used + value.nbytes)
        self.used += rounded(value.nbytes)
        arrays = [memory[place].view(value.dtype).reshape(value.shape)
                  for memory in (self.memory, self.host)]
        arrays[1][...] = value
        return arrays

    def graph_input(self, function):
        """The array on the GPU that holds what ``function()`` returns before each replay."""
        array, host = self.add(function())
        self.functions.append((host, function))
        return array

    def send(self):
        """Send all inputs; to be called before each replay."""
        for host, function in self.functions:
            host[...] = function()
        self.memory[:self.used] = cuda.cupy.asarray(self.host[:self.used])


def rounded(n_bytes):
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def sent(value):
    global n_sent
    n_sent += rounded(value.nbytes)
    return cuda.cupy.asarray(value)


def constant(value):
    """A NumPy array on the GPU."""
    return recording.add(value)[0] if recording else sent(value)


def graph_input(function):
    """The NumPy array ``function()`` on the GPU; each replay calls the function anew."""
    return recording.graph_input(function) if recording else sent(function())
