"""Runs, found below directories and read from their records."""
import dataclasses
import os
import statistics
import unicodedata
from pathlib import Path

import numpy as np

from comparison.errors import Invalid
from comparison.records import DATA, SCRIPTS, is_number, read_log, read_record

METHODS = 'baseline', 'input mixup', 'Manifold Mixup'  # in the order of the rows
# What may differ within a group: the mixup, the seed, what computed a run and where files lie.
NOT_COUNTED = {
    'mixup_alpha', 'lam_per', 'layer_mix', 'seed', 'out', 'device', 'engine', 'graph', 'autotune',
    'snapshot_every', 'data_archive'}


@dataclasses.dataclass
class Run:
    """A run, as read from its directory."""
    directory: str
    method: str    # one of METHODS
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


def method_of(record):
    """One of METHODS: input mixup is Manifold Mixup at layer 0 alone."""
    if record['method'] == 'baseline':
        return 'baseline'
    return 'input mixup' if set(record['options']['layer_mix']) == {0} else 'Manifold Mixup'


def row_name(method, options):
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
    return f'{method} (alpha {alpha}{per}, layer{"s" * (len(layers) > 1)} {listed})'


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
    method, options = method_of(record), record['options']
    setting = {option: value for option, value in options.items() if option not in NOT_COUNTED}
    setting['dataset'] = unicodedata.normalize('NFC', os.path.normpath(options['dataset']))
    data = {option: {key: record['data'][split][key] for key in ('images', 'sha256')}
            for option, split in DATA.items()} if 'data' in record else {}
    return Run(str(directory), method, row_name(method, options), options['seed'], setting,
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
