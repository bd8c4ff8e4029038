"""Training steps recorded as CUDA graphs.

A step of a deep network is some thousand small pieces of work, which Python hands to a GPU more
slowly than the GPU does them.  A CUDA graph holds everything that a step does, from the forward
pass to the new weights, and is handed over at once.  It reads its inputs from the same memory in
each replay: images, labels, what the model draws, and the learning rate are sent there before.

Of what a model draws, integers and None select the graph, as the layer that mixes decides what is
done; floats and arrays are inputs.  The first step with each selection is done eagerly, which warms
everything up, and is then recorded, which changes nothing on the GPU.

With dynamic loss scaling a step finds out on the GPU whether its gradients are finite, and changes
nothing if they are not.  Chainer's optimizer is told before the next step, or before it is saved,
so that the GPU need not wait for the host in between.

Gradients lie in memory that recorded steps share, see ``capture.py``, and are cleared therefore.
"""
import numbers
import weakref

import chainer
import numpy as np
from chainer import optimizer as chainer_optimizer, training
from chainer.backends import cuda

from engine.gpu import graph_inputs
from engine.gpu.capture import CapturedArrays, Recorder, observed, publish
from engine.gpu.multi_tensor import covers, note_found_inf, trained
from engine.seam import replaces, wraps_stock

steps = None  # the GraphedStep of each optimizer, while StandardUpdater is to use them
pending_found_inf = weakref.WeakKeyDictionary()  # of optimizers not yet told how a replay has gone


def enable(on):
    """Let ``StandardUpdater`` record and replay the steps that it takes on a GPU, or not."""
    global steps
    steps = weakref.WeakKeyDictionary() if on else None


@replaces(training.updaters.StandardUpdater, 'update_core')
def update_core(updater):
    optimizers = updater.get_all_optimizers()
    optimizer = optimizers.get('main')
    if steps is None or len(optimizers) != 1 or updater.loss_func is not None:
        return NotImplemented
    if optimizer not in steps:
        steps[optimizer] = GraphedStep(optimizer)
    iterator = updater.get_iterator('main')
    steps[optimizer](*updater.converter(iterator.next(), updater.input_device))
    if updater.auto_new_epoch and iterator.is_new_epoch:
        optimizer.new_epoch(auto=True)


@wraps_stock(chainer_optimizer.Optimizer, 'serialize')
def serialize(stock, optimizer, serializer):
    resolve_found_inf(optimizer)
    stock(optimizer, serializer)


def resolve_found_inf(optimizer):
    """Tell an optimizer whether its last step has found gradients that are not finite.

    Waits for the GPU where the step has been replayed with dynamic loss scaling.
    """
    found_inf = pending_found_inf.pop(optimizer, None)
    if found_inf is None:
        return
    note_found_inf(optimizer, bool(found_inf))
    if not optimizer.is_safe_to_update():
        for rule in rules_of(optimizer):
            rule.t -= 1
    optimizer.update_loss_scale()


