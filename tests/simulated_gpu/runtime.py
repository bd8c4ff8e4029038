"""Streams, capture, graphs and memory with CUDA's rules.

All that a GPU would do goes through :func:`do`: it is done at once, or while a stream is captured
only noted, and done when the graph is launched.
"""
import collections
import contextlib
import ctypes
import itertools
import time
import types
import weakref

LOG = []  # (kind, name) of all that a GPU was asked for


class CUDARuntimeError(RuntimeError):
    pass


class Capture:
    """The stream that is captured, and what has been asked for since."""

    def __init__(self, stream):
        self.stream, self.actions = stream, []


capture = None


def do(kind, name, action):
    LOG.append((kind, name))
    if capture is None:
        action()
    else:
        if current is not capture.stream:
            raise CUDARuntimeError(f'{name} on another stream than the captured one')
        capture.actions.append((kind, name, action))


def is_capturing():
    return capture is not None


def forbid_capture(kind, name):
    """Raise what CUDA raises for operations that it does not allow while a stream is captured."""
    LOG.append((kind, name))
    if capture is not None:
        raise CUDARuntimeError(f'cudaErrorStreamCaptureUnsupported: {name}')


numbers = itertools.count(1)


class Stream:

    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr = 0 if null else next(numbers)

    def __enter__(self):
        global current
        self.before, current = current, self
        return self

    def __exit__(self, *args):
        global current
        current = self.before

    def synchronize(self):
        forbid_capture('sync', 'Stream.synchronize')

    def record(self, event=None):
        return (event or Event()).record(self)

    def begin_capture(self, mode=None):
        global capture
        if self.ptr == 0:
            raise CUDARuntimeError('the null stream cannot be captured')
        capture = Capture(self)

    def end_capture(self):
        global capture
        actions, capture = capture.actions, None
        return Graph(actions)


class Graph:

    def __init__(self, actions):
        self.actions = actions

    def launch(self, stream=None):
        forbid_capture('graph', 'launch')
        for _, _, action in self.actions:
            action()


class Event:

    def __init__(self, *args, **kwargs):
        pass

    def record(self, stream=None):
        LOG.append(('event', 'record'))
        self.time = time.perf_counter()
        return self

    def synchronize(self):
        forbid_capture('sync', 'Event.synchronize')


def get_elapsed_time(first, last):
    forbid_capture('sync', 'get_elapsed_time')
    return 1e3 * (last.time - first.time)


Stream.null = current = Stream(null=True)


class Device:

    def __init__(self, device=0):
        self.id = int(device)
        self.attributes = {'MultiProcessorCount': 4}

    compute_capability = '90'

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def use(self):
        pass

    def synchronize(self):
        forbid_capture('sync', 'Device.synchronize')


class MemoryPool:
    """Memory that is given back goes to whoever next asks for as much."""

    def __init__(self, allocator=None):
        self.allocator = allocator or Memory
        self.free = collections.defaultdict(list)
        self.total = 0

    def malloc(self, size):
        size = max(512, 1 << (size - 1).bit_length())
        if not self.free[size]:
            self.free[size].append(self.allocator(size + 512))
            self.total += size
        block = self.free[size].pop()
        memory = (ctypes.c_char * size).from_buffer(block.bytes, -block.ptr % 512)
        weakref.finalize(memory, self.free[size].append, block)
        return memory

    def set_limit(self, size):
        assert size == 0

    def total_bytes(self):
        return self.total

    def free_all_blocks(self):
        self.free.clear()


class Memory:

    def __init__(self, size):
        self.bytes = ctypes.create_string_buffer(size)
        self.ptr, self.size = ctypes.addressof(self.bytes), size


def MemoryPointer(memory, offset):
    return memory


default_pool = MemoryPool()
allocator = default_pool.malloc


@contextlib.contextmanager
def using_allocator(malloc):
    global allocator
    before, allocator = allocator, malloc
    try:
        yield
    finally:
        allocator = before


def set_allocator(malloc=None):
    global allocator
    allocator = malloc or default_pool.malloc


def current_allocator():
    return allocator


def get_current_stream():
    return current


def resident_blocks(function, threads, shared):
    """The blocks that a multiprocessor holds, if registers are enough."""
    assert function and shared == 0
    return 2048 // threads


DRIVER = types.SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=resident_blocks)


def properties(device):
    return {'name': b'simulated GPU', 'major': 9, 'minor': 0, 'totalGlobalMem': 2 ** 34}


RUNTIME = types.SimpleNamespace(
    getDeviceCount=lambda: 1, getDeviceProperties=properties, getDevice=lambda: 0,
    memGetInfo=lambda: (2 ** 33, 2 ** 34),
    CUDARuntimeError=CUDARuntimeError, runtimeGetVersion=lambda: 12090,
    driverGetVersion=lambda: 12090, deviceSynchronize=lambda: Device().synchronize())
