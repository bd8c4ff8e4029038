"""Validation figures that are exact over the whole set."""
import chainer
from chainer.training import extensions


class ExactEvaluator(extensions.Evaluator):
    """Chainer's Evaluator, but each batch counts by its size.

    Chainer's own averages over batches: an example of a smaller last batch counts more there.
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
        """Have the figures of one batch reported."""
        evaluate = self.eval_func or self.get_target('main')
        evaluate(*self.converter(indices, self.device))
