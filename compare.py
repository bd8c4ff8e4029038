"""Compare runs with mixup and runs without: table, verdict and plot from what they left behind.

    python compare.py demo/baseline-0 demo/manifoldmixup-0
    python compare.py runs/cifar10                  every run below a directory

Runs that agree in their data and in every option but seed and mixup form a group and are paired by
seed. Each group has one table (printed, and in comparison.md) of validation accuracy and error, the
paired difference with its 95 % interval and the time per epoch; comparison.json adds every run's
own values, comparison.png shows the curves. Runs that are unfinished, damaged or without a finite
accuracy are named and left out, and so are their partners. Only `run.json` and `log` of each run
are read.
"""
import argparse
import dataclasses
import io
import json
import logging
import math
import os
import re
import reprlib
import signal
import statistics
import sys
import tempfile
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import scipy.stats
from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SCRIPTS = {'baseline': 'train_baseline.py', 'manifoldmixup': 'train_manifoldmixup.py'}
# What may differ within a group: the mixup, the seed, what computed a run and where files lie.
NOT_COUNTED = {
    'mixup_alpha', 'lam_per', 'layer_mix', 'seed', 'out', 'device', 'engine', 'graph', 'autotune',
    'snapshot_every', 'data_archive'}
DATA = {'training data': 'train', 'test data': 'test'}  # they count as options do
COLOURS = '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9'  # Okabe and Ito's
NOTES = """\
Accuracy, error and difference are those of the last epoch; mean ± standard deviation over seeds.
The difference is mixup − baseline in percentage points, paired by seed; its 95 % interval is
Student's t with one degree of freedom fewer than pairs, for each row by itself.
best*: best epoch, chosen on the test data; it flatters every row, so no verdict rests on it."""


class Invalid(ValueError):
    """Something given cannot be compared; the message says what it was and what to do."""


@dataclasses.dataclass
class Run:
    """A run, as read from its directory."""
    directory: str
    method: str    # a key of SCRIPTS
    name: str      # the method with its lam and layers: a row of the table
    seed: int
    setting: dict  # what counts for the grouping: options, and the data where they are known
    data: dict     # {images, sha256} for each of DATA; empty in older records
    given: tuple   # dataset and data_archive, as the options name the data
    starts: list   # {commit, device, version of each package}, again at each resume
    log: list      # an entry for each epoch; empty where there is a problem
    problem: str   # why the run cannot be compared; empty where it can

    @property
    def accuracy(self):
        """Validation accuracy in %, one value an epoch."""
        return np.array([100 * entry['validation/main/accuracy'] for entry in self.log])

    @property
    def seconds(self):
        """Time per epoch."""
        return seconds_per_epoch([entry['elapsed_time'] for entry in self.log])

    @property
    def diverged(self):
        """Whether the training loss was no finite number at the end."""
        return not is_number(self.log[-1].get('main/loss', 0))


def plain(text):
    """Text in which '?' stands for line breaks, control characters and bytes that are no text."""
    return re.sub('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]', '?',
                  unicodedata.normalize('NFC', str(text)))


