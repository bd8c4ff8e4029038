"""loss.png and accuracy.png, drawn from the log."""
import json
import math
import os
import time

from chainer import training
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiment.atomic_file import new_file

CURVES = {'main': 'training', 'validation/main': 'validation'}


class PlotLog(training.Extension):
    """Draws the curves of ``OUT/log`` after an epoch, if that has taken but little of the time so
    far, and at the end.

    The log outlives an interrupted run, so the curves of a resumed one are whole.
    """

    trigger = 1, 'epoch'
    priority = training.PRIORITY_READER - 1  # after LogReport
    share = 0.02  # of the time since it was last done

    due = -math.inf  # when it is next done, in seconds of the clock
    out = None  # of the trainer, while an epoch has not been drawn

    def __call__(self, trainer):
        self.out = trainer.out
        if time.monotonic() >= self.due:
            self.draw()

    def finalize(self):
        if self.out is not None:
            self.draw()

    def draw(self):
        start = time.monotonic()
        with open(os.path.join(self.out, 'log')) as file:
            log = json.load(file)
        for quantity in 'loss', 'accuracy':
            plot(log, quantity, os.path.join(self.out, quantity + '.png'))
        self.out = None
        end = time.monotonic()
        self.due = end + (end - start) / self.share


def plot(log, quantity, path):
    """Write the training and validation curves of ``'loss'`` or ``'accuracy'`` to ``path``."""
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for prefix, label in CURVES.items():
        key = f'{prefix}/{quantity}'
        points = [(entry['epoch'], entry[key]) for entry in log if key in entry]
        axes.plot(*zip(*points), label=label, marker='o' if len(points) < 30 else None)
    axes.set_xlabel('epoch')
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    with new_file(path) as file:
        figure.savefig(file, format='png', dpi=100)
