"""Convolutions by cuDNN 9, through the graph interface of nvidia-cudnn-frontend.

A plan is what cuDNN makes of one operation on given shapes; its heuristics choose the algorithm.
Plans are made once and kept.  Maps are contiguous (N, H, W, C) arrays and filters (O, kh, kw, C)
ones, which cuDNN is told as (N, C, H, W) and (O, C, kh, kw) with the strides of that memory.
"""
import functools

import chainer
import cudnn
import cupy
import numpy as np

IMAGE, FILTER, OUTPUT = 1, 2, 3  # how a plan knows its arrays, or their gradients
DTYPES = {'f': cudnn.data_type.FLOAT, 'e': cudnn.data_type.HALF}  # sums are always float32
HEURISTICS = [cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK]


def run(kind, x, W, y, stride, pad):
    """One of 'fprop', which writes y, 'dgrad', which writes x, and 'wgrad', which writes W."""
    device = x.device.id
    graph, workspace_size = plan(
        device, kind, x.dtype.char, x.shape, W.shape, y.shape, stride, pad,
        bool(chainer.config.cudnn_deterministic), chainer.config.use_cudnn_tensor_core == 'never')
    handle = handles(device)
    cudnn.set_stream(handle=handle, stream=cupy.cuda.get_current_stream().ptr)
    graph._execute({IMAGE: x.data.ptr, FILTER: W.data.ptr, OUTPUT: y.data.ptr},
                   workspace(device, workspace_size).data.ptr, handle)


@functools.lru_cache(None)
def plan(device, kind, dtype, x, w, y, stride, pad, deterministic, strict):
    """The graph and the bytes of workspace that it needs.

    Args:
        deterministic (bool): The same bits every time.
        strict (bool): Products of float32 in float32; without it in TF32, which keeps 10 bits of
            mantissa.
    """
    with cupy.cuda.Device(device):
        graph = describe(kind, dtype, x, w, y, stride, pad, handle=handles(device))
        return build(graph, deterministic, strict and dtype == 'f')


def describe(kind, dtype, x, w, y, stride, pad, **where):
    """The operation as a graph, for a handle or for a described device."""
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
    n, h, w, c = shape
    return {'dim': [n, c, h, w], 'stride': [h * w * c, 1, w * c, c]}


def build(graph, deterministic, strict):
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
    graph.check_support()
    graph.build_plans()
    return graph, graph.get_workspace_size()


@functools.lru_cache(None)
def handles(device):
    with cupy.cuda.Device(device):
        return cudnn.create_handle()


WORKSPACES = {}  # of a device: all of them, for a recorded step may go on using a smaller one


def workspace(device, size):
    """Memory that one plan after another may use."""
    spaces = WORKSPACES.setdefault(device, [])
    if not spaces or spaces[-1].nbytes < size:
        spaces.append(cupy.empty(max(size, 2 ** 20), np.uint8))
    return spaces[-1]