def is_number(value, kind=(int, float)):
    """Whether a value is a number, and so small that its square is one too."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 1e100


def is_layers(value):
    return (isinstance(value, list) and value != []
            and all(is_number(layer, int) for layer in value))


def is_starts(value):
    return isinstance(value, list) and all(
        isinstance(start, dict) and {'commit', 'device', 'versions'} <= start.keys()
        and isinstance(start['versions'], dict) for start in value)


def is_data(value):
    return isinstance(value, dict) and all(
        isinstance(split := value.get(key), dict)
        and is_number(split.get('images'), int) and split['images'] > 0
        and isinstance(split.get('sha256'), str) and re.fullmatch('[0-9a-f]{64}', split['sha256'])
        for key in DATA.values())


def check(where, values, needed):
    """Raise Invalid for the first of `needed`, {key: (holds, what it has to be)}, that fails."""
    for key, (holds, what) in needed.items():
        if key not in values or not holds(values[key]):
            found = reprlib.repr(values[key]) if key in values else 'missing'
            raise Invalid(f'{where}: {key} is {found}, but {what} is needed: train the run again')


def finite(number):
    """A number of a JSON file; None where it is NaN or infinite."""
    return value if abs(value := float(number)) < math.inf else None


def read_json(path):
    try:
        return json.loads(path.read_text(encoding='utf-8'), parse_float=finite,
                          parse_constant=finite)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Invalid(f'{path} cannot be read as JSON ({str(error) or "memory ran out"}): train '
                      'the run again') from None
    except OSError as error:
        raise Invalid(f'{path} cannot be read ({error.strerror}): see to its permissions, or '
                      'train the run again') from None


def read_record(path):
    """Read a `run.json`, checked as far as the comparison uses it."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get('options'), dict):
        raise Invalid(f'{path} is no record of a run, with its options: give directories written '
                      f'by {" and ".join(SCRIPTS.values())}')
    check(path, record, {
        'method': (lambda method: method in list(SCRIPTS), ' or '.join(SCRIPTS)),
        'starts': (is_starts, 'a list of commit, device and versions')})
    if 'data' in record:  # older records lack it
        check(path, record, {'data': (is_data, 'a record of images and sha256 for train and test')})
    check(path, record['options'], {
        'dataset': (lambda name: isinstance(name, str), 'a name'),
        'seed': (lambda seed: is_number(seed, int), 'an integer'),
        'epoch': (lambda epoch: is_number(epoch, int) and epoch > 0, 'a positive integer')})
    if record['method'] == 'manifoldmixup':
        record['options'].setdefault('lam_per', 'batch')  # as before there was a choice
        check(path, record['options'], {
            'mixup_alpha': (is_number, 'a number'),
            'lam_per': (lambda per: per in ('batch', 'example'), 'batch or example'),
            'layer_mix': (is_layers, 'a list of integers')})
    return record


def read_log(path, epochs):
    """Read the `log` of a run of `epochs` epochs: its entries, and what keeps it from being used.

    An entry for each epoch and an empty string; or no entries and what is wrong, in words.
    """
    try:
        log = read_json(path) if path.exists() else []
        if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
            raise Invalid(f'{path} is not a list of entries, one an epoch: train the run again')
        for number, entry in enumerate(log, 1):
            check(f'{path}, entry {number}', entry, {
                'epoch': (lambda epoch: epoch == number <= epochs, f'each from 1 to {epochs} once'),
                'elapsed_time': (is_number, 'a number of seconds'),
                'validation/main/accuracy': (
                    lambda value: value is None or is_number(value) and 0 <= value <= 1,
                    'a number from 0 to 1')})
    except Invalid as error:
        return [], f'unusable: {error}'
    if len(log) < epochs:
        return [], f'unfinished: {len(log)} of {epochs} epochs; go on with --resume'
    if lost := [entry['epoch'] for entry in log if entry['validation/main/accuracy'] is None]:
        return [], f'diverged: its validation accuracy in epoch {lost[0]} is no finite number'
    return log, ''


def method_name(method, options):
    """'baseline', 'input mixup (alpha 1, layer 0)', 'Manifold Mixup (alpha 0.2, layers 0–5)'.

    One lam per example is named, one per batch is not: 'alpha 1, one lam per example, layer 0'.
    """
    if method == 'baseline':
        return method
    alpha = repr(float(options['mixup_alpha'])).removesuffix('.0')
    per = ', one lam per example' * (options['lam_per'] == 'example')
    layers = sorted(options['layer_mix'])
    in_a_row = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    listed = f'{layers[0]}–{layers[-1]}' if in_a_row else ', '.join(map(str, layers))
    kind = 'input mixup' if layers == [0] else 'Manifold Mixup'
    return f'{kind} (alpha {alpha}{per}, layer{"s" * (len(layers) > 1)} {listed})'


def seconds_per_epoch(elapsed):
    """The median time between log entries, in seconds; a clock set back by a resume is skipped."""
    steps = [after - before for before, after in zip(elapsed, elapsed[1:]) if after > before]
    return float(statistics.median(steps or elapsed[-1:]))


