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
    """Draws the curves of ``OUT/log`` at the end, and after epochs as far as time permits.

    All drawing takes at most ``share`` of the time.  The log outlives an interrupted run, so the
    curves of a resumed one are whole.
    """

    trigger = 1, 'epoch'
    priority = training.PRIORITY_READER - 1  # after LogReport
    share = 0.02

    due = -math.inf  # when curves are drawn next, by time.monotonic()
    out = None  # the trainer's directory, while an epoch has not been drawn

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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    with new_file(path) as file:
        figure.savefig(file, format='png', dpi=100)
