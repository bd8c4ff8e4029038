"""The file of the benchmark of training steps: its rows, by what they were made, and as tables."""
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform

from benchmarks import machine
from benchmarks.contestants import CONTESTANTS
from benchmarks.row import is_for_gpu
from benchmarks.workers import ROOT, Failure, Unsupported
from experiment import run_directory
from experiment.atomic_file import write_json
from experiment.errors import Invalid

MEASURED = ('mixup.py', 'model', 'engine', 'benchmarks/contestants.py', 'benchmarks/devices.py',
            'benchmarks/networks_torch.py')
TARGET = 'resnet50-imagenet', 128, 4  # times as fast as eager PyTorch, on a GPU


def made_by(args, log, bench):
    """What the numbers depend on, as a dictionary; ``bench`` is a worker of machine.py.

    Raises:
        Invalid: If the device cannot be used.
    """
    facts = {'python': platform.python_version(), **run_directory.versions()}
    for package in ('torch', 'triton'):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    # A process of its own: CuPy and PyTorch may bring different releases of one library.
    if 'torch' in facts:
        bench.send('torch_libraries')  # takes seconds to import
    with machine.worker(args.device, log) as worker:
        try:
            facts.update(worker.ask('describe', args.device, limit=args.limit))
        except Unsupported as error:
            raise Invalid(error) from None
        except Failure as failure:
            raise Invalid(f'--device: {args.device} cannot be described: {failure}') from None
    if 'torch' in facts:
        with contextlib.suppress(Failure):
            facts.update(bench.receive(args.limit))
    facts.update(commit=run_directory.commit(), sources=digest())
    return facts


def digest():
    """A hash of the code that is measured, since there may be no git, or uncommitted changes."""
    sha = hashlib.sha256()
    for part in MEASURED:
        path = os.path.join(ROOT, part)
        found = [path] if part.endswith('.py') else sorted(
            os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
            if name.endswith(('.py', '.cu', '.cuh')))
        for source in found:
            with open(source, 'rb') as file:
                sha.update(os.path.relpath(source, ROOT).encode() + file.read())
    return sha.hexdigest()[:16]


class Report:
    """The rows, and all else that a call of the benchmark finds.

    Args:
        path (str): The file that holds it after each row, or None.
        made_by (dict): What the numbers depend on.
        fresh (bool): Whether to forget what is in the file.

    Attributes:
        content (dict): What the file holds: ``'made_by'``, ``'rows'`` and more.

    Raises:
        Invalid: If the file was made by something else, or is no report.
    """

    def __init__(self, path, made_by, fresh=False):
        self.path = path
        self.content = {'made_by': made_by, 'rows': []}
        if path and os.path.exists(path) and not fresh:
            self.content = read(path, made_by)

    @property
    def rows(self):
        return self.content['rows']

    def find(self, wanted):
        """The row of a case, batch and precision, or None."""
        return next((row for row in self.rows if key(row) == wanted), None)

    def add(self, row):
        """Enter a row in the place of the one before."""
        self.write(rows=[other for other in self.rows if key(other) != key(row)] + [row])

    def write(self, **content):
        self.content.update(content)
        if self.path:
            write_json(self.path, self.content)


def read(path, made_by):
    try:
        with open(path) as file:
            content = json.load(file)
        before, _ = content['made_by'], [key(row) for row in content['rows']]
    except (OSError, ValueError, LookupError, TypeError):
        raise Invalid(f'--json: {path} is not a report of this benchmark; give another --json, or '
                      '--fresh') from None
    differing = [f'{name} {before.get(name)}, now {made_by.get(name)}'
                 for name in sorted(before.keys() | made_by.keys())
                 if before.get(name) != made_by.get(name)]
    if differing:
        raise Invalid(f'--json: the rows in {path} were made by {"; ".join(differing)}; give '
                      'another --json, or --fresh')
    return content


def key(row):
    return row['case'], row['batch'], row['precision']


def name(wanted):
    return '{} {} {}'.format(*wanted)


def print_table(row):
    floor = row['floor'] or {}
    print('\n{case}, batch {batch}, {precision}: {} parameters'.format(
        f'{row["parameters"]:,}' if row['parameters'] else 'unknown', **row), end='')
    if floor.get('ms'):
        print('; floor {ms:.2f} ms ({:,.0f} GFLOP, {:.2f} GB)'.format(
            floor['operations'] / 1e9, floor['bytes'] / 1e9, **floor), end='')
    best = row['results'][row['pytorch_best']]['ms'] if row['pytorch_best'] else None
    columns = [
        ('ms/step', 9, lambda r: f'{r["ms"]:.2f}'),
        ('25-75 %', 18, lambda r: '{low:.2f}-{high:.2f}'.format(**r)),
        ('images/s', 11, lambda r: f'{r["images_per_second"]:,}'),
        *[('host ms', 9, lambda r: f'{r["host_ms"]:.2f}' if 'host_ms' in r else '-'),
          ('kernels', 9, lambda r: r.get('kernels') or '-'),
          ('launches', 10, lambda r: r.get('launches') or '-'),
          ('of floor', 10, lambda r: f'{floor["ms"] / r["ms"]:.0%}' if floor.get('ms') else '-')
          ] * is_for_gpu(row['precision']),
        ('peak MiB', 10, lambda r: f'{r["peak_mib"]:,}'),
        ('x PyTorch', 11, lambda r: f'{best / r["ms"]:.2f}' if best else '-')]
    print(f'\n{"":<26}' + ''.join(f'{title:>{width}}' for title, width, _ in columns))
    for contestant in sorted(row['results'], key=CONTESTANTS.index):
        result = row['results'][contestant]
        if 'ms' in result:
            print(f'{contestant:<26}' + ''.join(
                f'{text(result):>{width}}' for _, width, text in columns))
        else:
            print(f'{contestant:<26}  ' + result.get(
                'failed', f'unsupported: {result.get("unsupported")}'))


def verdict(rows):
    """One line: the two targets, against what was measured."""
    ratios = {key(row): row['pytorch_best_to_engine'] for row in rows
              if row['pytorch_best_to_engine']}
    if not ratios:
        return 'Verdict: none, no row has both the engine and PyTorch'
    worst = min(ratios, key=ratios.get)
    reached = sum(ratio >= 1 for ratio in ratios.values())
    line = ('Verdict: the engine at its best is at least as fast as the best of PyTorch in '
            f'{reached} of {len(ratios)} rows (least: {ratios[worst]:.2f} times, {name(worst)})')
    case, batch, target = TARGET
    for row in rows:
        ratio = row['pytorch_eager_to_engine']
        if key(row)[:2] == (case, batch) and is_for_gpu(row['precision']) and ratio:
            line += (f'; {ratio:.2f} times as fast as eager PyTorch for {name(key(row))}, '
                     f'{"reached" if ratio >= target else "not reached"}: {target}')
    return line