def read_starts(record):
    """The starts of a run, resumptions too: [{commit, device, version of each package}]."""
    return [{'commit': start['commit'], 'device': start['device'], **start['versions']}
            for start in record['starts']]


def read_run(directory):
    """Read a run directory into a :class:`Run`."""
    record = read_record(directory / 'run.json')
    method, options = record['method'], record['options']
    setting = {option: value for option, value in options.items() if option not in NOT_COUNTED}
    setting['dataset'] = unicodedata.normalize('NFC', os.path.normpath(options['dataset']))
    data = {option: {key: record['data'][split][key] for key in ('images', 'sha256')}
            for option, split in DATA.items()} if 'data' in record else {}
    return Run(str(directory), method, method_name(method, options), options['seed'], setting,
               data, (options['dataset'], options.get('data_archive')), read_starts(record),
               *read_log(directory / 'log', options['epoch']))


def find_directories(path):
    """The run directory `path`, or those below it, and {directory that cannot be read: why}."""
    try:
        if 'run.json' in os.listdir(path):
            return [Path(path)], {}
    except OSError as error:
        raise Invalid(f'{path} is not a directory that can be read ({error.strerror}): give run '
                      'directories or their parent') from None
    unread, found = {}, []
    seen = set(Path(path).resolve().parents)  # a link to where we were would go on for ever
    for folder, below, files in os.walk(path, followlinks=True, onerror=lambda error: unread.update(
            {error.filename: f'unusable: it cannot be read ({error.strerror})'})):
        if (real := Path(folder).resolve()) in seen:
            below.clear()
        elif 'run.json' in files:
            found.append(Path(folder))
        seen.add(real)
        below.sort()
    if not found and not unread:
        raise Invalid(f'{path} holds no run, no run.json in it or below it: give directories '
                      f'written by {" and ".join(SCRIPTS.values())}')
    return found, unread


def find_runs(paths):
    """Read the runs that `paths` name: run directories, or directories with runs below them.

    Returns [run] and, of what cannot be read, {directory: why}.
    """
    found, unread = {}, {}  # found by real path: a run named twice is one run
    for path in paths:
        directories, failed = find_directories(path)
        found |= {directory.resolve(): directory for directory in directories}
        unread |= failed
    runs = []
    for directory in found.values():
        try:
            runs.append(read_run(directory))
        except Invalid as error:
            unread[str(directory)] = f'unusable: {error}'
    match_data(runs)
    return runs, unread


def match_data(runs):
    """Add what is known of the data to the settings of runs, and give equal data one name.

    A run that does not record its data is taken to have those of the runs that do and name the
    same dataset, if these agree; elsewhere the name has to do.
    """
    def named(run):  # a folder's images are resized as they are read
        return run.setting['dataset'], str(run.setting.get('size'))

    def agreed(run):
        found = [other.data for other in runs if other.data and named(other) == named(run)]
        return found[0] if found and all(data == found[0] for data in found) else {}

    names = {}
    for run, data in [(run, run.data or agreed(run)) for run in runs]:
        if data:
            name = names.setdefault(str(data), run.setting['dataset'])
            run.setting.update(data, dataset=name)


def in_words(setting, option):
    """A setting's value of an option; of data, the number of images."""
    value = setting.get(option, 'not recorded')
    return f'{value["images"]} images' if option in DATA and option in setting else str(value)


def differences(run, other):
    """What counts and differs between two runs, the seed too: {option: how, in words}."""
    here, there = ({**each.setting, 'seed': each.seed} for each in (run, other))
    found = {}
    for option in sorted(here | there):
        first, second = (in_words(each, option) for each in (here, there))
        if here.get(option) != there.get(option) or first != second:
            found[option] = (f'{first} here, {second} there' if first != second
                             else f'both {first}, other pixels or labels')
    return found


