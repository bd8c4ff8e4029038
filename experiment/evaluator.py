"""Validation figures that are exact over the whole set."""
import chainer
from chainer.training import extensions


class ExactEvaluator(extensions.Evaluator):
    """Chainer's Evaluator, with each batch weighted by its size.

    Chainer's own takes the mean over batches, in which each example of a smaller last batch
    counts for more.
    """

    def evaluate(self):
        iterator = self.get_iterator('main')
        iterator.reset()

        batches = []
        for indices in iterator:
            observation = {}
            with chainer.reporter.report_scope(observation), chainer.no_backprop_mode():
                self.evaluate_batch(indices)
            batches.append((len(indices), observation))

        total = sum(size for size, _ in batches)
        return {name: sum(size * float(chainer.as_array(observation[name]))
                          for size, observation in batches) / total for name in batches[0][1]}

    def evaluate_batch(self, indices):
        """Report the figures of one batch."""
        evaluate = self.eval_func or self.get_target('main')
        evaluate(*self.converter(indices, self.device))
