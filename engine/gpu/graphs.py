"""Training steps recorded as CUDA graphs.

A step of a deep network is some thousand small pieces of work, which Python hands to a GPU more
slowly than it does them.  A CUDA graph holds all that one step does, from the forward pass to the
new weights, and is handed over as one.  What it reads lies always at the same place: images,
labels, partners, lam and the learning rate are put there before each replay.

The layer that mixes decides what is done, so each has a graph of its own; the first step of each is
done as ever and warms up everything, then it is recorded, which changes nothing on the GPU.

With dynamic loss scaling a step finds out on the GPU whether its gradients are finite, and changes
nothing if they are not.  Chainer's optimizer hears of it before the next step, or before it is
saved: so the GPU need not wait for the host in between.

Gradients lie in the memory that recorded steps share, see ``capture.py``, and so are cleared.
"""
import weakref

import chainer
import numpy as np
from chainer import optimizer as chainer_optimizer
from chainer import training
from chainer.backends import cuda

from engine.gpu import graph_inputs
from engine.gpu.capture import Places, Recorder, observed, publish
from engine.gpu.multi_tensor import covers, note_found_inf, trained
from engine.seam import replaces, wraps_stock

# Stands for lam while a step is recorded: where Chainer multiplies by it, or by 1 - it, the graph
# reads the number from memory.  No other number in a network is likely to be this one.
LAM = 0.3183098861837907

steps = None  # of each optimizer, while StandardUpdater is to replay them
unheard = weakref.WeakKeyDictionary()  # of an optimizer: whether its last step has changed nothing


def record(on):
    """Whether ``StandardUpdater`` records the steps that it takes on a GPU."""
    global steps
    steps = weakref.WeakKeyDictionary() if on else None


@replaces(training.updaters.StandardUpdater, 'update_core')
def update_core(updater):
    optimizers = updater.get_all_optimizers()
    optimizer = optimizers.get('main')
    if steps is None or len(optimizers) != 1 or updater.loss_func is not None:
        return NotImplemented
    if optimizer not in steps:
        steps[optimizer] = Step(optimizer)
    iterator = updater.get_iterator('main')
    steps[optimizer](*updater.converter(iterator.next(), updater.input_device))
    if updater.auto_new_epoch and iterator.is_new_epoch:
        optimizer.new_epoch(auto=True)


@wraps_stock(chainer_optimizer.Optimizer, 'serialize')
def serialize(stock, optimizer, serializer):
    settle(optimizer)
    stock(optimizer, serializer)


def settle(optimizer):
    """Let an optimizer know how its last step has gone; waits for it."""
    overflow = unheard.pop(optimizer, None)
    if overflow is None:
        return
    note_found_inf(optimizer, bool(overflow))
    if not optimizer.is_safe_to_update():
        for rule in rules_of(optimizer):
            rule.t -= 1
    optimizer.update_loss_scale()


class Step:
    """Does with a batch what ``optimizer.update(model, x, t)`` does, and the same.

    The model is the optimizer's target, on a GPU: a classifier that gives the loss of ``model(x,
    t)``.  One that has a true ``mixup_hidden`` draws as ``ManifoldMixupClassifier`` does and takes
    ``model(x, t, lam, layer_mix, index)``; of lam it may use products with it and with 1 - lam.

    Gradients are cleared afterwards.  Where Chainer itself updates some of the parameters nothing
    is recorded: it would be the learning rate of that time for ever.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.recorded = {}
        self.n_replayed = 0
        self.recorder = Recorder()

    def __call__(self, x, t):
        """Train on one batch, arrays on the GPU of which the shape decides what is recorded.

        Returns:
            cupy.ndarray: The loss.
        """
        model = self.optimizer.target
        draws = draw(model, len(x))
        key = draws.layer, x.shape, x.dtype.char, t.shape
        if key in self.recorded and self.recorded[key].places.are_current():
            self.n_replayed += 1
            return self.recorded[key].replay(x, t, draws)
        settle(self.optimizer)
        before = graph_inputs.n_sent
        loss = publish(*self.update(x, t, draws.arguments()))
        if covers(self.optimizer) and self.optimizer.is_safe_to_update():  # nothing was left out
            self.recorded[key] = Graph(self, x, t, draws, graph_inputs.n_sent - before)
        return loss

    def update(self, x, t, draws, loss_scale=None):
        """One step as ever, or recorded, in memory that goes from one step to the next.

        Args:
            loss_scale (callable): Gives the gradient that a loss starts from, in place of
                Chainer's.

        Returns:
            tuple: The loss, and what has been reported; they lie there too.
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


class Draws:
    """What a step draws from NumPy's global generator: nothing for a baseline."""

    lam = layer = index = None

    def arguments(self):
        return () if self.layer is None else (self.lam, self.layer, self.index)


def draw(model, n):
    """As ``ManifoldMixupClassifier``, its network and ``mixup_data`` do, in that order."""
    draws = Draws()
    if getattr(model, 'mixup_hidden', False):
        draws.lam = model.draw_lam()
        draws.layer = int(model.predictor.draw_layer(model.layer_mix))
        draws.index = np.random.permutation(n)
    return draws


class Graph:
    """A step for batches of one shape that are mixed at one layer."""

    def __init__(self, step, x, t, draws, n_sent):
        self.optimizer = step.optimizer
        self.draws = draws
        self.x, self.t = cuda.cupy.empty_like(x), cuda.cupy.empty_like(t)
        self.values = graph_inputs.Recording(n_sent + 1024 + 8 * len(x))  # lam and partners too
        rules = rules_of(self.optimizer)
        self.places = Places(self.optimizer.target, rules)
        self.counting = [self.optimizer, *rules]  # the updates
        counts = [owner.t for owner in self.counting]
        scale = self.optimizer._loss_scale
        with self.values(), step.recorder.capture() as captured:
            self.results = step.update(
                chainer.Variable(self.x, requires_grad=False), self.t, self.placeholders(),
                self.loss_scale if scale else None)
        self.graph = captured.graph
        for owner, count in zip(self.counting, counts):
            owner.t = count  # nothing has been done yet
        self.optimizer._loss_scale = scale

    def placeholders(self):
        """What the classifier is given for lam, layer_mix and index."""
        if self.draws.layer is None:
            return ()
        lam = self.values.varying(
            lambda: np.array([self.draws.lam, 1 - self.draws.lam], np.float32))
        self.values.factors = {LAM: lam[:1], 1 - LAM: lam[1:]}
        return LAM, self.draws.layer, self.values.varying(lambda: self.draws.index)

    def loss_scale(self, dtype):
        return self.values.varying(lambda: np.array(self.optimizer._loss_scale, dtype))

    def replay(self, x, t, draws):
        self.x[...], self.t[...], self.draws = x, t, draws
        settle(self.optimizer)
        for owner in self.counting:
            owner.t += 1
        self.values.send()
        self.graph.launch()
        if self.values.found_inf is not None:
            unheard[self.optimizer] = self.values.found_inf.copy()
        return publish(*self.results)


def rules_of(optimizer):
    return [p.update_rule for p in trained(optimizer)]