def leave_out(runs, unread):
    """The runs that can be compared, and {directory: why} of the others.

    Raises Invalid where none can, and where a run has no partner though every run could be read.
    """
    kept = []
    left_out = unread | {run.directory: run.problem for run in runs if run.problem}
    for run in runs:
        if run.problem:
            continue
        others = [other for other in runs if other.method != run.method]
        nearest = min(others, default=None, key=lambda other: (
            len(differences(run, other)), other.problem))
        found = differences(run, nearest) if others else None
        if found == {}:
            if nearest.problem:
                left_out[run.directory] = f'its partner {nearest.directory} is left out'
            else:
                kept.append(run)
        elif unread:
            left_out[run.directory] = 'without a partner among the runs that can be read'
        elif not others:
            raise Invalid(f'only {run.method} runs were given ({run.directory} …): give runs of '
                          f'both {" and ".join(SCRIPTS.values())}')
        else:
            listed = ', '.join(f'{option} ({how})' for option, how in found.items())
            raise Invalid(f'{run.directory} ({run.name}, seed {run.seed}) has no {nearest.method} '
                          f'partner: the nearest, {nearest.directory}, differs in {listed}; train '
                          'a partner with the same options and data, or leave this run out')
    if not kept:
        raise Invalid('nothing is left to compare; left out: ' + '; '.join(
            f'{directory}, {why}' for directory, why in left_out.items()))
    return kept, left_out


def group_runs(runs):
    """Sort runs into groups, each {name: [a run for each seed]} with the baseline first.

    Raises Invalid where a setting has the same seed twice.
    """
    groups = {}
    for run in sorted(runs, key=lambda run: (run.method, run.name, run.seed)):
        group = groups.setdefault(str(sorted(run.setting.items())), {})
        rows = group.setdefault(run.name, [])
        if rows and rows[-1].seed == run.seed:
            raise Invalid(f'{rows[-1].directory} and {run.directory} have the same setting, '
                          f'{run.name}, and the same seed, {run.seed}: leave one of them out')
        rows.append(run)
    return list(groups.values())


def spread(values):
    """Mean and sample standard deviation (None for a single value), in the values' unit."""
    return {'mean': float(np.mean(values)),
            'std': float(np.std(values, ddof=1)) if len(values) > 1 else None}


def paired_difference(baseline, mixup):
    """Mixup − baseline: mean, std and Student's 95 % interval over pairs, in the values' unit.

    A single pair has no interval (None): it tells nothing about the next pair.
    """
    result = {**spread(np.subtract(mixup, baseline)), 'interval_95': None}
    if (pairs := len(mixup)) > 1:
        reach = float(scipy.stats.t.ppf(0.975, pairs - 1)) * result['std'] / pairs ** 0.5
        result['interval_95'] = [result['mean'] - reach, result['mean'] + reach]
    return result


def verdict(name, difference, pairs):
    """One plain sentence about a paired difference in percentage points."""
    mean, interval = difference['mean'], difference['interval_95']
    if interval is None:
        return (f'{name} against baseline: {mean:+.2f} points in one pair of runs: no interval, '
                'so no verdict beyond these two runs.')
    low, high = interval
    if low <= 0 <= high:
        return (f'{name} against baseline: {mean:+.2f} points, but no difference is shown: the '
                f'95 % interval, {low:+.2f} to {high:+.2f}, includes 0 ({pairs} seeds).')
    return (f'{name} is {"better" if mean > 0 else "worse"} than baseline by {abs(mean):.2f} '
            f'points (95 % interval {low:+.2f} to {high:+.2f}, {pairs} seeds).')


def cautions(runs):
    """Sentences on what the options do not show: runs that diverged, other code or machines."""
    found = [f'{run.directory} diverged: its last training loss is no finite number.'
             for run in runs if run.diverged]
    unrecorded = [run.directory for run in runs if not run.data]
    if any(run.data or run.given != runs[0].given for run in runs) and unrecorded:
        found.append('matched by the name of the dataset, as their data are not recorded: '
                     f'{", ".join(unrecorded)}.')
    starts = [start for run in runs for start in run.starts]
    for key in sorted(set().union(*starts)):
        values = sorted({str(start.get(key)) for start in starts})
        if len(values) > 1:
            found.append(f'the runs differ in {key}: {"; ".join(values)}.')
    return found