class GraphedStep:
    """A training step that is recorded and replayed: the same as ``optimizer.update(model, x, t)``.

    The model is the optimizer's target, on a GPU; ``model(x, t)`` gives the loss.  If it has a
    method ``draw``, ``model.draw(n)`` gives the tuple of what is random in a step of n examples:
    the loss is then ``model(x, t, *draws)``, which draws nothing itself.

    Random numbers that a network draws on the GPU itself, as dropout does, would be the same in
    each replay: such a network needs eager steps.

    Gradients are cleared afterwards.  Where Chainer itself updates some of the parameters nothing
    is recorded, as the learning rate of that time would stay for ever.

    Args:
        optimizer (chainer.Optimizer): Set up with the model.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.recorded = {}
        self.n_replayed = 0
        self.recorder = Recorder()

    def __call__(self, x, t):
        """Train on one batch.

        Args:
            x (cupy.ndarray): Images, float, shape ``(N, ...)``.
            t (cupy.ndarray): Labels.

        Returns:
            cupy.ndarray: The loss, shape ``()``.
        """
        draws = self.draw(x)
        key = x.shape, x.dtype.char, t.shape, *map(selection, draws)
        if key in self.recorded and self.recorded[key].arrays.are_current():
            self.n_replayed += 1
            return self.recorded[key].replay(x, t, draws)
        resolve_found_inf(self.optimizer)
        before = graph_inputs.n_sent
        loss = publish(*self.update(x, t, [
            graph_inputs.constant(drawn) if is_input(drawn) else drawn for drawn in draws]))
        if covers(self.optimizer) and self.optimizer.is_safe_to_update():  # nothing was left out
            self.recorded[key] = RecordedStep(self, x, t, draws, graph_inputs.n_sent - before)
        return loss

    def draw(self, x):
        """What the model draws for a batch; floats and arrays as NumPy arrays, floats of x's dtype.

        So they are rounded as the model rounds them where it is given floats.
        """
        model = self.optimizer.target
        draws = model.draw(len(x)) if hasattr(model, 'draw') else ()
        arrays = [np.asarray(drawn) if is_input(drawn) else drawn for drawn in draws]
        return [a.astype(x.dtype) if is_input(a) and a.dtype.kind == 'f' else a for a in arrays]

    def update(self, x, t, draws, loss_scale=None):
        """One step, eager or recorded, in memory that goes from one step to the next.

        Args:
            loss_scale (callable): Gives the gradient that a loss of some dtype starts from, in
                place of Chainer's.

        Returns:
            tuple: The loss, and what has been reported; they lie in that memory too.
        """
        losses = []

        def forward(*arguments):
            loss = self.optimizer.target(*arguments)
            losses.append(loss.array)
            loss.grad = loss_scale and loss_scale(loss.dtype)
            return loss
        with self.recorder(), observed(self.optimizer.target) as reported:
            self.optimizer.update(forward, x, t, *draws)
            self.optimizer.target.cleargrads()
        return losses[0], reported


def is_input(drawn):
    """Whether a graph reads what has been drawn from memory, rather than being selected by it."""
    return not (drawn is None or isinstance(drawn, numbers.Integral))


def selection(drawn):
    """The part of what has been drawn that selects a graph."""
    return (drawn.dtype.char, drawn.shape) if is_input(drawn) else drawn


class RecordedStep:
    """The CUDA graph of a step for batches of one shape, with draws that select this graph."""

    def __init__(self, step, x, t, draws, n_sent):
        self.optimizer = step.optimizer
        self.draws = draws
        self.x, self.t = cuda.cupy.empty_like(x), cuda.cupy.empty_like(t)
        self.inputs = graph_inputs.GraphInputs(n_sent + graph_inputs.ALIGNMENT)  # loss scale too
        rules = rules_of(self.optimizer)
        self.arrays = CapturedArrays(self.optimizer.target, rules)
        self.counting = [self.optimizer, *rules]  # the updates
        counts = [owner.t for owner in self.counting]
        scale = self.optimizer._loss_scale
        with self.inputs(), step.recorder.capture() as captured:
            self.results = step.update(
                chainer.Variable(self.x, requires_grad=False), self.t, self.arguments(),
                self.loss_scale if scale else None)
        self.graph = captured.graph
        for owner, count in zip(self.counting, counts):
            owner.t = count  # nothing has been done yet
        self.optimizer._loss_scale = scale

    def arguments(self):
        """What the model is given for its draws while it is recorded."""
        return [self.inputs.graph_input(lambda i=i: self.draws[i]) if is_input(drawn) else drawn
                for i, drawn in enumerate(self.draws)]

    def loss_scale(self, dtype):
        return self.inputs.graph_input(lambda: np.array(self.optimizer._loss_scale, dtype))

    def replay(self, x, t, draws):
        self.x[...], self.t[...], self.draws = x, t, draws
        resolve_found_inf(self.optimizer)
        for owner in self.counting:
            owner.t += 1
        self.inputs.send()
        self.graph.launch()
        if self.inputs.found_inf is not None:
            pending_found_inf[self.optimizer] = self.inputs.found_inf.copy()
        return publish(*self.results)


def rules_of(optimizer):
    return [p.update_rule for p in trained(optimizer)]
