"""Convolutions by cuDNN 9, through the graph interface of nvidia-cudnn-frontend.

A plan is one way in which cuDNN can do an operation on arrays of given shapes; it is made once and
kept.  Feature maps are contiguous (N, H, W, C) arrays and filters contiguous (O, kh, kw, C) ones;
cuDNN is told (N, C, H, W) and (O, C, kh, kw) with the strides of that memory.
"""
import functools
import itertools
import math
import textwrap

import chainer
import cupy
import numpy as np

from engine.gpu import cudnn_interface, timing

cudnn = cudnn_interface.load()

IMAGE, FILTER, OUTPUT = 1, 2, 3  # the numbers of a plan's arrays, or of their gradients
DTYPES = {'f': cudnn.data_type.FLOAT, 'e': cudnn.data_type.HALF}  # sums are always float32
HEURISTICS = [cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK]
CANDIDATES = 10  # plans that are measured, if the fastest is wanted
LARGEST_WORKSPACE = 2 ** 30  # bytes
REFUSALS = cudnn.cudnnGraphNotSupportedError, RuntimeError, MemoryError  # of cuDNN, CUDA and CuPy


def run(kind, x, W, y, stride, pad):
    """Compute a convolution or one of its gradients.

    The plan is the one that cuDNN expects to be the fastest; with ``chainer.config.autotune`` it is
    the one that was the fastest on the first arrays of these shapes.

    Args:
        kind (str): ``'fprop'``, which writes y, ``'dgrad'``, which writes x, or ``'wgrad'``, which
            writes W.
        x, W, y (cupy.ndarray): (N, H, W, C), (O, kh, kw, C), (N, H', W', O), contiguous, of one
            dtype, float32 or float16.
        stride, pad (pair of int): Vertical and horizontal.

    Raises:
        RuntimeError: If cuDNN cannot do it.
    """
    config, device = chainer.config, x.device.id
    arrays = {IMAGE: x.data.ptr, FILTER: W.data.ptr, OUTPUT: y.data.ptr}
    cudnn.set_stream(handle=handles(device), stream=cupy.cuda.get_current_stream().ptr)
    try:
        plans = plans_of(device, kind, x.dtype.char, x.shape, W.shape, y.shape, stride, pad,
                         bool(config.cudnn_deterministic), config.use_cudnn_tensor_core == 'never')
        plan = plans.fastest(arrays) if config.autotune else plans.first
    except REFUSALS as error:
        name = cupy.cuda.runtime.getDeviceProperties(device)['name'].decode()
        raise RuntimeError(
            f'cuDNN has no plan for {kind} of x {x.shape}, W {W.shape}, y {y.shape}, {x.dtype}, '
            f'stride {stride}, pad {pad} on GPU {device} ({name}): '
            f'{textwrap.shorten(str(error), 300)}; the stock engine does it without cuDNN'
        ) from error
    plans.execute(plan, arrays, workspace(device, plan[1]).data.ptr)


@functools.lru_cache(None)
def plans_of(device, kind, dtype, x, w, y, stride, pad, deterministic, strict):
    """The plans of one operation on arrays of these shapes; see :class:`Plans`."""
    with cupy.cuda.Device(device):
        graph = describe(kind, dtype, x, w, y, stride, pad, handle=handles(device))
        return Plans(graph, deterministic, strict and dtype == 'f', device)