def summarize(group):
    """A group's results, ready for JSON: accuracy and error in %, difference in points, time."""
    control = {run.seed: float(run.accuracy[-1]) for run in group['baseline']}
    rows = []
    for name, runs in group.items():
        last = [float(run.accuracy[-1]) for run in runs]
        best = [float(run.accuracy.max()) for run in runs]
        values = {'accuracy_last_epoch': last,
                  'error_last_epoch': [100 - value for value in last],
                  'accuracy_best_epoch_chosen_on_test_data': best,
                  'error_best_epoch_chosen_on_test_data': [100 - value for value in best],
                  'seconds_per_epoch': [run.seconds for run in runs]}
        row = {'name': name, **{key: spread(value) for key, value in values.items()}}
        row['runs'] = [{'directory': run.directory, 'seed': run.seed,
                        **{key: value[index] for key, value in values.items()},
                        'best_epoch': int(run.accuracy.argmax()) + 1,
                        'diverged': run.diverged, 'starts': run.starts}
                       for index, run in enumerate(runs)]
        if name != 'baseline':
            partners = [control[run.seed] for run in runs]
            row['difference'] = paired_difference(partners, last)
            row['difference']['per_seed'] = {run.seed: value - partner for run, value, partner
                                             in zip(runs, last, partners)}
            row['verdict'] = verdict(name, row['difference'], len(runs))
        rows.append(row)
    return {'setting': group['baseline'][0].setting, 'rows': rows,
            'cautions': cautions(sum(group.values(), []))}


def title(setting, settings, longest=None):
    """The heading of a group, and its differences from the others: 'dataset cifar10, arch …'.

    Of values that have more than `longest` characters the end is shown.
    """
    parts = []
    for option in {option: None for each in settings for option in each}:  # all of them, in order
        # Other names tell other data apart.
        values = {str(each.get(option, 'not recorded')) for each in settings
                  if option not in DATA or each['dataset'] == setting['dataset']}
        if option in ('dataset', 'arch', 'epoch') or len(values) > 1:
            value = in_words(setting, option)
            if longest and len(value) > longest:
                value = '…' + value[1 - longest:]
            if option in DATA and option in setting:
                value += f' ({setting[option]["sha256"][:8]})'
            parts.append(f'{option} {value}')
    return plain(', '.join(parts))


def plus_minus(value):
    """'78.29 ± 0.21', or '78.29' for a single seed."""
    return f'{value["mean"]:.2f}' + ('' if value['std'] is None else f' ± {value["std"]:.2f}')


def table(rows):
    """The rows as a markdown table with aligned columns."""
    cells = [('method', 'seeds', 'accuracy %', 'error %', 'difference [95 % interval]',
              'best* accuracy %', 'best* error %', 's/epoch')]
    for row in rows:
        shown = '–'
        if difference := row.get('difference'):
            interval = difference['interval_95']
            shown = f'{difference["mean"]:+.2f} ' + (
                '[one pair: none]' if interval is None else '[{:+.2f}, {:+.2f}]'.format(*interval))
        cells.append((row['name'], str(len(row['runs'])), plus_minus(row['accuracy_last_epoch']),
                      plus_minus(row['error_last_epoch']), shown,
                      plus_minus(row['accuracy_best_epoch_chosen_on_test_data']),
                      plus_minus(row['error_best_epoch_chosen_on_test_data']),
                      f'{row["seconds_per_epoch"]["mean"]:.1f}'))
    widths = [max(map(len, column)) for column in zip(*cells)]
    cells.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(map(str.ljust, line, widths)) + ' |' for line in cells)


def report(summaries, left_out):
    """The whole comparison as markdown."""
    settings = [summary['setting'] for summary in summaries]
    parts = ['# Comparison']
    for summary in summaries:
        parts += [f'## {title(summary["setting"], settings)}', table(summary['rows'])]
        parts += [row['verdict'] for row in summary['rows'] if 'verdict' in row]
        parts += [plain(f'Caution: {sentence}') for sentence in summary['cautions']]
    parts += [plain(f'Left out: {directory}, {why}') for directory, why in left_out.items()]
    return '\n\n'.join(parts + [NOTES]) + '\n'


def letters(text):
    """The characters of a text, each with the accents on it, which have to be of one font."""
    marks = ''.join(letter for letter in set(text) if unicodedata.category(letter)[0] == 'M')
    return re.findall(f'.[{marks}\u200d]*', text)


