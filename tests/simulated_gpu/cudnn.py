"""The part of nvidia-cudnn-frontend that convolutions need, by NumPy on the host's memory.

An operation has three plans; a test may let one of them fail, be slow or need more memory.
"""
import collections
import ctypes
import enum
import time

import numpy as np

from tests.simulated_gpu import runtime

data_type = enum.Enum('data_type', 'FLOAT HALF')
heur_mode = enum.Enum('heur_mode', 'A B FALLBACK')
numerical_note = enum.Enum('numerical_note', 'TENSOR_CORE DOWN_CONVERT_INPUTS '
                           'REDUCED_PRECISION_REDUCTION NONDETERMINISTIC')
N_PLANS = 3
PLANS = []  # kind and number of all that have been executed
FAILURES = {}  # what is raised: at ('build', number), ('execute', number) or a stage, (name,)
SECONDS = collections.defaultdict(float)  # by a plan's number, how much longer it takes
WORKSPACES = collections.defaultdict(lambda: 64)  # likewise, bytes
streams = {}  # the stream of each handle
known_pairs = set()  # (handle, stream), for which cuDNN has allocated what it needs


class cudnnGraphNotSupportedError(Exception):
    pass


def backend_version():
    return 91900


def create_handle():
    streams[len(streams) + 1] = 0
    return len(streams)


def set_stream(handle, stream):
    """Set the stream of a handle; a new pair allocates memory, which a capture may not allow."""
    if (handle, stream) not in known_pairs and runtime.is_capturing():
        raise RuntimeError('CUDNN_STATUS_NOT_SUPPORTED_CUDA_GRAPH_CAPTURE: a new stream')
    known_pairs.add((handle, stream))
    streams[handle] = stream


def fail(*what):
    if what in FAILURES:
        raise FAILURES[what]


class Tensor:

    def __init__(self, dim=None, stride=None, data_type=None):
        self.dim, self.stride, self.data_type = dim, stride, data_type
        self.is_output = False

    def __getattr__(self, name):
        if not name.startswith('set_'):
            raise AttributeError(name)

        def set_value(value):
            setattr(self, {'output': 'is_output'}.get(name[4:], name[4:]), value)
            return self
        return set_value

    def view(self, pointer):
        """The array at an address."""
        size = sum((d - 1) * s for d, s in zip(self.dim, self.stride)) + 1
        dtype = np.dtype({'FLOAT': 'f', 'HALF': 'e'}[self.data_type.name])
        flat = np.frombuffer((ctypes.c_char * (size * dtype.itemsize)).from_address(pointer), dtype)
        return np.lib.stride_tricks.as_strided(
            flat, self.dim, [dtype.itemsize * s for s in self.stride])


class pygraph:

    def __init__(self, io_data_type, intermediate_data_type, compute_data_type, handle):
        assert intermediate_data_type == compute_data_type == data_type.FLOAT
        self.io_data_type = io_data_type
        self.tensors = []
        self.stages = ['validate', 'build_operation_graph', 'create_execution_plans',
                       'check_support']
        self.built = set()

    def tensor(self, **properties):
        self.tensors.append(Tensor(**properties))
        return self.tensors[-1]

    def convolution(self, kind, image, filter, output, padding, stride, dilation):
        self.kind, self.padding, self.stride = kind, padding, stride
        assert dilation == [1, 1]
        result = self.result = Tensor()
        self.tensors.append(result)
        self.image, self.filter, self.output = (
            result if tensor is None else tensor for tensor in (image, filter, output))
        return result

    def conv_fprop(self, image, weight, **geometry):
        return self.convolution('fprop', image, weight, None, **geometry)

    def conv_dgrad(self, loss, filter, **geometry):
        return self.convolution('dgrad', None, filter, loss, **geometry)

    def conv_wgrad(self, image, loss, **geometry):
        return self.convolution('wgrad', image, None, loss, **geometry)

    def stage(self, name):
        assert self.stages.pop(0) == name, f'{name} is called out of order'
        fail(name)

    def validate(self):
        self.stage('validate')
        for tensor in self.tensors:
            assert tensor.dim and tensor.stride and tensor.uid
            assert tensor.data_type == self.io_data_type
            assert len(tensor.dim) == len(tensor.stride) == 4
        assert [t for t in self.tensors if t.is_output] == [self.result]
        (n, c, h, w), (out, c_, kh, kw), (n_, out_, oh, ow) = (
            t.dim for t in (self.image, self.filter, self.output))
        assert (n, c, out) == (n_, c_, out_)
        for size, k, p, s, found in zip((h, w), (kh, kw), self.padding, self.stride, (oh, ow)):
            assert (size + 2 * p - k) // s + 1 == found

    def build_operation_graph(self):
        self.stage('build_operation_graph')

    def create_execution_plans(self, modes):
        self.stage('create_execution_plans')

    def deselect_numeric_notes(self, notes):
        assert self.stages[0] == 'check_support'

    def check_support(self):
        self.stage('check_support')

    def deselect_workspace_greater_than(self, size):
        assert self.stages[0] == 'check_support' and size > 2 ** 29

    def get_execution_plan_count(self):
        return N_PLANS

    def build_plan_at_index(self, number):
        """Build a plan; the first one is not supported."""
        assert not self.stages and 0 <= number < N_PLANS
        fail('build', number)
        if number == 0:
            raise cudnnGraphNotSupportedError('No valid engine configs')
        self.built.add(number)

    def get_workspace_size_plan_at_index(self, number):
        return WORKSPACES[number] if number in self.built else 0

    def _execute_plan_at_index(self, pointers, workspace, number, handle):
        assert number in self.built and workspace
        assert set(pointers) == {tensor.uid for tensor in self.tensors}
        assert streams[handle] == runtime.get_current_stream().ptr
        PLANS.append((self.kind, number))
        fail('execute', number)
        time.sleep(SECONDS[number])
        tensors = [self.image, self.filter, self.output]
        arrays = [t.view(pointers[t.uid]) for t in tensors]

        def compute():
            x, W, y = (a.astype(np.float32) for a in arrays)
            with np.errstate(over='ignore', invalid='ignore'):
                getattr(self, self.kind)(x, W, y)
                arrays[tensors.index(self.result)][...] = (x, W, y)[tensors.index(self.result)]
        runtime.do('cudnn', self.kind, compute)

    def padded(self, x):
        (ph, pw) = self.padding
        return np.pad(x.astype(np.float64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))

    def taps(self, padded, W, y):
        """The place of each tap of the filter, and the pixels that it is multiplied with."""
        (sy, sx), (oh, ow) = self.stride, y.shape[2:]
        for i in range(W.shape[2]):
            for j in range(W.shape[3]):
                yield i, j, padded[:, :, i:i + sy * oh:sy, j:j + sx * ow:sx][:, :, :oh, :ow]

    def fprop(self, x, W, y):
        y[...] = sum(np.einsum('nchw,oc->nohw', pixels, W[:, :, i, j], optimize=True)
                     for i, j, pixels in self.taps(self.padded(x), W, y))

    def dgrad(self, x, W, y):
        gx = np.zeros_like(self.padded(x))
        for i, j, pixels in self.taps(gx, W, y):
            pixels += np.einsum('nohw,oc->nchw', y, W[:, :, i, j], optimize=True)
        (ph, pw), (h, w) = self.padding, x.shape[2:]
        x[...] = gx[:, :, ph:ph + h, pw:pw + w]

    def wgrad(self, x, W, y):
        for i, j, pixels in self.taps(self.padded(x), W, y):
            W[:, :, i, j] = np.einsum('nchw,nohw->oc', pixels, y, optimize=True)