class Plans:
    """All plans that cuDNN has for one operation.

    A plan is a tuple of its number and the bytes of workspace that it needs.

    Args:
        graph (cudnn.pygraph): The operation.
        deterministic (bool): Whether the result must have the same bits every time.
        strict (bool): Whether float32 is multiplied in float32, not in TF32, which keeps 10 bits of
            the mantissa.
        device (int): The GPU; None for a device that is only described, on which nothing runs.
    """

    def __init__(self, graph, deterministic, strict, device=None):
        self.graph, self.device, self.measured = graph, device, None
        self.refusal = RuntimeError('none is wanted')  # why the last plan could not be used
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans(HEURISTICS)
        notes = cudnn.numerical_note
        unwanted = [notes.NONDETERMINISTIC] * deterministic
        if strict:
            unwanted += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS,
                         notes.REDUCED_PRECISION_REDUCTION]
        if unwanted:
            graph.deselect_numeric_notes(unwanted)
        graph.deselect_workspace_greater_than(LARGEST_WORKSPACE)
        graph.check_support()

    def built(self):
        """Build one plan after another, the one that cuDNN expects to be the fastest first.

        Plans that cannot be built are left out.

        Yields:
            tuple: A plan.
        """
        for number in range(self.graph.get_execution_plan_count()):
            try:
                self.graph.build_plan_at_index(number)
            except REFUSALS as error:  # not supported, or deselected
                self.refusal = error.with_traceback(None)
                continue
            yield number, self.graph.get_workspace_size_plan_at_index(number)

    @functools.cached_property
    def first(self):
        """The plan that cuDNN expects to be the fastest."""
        for plan in self.built():
            return plan
        raise self.refusal

    def fastest(self, arrays):
        """The plan that takes the least time among the first :data:`CANDIDATES`.

        It is found at the first call and kept.

        Args:
            arrays (dict): Pointers by the number of the array; what is written is overwritten.
        """
        if self.measured is None:
            times = {plan: self.time(plan, arrays)
                     for plan in itertools.islice(self.built(), CANDIDATES)}
            if min(times.values(), default=math.inf) == math.inf:
                raise self.refusal
            self.measured = min(times, key=times.get)
        return self.measured

    def time(self, plan, arrays):
        """Milliseconds that a plan takes; infinity if it fails, also for lack of memory."""
        try:
            memory = cupy.cuda.Memory(max(1, plan[1]))  # no pool's: it is freed at once
            execute = functools.partial(self.execute, plan, arrays, memory.ptr)
            execute()  # loads its kernels, which is not measured
            return timing.time(execute)
        except REFUSALS as error:
            self.refusal = error.with_traceback(None)  # a traceback would keep the memory alive
            return math.inf

    def execute(self, plan, arrays, workspace):
        self.graph._execute_plan_at_index(arrays, workspace, plan[0], handles(self.device))


def describe(kind, dtype, x, w, y, stride, pad, **where):
    """An operation as cuDNN's graph, for ``handle=`` or for a described ``device_property=``."""
    float32, dtype = DTYPES['f'], DTYPES[dtype]
    graph = cudnn.pygraph(io_data_type=dtype, intermediate_data_type=float32,
                          compute_data_type=float32, **where)

    def given(uid, shape):
        tensor = graph.tensor(**as_nchw(shape), data_type=dtype)
        tensor.set_uid(uid)
        return tensor

    geometry = {'padding': list(pad), 'stride': list(stride), 'dilation': [1, 1]}
    if kind == 'fprop':
        result = graph.conv_fprop(image=given(IMAGE, x), weight=given(FILTER, w), **geometry)
    elif kind == 'dgrad':
        result = graph.conv_dgrad(loss=given(OUTPUT, y), filter=given(FILTER, w), **geometry)
    else:
        result = graph.conv_wgrad(image=given(IMAGE, x), loss=given(OUTPUT, y), **geometry)
    uid, shape = {
        'fprop': (OUTPUT, y), 'dgrad': (IMAGE, x), 'wgrad': (FILTER, w)}[kind]
    layout = as_nchw(shape)
    result.set_output(True).set_data_type(dtype).set_dim(layout['dim']).set_stride(
        layout['stride']).set_uid(uid)
    return graph


def as_nchw(shape):
    """An (N, H, W, C) shape as cuDNN is told: (N, C, H, W) and the strides."""
    n, h, w, c = shape
    return {'dim': [n, c, h, w], 'stride': [h * w * c, 1, w * c, c]}


@functools.lru_cache(None)
def handles(device):
    """The cuDNN handle of a device."""
    with cupy.cuda.Device(device):
        return cudnn.create_handle()


# The workspaces of each device, the largest one last.  All are kept: a recorded step goes on using
# the one that it was recorded with.
WORKSPACES = {}


def workspace(device, size):
    """At least ``size`` bytes of memory that one plan after another may use, a uint8 array."""
    spaces = WORKSPACES.setdefault(device, [])
    if not spaces or spaces[-1].nbytes < size:
        spaces.append(cupy.empty(max(size, 2 ** 20), np.uint8))
    return spaces[-1]