def can_show(family, wanted):
    """Those of the wanted letters that an installed family of fonts has; None: the default one."""
    try:
        path = font_manager.findfont(
            font_manager.FontProperties(family=[family] if family else None),
            fallback_to_default=False)
        has = set(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a damaged file, or one that is there no more
        return set()
    return {letter for letter in wanted if has.issuperset(letter)}


def find_families(text):
    """The families of fonts that show a text between them, and the letters that none has.

    The default comes first; only where it lacks a letter are others opened.
    """
    # That a family lacks a weight is no news.
    logging.getLogger('matplotlib.font_manager').setLevel(logging.ERROR)
    families, missing = list(rcParams['font.family']), set(letters(text))
    missing -= can_show(None, missing)
    if missing:
        names = {font.name for font in font_manager.fontManager.ttflist}
        shown = {name: can_show(name, missing) for name in sorted(names)
                 if 'LastResort' not in name.replace(' ', '')}  # which shows boxes
        for name in sorted(shown, key=lambda name: len(shown[name]), reverse=True):
            if missing & shown[name]:
                families.append(name)
                missing -= shown[name]
    return families, missing


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
    families, missing = find_families(' '.join(titles))
    for axis, group, summary, heading in zip(axes, groups, summaries, titles):
        low, high = 100, 0
        for number, (row, runs) in enumerate(zip(summary['rows'], group.values())):
            curves = np.array([run.accuracy for run in runs])
            epochs, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(epochs, mean, color=colour, linestyle='-' if number else '--',
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
                    '; band: min to max over seeds' if len(group['baseline']) > 1 else ''),
                    loc='upper center', bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def picture_of(figure):
    """A figure as the content of a PNG file, which has at most 65,535 lines."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # an accent that its letter's font lacks
        figure.savefig(file, format='png', dpi=min(120, 65535 / figure.get_figheight()))
    return file.getvalue()


def write(out, contents):
    """Write {name: bytes} into `out`, each complete before it takes the place of an older one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out) as folder:
            for name, content in contents.items():
                Path(folder, name).write_bytes(content)
            for name in contents:
                Path(folder, name).replace(out / name)
    except OSError as error:
        raise Invalid(f'{out} cannot be written ({error.strerror}): give another --out') from None


def show(text):
    """Print a text whatever the terminal can show; end as the shell would where a pipe closes."""
    if sys.stdout is None:  # closed by `>&-`
        return
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
            sys.stdout.reconfigure(errors='replace')  # a terminal that lacks '±' shows '?'
        print(text, flush=True)
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        raise Invalid(f'standard output cannot be written ({error.strerror}): the results are in '
                      'the files comparison.*, see --out') from None


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a misused command line like every other error, in a line."""

    def error(self, message):
        raise Invalid(f'{message}; see --help')


def main(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', metavar='RUN', nargs='+',
                        help='run directories, or one directory that holds them')
    parser.add_argument('--out', metavar='DIR', type=Path,
                        help='where comparison.md, .json and .png go (default: the directory that '
                        'holds the runs where it is the one argument, else the current one)')
    try:
        args = parser.parse_args(arguments)
        runs, left_out = leave_out(*find_runs(args.runs))
        groups = group_runs(runs)
        summaries = [summarize(group) for group in groups]
        text, picture = report(summaries, left_out), picture_of(draw(groups, summaries))
        parent = len(args.runs) == 1 and Path(args.runs[0])
        out = args.out or parent or Path()
        results = {'groups': summaries, 'left_out': [
            {'directory': directory, 'reason': why} for directory, why in left_out.items()]}
        write(out, {'comparison.md': text.encode(), 'comparison.png': picture,
                    'comparison.json': json.dumps(results, indent=1, allow_nan=False).encode()})
        show(f'{text}\nWritten to {plain(out)}: comparison.md, comparison.json, comparison.png')
    except (Invalid, MemoryError) as error:
        print('compare.py: error:', plain(str(error) or 'memory ran out: give fewer runs at once'),
              file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == '__main__':
    main()
