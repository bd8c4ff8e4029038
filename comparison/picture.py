"""The comparison as a picture: the accuracy of each row, epoch by epoch."""
import io
import math
import warnings

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comparison.fonts import find_families, letters
from comparison.report import plus_minus, title

# Okabe and Ito's, of each method for its first row and the next ones.
COLOURS = {'baseline': ['#0072B2'], 'input mixup': ['#009E73', '#56B4E9'],
           'Manifold Mixup': ['#D55E00', '#CC79A7', '#E69F00']}
STYLES = '-', '-.', ':'  # one after another where the colours begin anew


def looks(groups):
    """Colour and style of the line of each row, {name: (colour, style)}, in all groups the same."""
    methods = {name: runs[0].method for group in groups for name, runs in group.items()}
    found = {}
    for method, colours in COLOURS.items():
        names = sorted(name for name in methods if methods[name] == method)
        for number, name in enumerate(names):
            turn, place = divmod(number, len(colours))
            style = '--' if method == 'baseline' else STYLES[turn % len(STYLES)]
            found[name] = colours[place], style
    return found


def draw(groups, summaries):
    """A figure with a panel for each group: mean accuracy against epochs, band min to max."""
    columns = min(len(groups), 2)
    lines = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(7.5 * columns, 5.5 * lines), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(groups):]:
        axis.set_axis_off()
    settings = [summary['setting'] for summary in summaries]
    titles = [title(setting, settings, longest=40) for setting in settings]
    found = looks(groups)
    families, missing = find_families(' '.join(titles))
    for axis, group, summary, heading in zip(axes, groups, summaries, titles):
        low, high = 100, 0
        for row, (name, runs) in zip(summary['rows'], group.items()):
            colour, style = found[name]
            curves = np.array([run.accuracy for run in runs])
            epochs, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
            axis.plot(epochs, mean, color=colour, linestyle=style,
                      label=f'{row["name"]}: {plus_minus(row["accuracy_last_epoch"])} %')
            axis.plot(epochs[-1], mean[-1], 'o', color=colour)
            axis.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour,
                              alpha=0.2, linewidth=0)
            # A long climb's first twentieth may start below the panel: the end needs the room.
            low, high = min(low, curves[:, len(mean) // 20:].min()), max(high, curves.max())
        margin = 0.05 * (high - low) or 1
        axis.set_ylim(low - margin, high + margin)
        heading = ''.join('?' if letter in missing else letter for letter in letters(heading))
        # Escaped, as what wraps the title reads $…$ as a formula even where parse_math is False.
        axis.set_title(heading.replace('$', r'\$'), family=families, wrap=True)
        axis.set_xlabel('epoch')
        axis.set_ylabel('validation accuracy (%)')
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.legend(title='validation accuracy at the last epoch' + (
                    '; band: min to max over seeds' if max(map(len, group.values())) > 1 else ''),
                    loc='upper center', bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def picture_of(figure):
    """A figure as the content of a PNG file, which has at most 65,535 lines."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # an accent that its letter's font lacks
        figure.savefig(file, format='png', dpi=min(120, 65535 / figure.get_figheight()))
    return file.getvalue()
