"""Work of a GPU captured as CUDA graphs.

What captured work computes lies in a pool of memory that one graph after another uses: nothing that
outlives a replay may lie in it, so what is reported is copied.
"""
import contextlib
import types

import chainer
from chainer.backends import cuda


class Recorder:
    """A stream, and memory for graphs that are replayed one after another."""

    def __init__(self):
        self.stream = cuda.cupy.cuda.Stream()
        self.pool = cuda.cupy.cuda.MemoryPool(allocate)
        self.pool.set_limit(size=0)  # no limit: a pool that reached it would free what graphs use

    @contextlib.contextmanager
    def __call__(self):
        """A context in which work is done on the stream, in memory of the pool."""
        with cuda.cupy.cuda.using_allocator(self.pool.malloc), self.stream:
            yield

    @contextlib.contextmanager
    def capture(self):
        """A context in which work is recorded, not done; it yields what has the ``graph`` then."""
        captured = types.SimpleNamespace()
        self.stream.begin_capture()
        try:
            with self():
                yield captured
        except BaseException:
            with contextlib.suppress(Exception):  # what has been raised says more
                self.stream.end_capture()
            raise
        captured.graph = self.stream.end_capture()


def allocate(size):
    """Memory for a pool, from others if need be; the pool itself would free what graphs use."""
    cupy = cuda.cupy
    for others in True, False:
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if not others:
                raise MemoryError(f'the GPU has no {size} bytes left to record a step ({error}); '
                                  'a smaller batch, or no graphs, needs less') from None
            cupy.get_default_memory_pool().free_all_blocks()


@contextlib.contextmanager
def observed(model):
    """A context that collects what a model and its links report: ``{link: {name: array}}``.

    Other observers are told nothing.
    """
    reporter, links = chainer.Reporter(), dict(model.namedlinks())
    for path, link in links.items():
        reporter.add_observer(path, link)
    found = {}
    with reporter:
        yield found
    for name, value in reporter.observation.items():
        path, _, key = name.rpartition('/')
        link, key = (links[path], key) if path in links else (None, name)
        found.setdefault(link, {})[key] = chainer.as_array(value)


def publish(loss, reported):
    """Report copies, which the next replay leaves alone, and return a copy of the loss."""
    for link, values in reported.items():
        chainer.report({key: value.copy() for key, value in values.items()}, link)
    return loss.copy()


class CapturedArrays:
    """The arrays of a model and of update rules that a graph reads and writes in each replay.

    Args:
        model (chainer.Link): Its parameters and persistent values.
        rules (list of chainer.UpdateRule): Their states and master weights.
    """

    def __init__(self, model, rules=()):
        held = [(parameter, 'array') for parameter in model.params()]
        held += [(link, name) for link in model.links() for name in link._persistent]
        held += [(rule._fp32_param, 'array') for rule in rules if rule._fp32_param is not None]
        self.held = [(owner, name, getattr(owner, name)) for owner, name in held]
        self.states = [(rule.state, name, array)
                       for rule in rules for name, array in (rule.state or {}).items()]

    def are_current(self):
        """Whether the model and the rules still hold these arrays, and no others."""
        return (all(getattr(owner, name) is value for owner, name, value in self.held)
                and all(state[name] is array for state, name, array in self.states))
