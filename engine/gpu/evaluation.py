"""Evaluations recorded as CUDA graphs.

Outside training a classifier does the same with every batch of one shape.  The first one is
evaluated eagerly, on the stream on which it is then recorded for the others.
"""
import chainer
from chainer.backends import cuda

from engine.gpu.capture import CapturedArrays, Recorder, observed, publish


class GraphedEvaluation:
    """An evaluation that is recorded and replayed: the same as ``classifier(x, t)``.

    It is made to be the ``eval_func`` of Chainer's ``Evaluator``.

    Args:
        classifier (chainer.Link): On a GPU; gives the loss, and reports.
    """

    def __init__(self, classifier):
        self.classifier = classifier
        self.recorder = Recorder()
        self.recorded = {}
        self.n_replayed = 0

    def __call__(self, x, t):
        """Evaluate one batch, arrays on the GPU of which the shape decides what is recorded.

        Returns:
            cupy.ndarray: The loss.
        """
        if chainer.config.train or chainer.config.enable_backprop:
            raise RuntimeError('a GraphedEvaluation is for chainer.using_config("train", False) '
                               'and chainer.no_backprop_mode()')
        key = x.shape, x.dtype.char, t.shape
        if key in self.recorded and self.recorded[key].arrays.are_current():
            self.n_replayed += 1
            return self.recorded[key].replay(x, t)
        with self.recorder(), observed(self.classifier) as reported:
            loss = self.classifier(x, t).array
        loss = publish(loss, reported)
        self.recorded[key] = RecordedEvaluation(self.recorder, self.classifier, x, t)
        return loss


class RecordedEvaluation:
    """The CUDA graph of an evaluation, for batches of one shape."""

    def __init__(self, recorder, classifier, x, t):
        self.arrays = CapturedArrays(classifier)
        self.x, self.t = cuda.cupy.empty_like(x), cuda.cupy.empty_like(t)
        with recorder.capture() as captured, observed(classifier) as self.reported:
            self.loss = classifier(self.x, self.t).array
        self.graph = captured.graph

    def replay(self, x, t):
        self.x[...], self.t[...] = x, t
        self.graph.launch()
        return publish(self.loss, self.reported)
