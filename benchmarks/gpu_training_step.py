"""Milliseconds per training step on a GPU: this engine, stock Chainer, and PyTorch at its best.

    python -m benchmarks.gpu_training_step --device 0
    python -m benchmarks.gpu_training_step --device 0 --case resnet50-imagenet --batch 128 \\
        --precision tf32 --contestant "engine graph" --contestant pytorch --budget 500
    python -m benchmarks.gpu_training_step --device cpu --batch 2 --case preactresnet18 --rounds 2
                                                            tries everything without a GPU

A row is a network, a batch and a precision.  Its contestants (contestants.py says what each does)
live in a process of their own and take turns; in a turn some steps are done, of which the first
are not counted, and the others are timed between two events on the GPU.  Those that do not fit in
its memory together go into one wave after another.  ``host ms`` is how long the host needs to issue
a step, ``of floor`` how near it comes to what floor.py computes from the rates of the device.

FILE gets each row as it is after each round of turns; the next call leaves out the rows that are
there, if they were made by the same code with the same versions on the same device.  What a
contestant that failed wrote to stderr is in FILE.log.

With --budget, seconds that the rows share, the call ends in time and leaves out the contestants
that are not ready by then.  The exit status is then 3.
"""
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import time

from benchmarks import epoch_time
from benchmarks.contestants import CASES, CONTESTANTS, EAGER, ENGINE, PYTORCH
from benchmarks.training_step import check_writable
from benchmarks.workers import ROOT, UNFINISHED, Failure, TimeOut, Unsupported, Worker
from experiment import run_directory
from experiment.errors import Invalid, one_line_errors
from experiment.options import COUNT, RATE, DocstringHelp, Parser

BATCHES = 128, 256, 1024
PRECISIONS = 'tf32', 'fp16'
TURN, FEWEST, MOST = .2, 3, 50  # seconds and steps
PROFILING = 15  # seconds, in which kernels are counted
PATIENCE = 40  # seconds that a contestant may take in any case while others wait
ROW = 60  # seconds, of which no row gets less while others wait
TARGET = 'resnet50-imagenet', 128, 4  # times as fast as eager PyTorch
MEASURED = ('mixup.py', 'model', 'engine', 'benchmarks/contestants.py', 'benchmarks/devices.py',
            'benchmarks/networks_chainer.py', 'benchmarks/networks_torch.py')
TABLE = ('{:<26}{:>9}{:>16}{:>11}{:>9}{:>9}{:>10}{:>10}{:>10}{:>11}')
HEAD = TABLE.format('', 'ms/step', '25-75 %', 'images/s', 'host ms', 'kernels', 'launches',
                    'peak MiB', 'of floor', 'x PyTorch')


def parse_args(argv=None):
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('--device', required=True, metavar='ID|cpu', help='the number of a GPU')
    for name, values in (('case', CASES), ('precision', PRECISIONS), ('contestant', CONTESTANTS)):
        parser.add_argument(f'--{name}', action='append', choices=list(values),
                            help='may be given several times (default: all)')
    parser.add_argument('--batch', action='append', type=COUNT, metavar='N',
                        help='may be given several times (default: {}, {}, {})'.format(*BATCHES))
    parser.add_argument('--rounds', type=COUNT, default=10, metavar='N',
                        help='turns of each contestant (default: %(default)s)')
    parser.add_argument('--steps', type=COUNT, metavar='N',
                        help=f'in a turn (default: {TURN} s, {FEWEST} to {MOST})')
    parser.add_argument('--limit', type=RATE, default=240, metavar='SECONDS',
                        help='for a contestant to compile and warm up (default: %(default)s)')
    parser.add_argument('--budget', type=RATE, metavar='SECONDS',
                        help='for all rows: what does not fit is left out')
    parser.add_argument('--epoch-time', nargs='?', const='auto', metavar='DATASET',
                        help='also run the training script for some epochs and time the last one '
                             '(default: CIFAR-10 if Chainer has it, else digits)')
    parser.add_argument('--json', type=os.path.abspath, metavar='FILE',
                        default='runs/gpu_training_step.json', help='(default: %(default)s)')
    parser.add_argument('--fresh', action='store_true', help='forget the rows in FILE')
    args = parser.parse_args(argv)
    if not (args.device == 'cpu' or args.device.isdecimal()):
        raise Invalid(f'--device: given {args.device!r}, valid: the number of a GPU, or cpu')
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(args.json), exist_ok=True)
    check_writable(args.json)
    if args.budget:
        args.limit = min(args.limit, args.budget)
    return args


def wanted_rows(args):
    """``(case, batch, precision)``, what matters most first.

    The first of each list counts most; ResNet-50 is one network with two stems, and float16 comes
    with the second batch.
    """
    cases = [case for case in CASES if case in (args.case or CASES)]
    precisions = [p for p in PRECISIONS if p in (args.precision or PRECISIONS)]
    batches = sorted(set(args.batch or BATCHES))

    def rank(row):
        case, batch, precision = row
        return ((not case.startswith('resnet50')) + batches.index(batch)
                + PRECISIONS.index(precision))
    return sorted(itertools.product(cases, batches, precisions), key=lambda row: (
        rank(row), PRECISIONS.index(row[2]), cases.index(row[0])))


# The machine and the file

def inspect(args, bench):
    """What makes the rows; ``bench`` is the worker that measures the rates of the device too."""
    facts = {'python': platform.python_version(), **run_directory.versions()}
    for package in ('torch', 'triton'):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    # A process of its own: CuPy and PyTorch may bring different releases of one library.
    if 'torch' in facts:
        bench.send('torch')  # takes seconds to import
    with machine(args) as worker:
        try:
            facts.update(worker.ask('describe', limit=args.limit))
        except Unsupported as error:
            raise Invalid(error) from None
        except Failure as failure:
            raise Invalid(f'--device: {args.device} cannot be described: {failure}') from None
    if 'torch' in facts:
        with contextlib.suppress(Failure):
            facts.update(bench.receive(args.limit))
    facts.update(commit=run_directory.commit(), sources=digest())
    return facts


def measure_rates(args, bench):
    """None where they cannot be measured, with a line that says why."""
    try:
        rates = bench.ask('rates', limit=args.limit)
    except Failure as failure:
        print(f'rates: {failure}', flush=True)
        return None
    print('matrix products {tf32:,.0f} TFLOP/s in TF32, {fp16:,.0f} in float16; '
          'copy {copy_gb_per_s:,.0f} GB/s (by {by})'.format(**rates), flush=True)
    return rates


def find_floor(args, bench, wanted, rates):
    """None where PyTorch, on whose network it is counted, is missing."""
    case, batch, precision = wanted
    try:
        return bench.ask('floor', *CASES[case], batch, precision, rates, limit=args.limit)
    except (Failure, Unsupported):
        return None


def machine(args):
    return Worker(f'from benchmarks.contestants import describe; describe({args.device!r})',
                  {'CUPY_TF32': '1'}, f'{args.json}.log')


def digest():
    """Of the code that is measured: there may be no git, or changes that are not committed."""
    sha = hashlib.sha256()
    for part in MEASURED:
        path = os.path.join(ROOT, part)
        found = [path] if part.endswith('.py') else sorted(
            os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
            if name.endswith(('.py', '.cu')))
        for source in found:
            with open(source, 'rb') as file:
                sha.update(os.path.relpath(source, ROOT).encode() + file.read())
    return sha.hexdigest()[:16]


def load(path, made_by, fresh=False):
    """The report in a file, to which rows can be added, or a new one.

    Raises:
        Invalid: If it was made by something else, or is no report.
    """
    if fresh or not os.path.exists(path):
        return {'made_by': made_by, 'rows': []}
    try:
        with open(path) as file:
            report = json.load(file)
        before, _ = report['made_by'], [key(row) for row in report['rows']]
    except (OSError, ValueError, LookupError, TypeError):
        raise Invalid(f'--json: {path} is not a report of this benchmark; give another --json, or '
                      '--fresh') from None
    differing = [f'{name} {before.get(name)}, now {made_by.get(name)}'
                 for name in sorted(before.keys() | made_by.keys())
                 if before.get(name) != made_by.get(name)]
    if differing:
        raise Invalid(f'--json: the rows in {path} were made by {"; ".join(differing)}; give '
                      'another --json, or --fresh')
    return report


def key(row):
    return row['case'], row['batch'], row['precision']


def find(report, wanted):
    return next((row for row in report['rows'] if key(row) == wanted), None)


def add(report, row, path):
    report['rows'] = [other for other in report['rows'] if key(other) != key(row)] + [row]
    run_directory.write_json(path, report)


# One row

class Row:
    """Measures one row.

    Args:
        start (callable): ``start(contestant)`` is a Worker of it.
        end (float): When all is to be over, by ``time.monotonic()``; contestants that are not
            ready in time are left out.
        keep (callable): Called after each round of turns, when ``results`` has become better.
    """

    def __init__(self, start, contestants, args, end, keep):
        self.start, self.args, self.end, self.keep = start, args, end, keep
        began = time.monotonic()
        turns = 1.5 * TURN * args.rounds * len(contestants) + PROFILING
        preparing = max(end - began - turns, (end - began) / 2)
        self.deadline = began + preparing
        # One that hangs leaves time to the others.
        self.limit = min(args.limit, max(PATIENCE, preparing / 2))
        self.workers = {contestant: start(contestant) for contestant in contestants}
        self.answers = {}  # what a contestant said of itself when it was prepared
        self.results = {}

    def measure(self):
        try:
            wave, pending = 0, list(self.workers)
            while pending:
                ready = self.prepare(pending)
                wave += 1
                self.take_turns(ready, wave)
        finally:
            for worker in self.workers.values():
                worker.close()

    @property
    def parameters(self):
        counts = {answer['parameters'] for answer in self.answers.values()}
        assert len(counts) <= 1, f'the contestants are not one network: {self.answers}'
        return counts.pop() if counts else None

    def prepare(self, pending):
        """Contestants that are ready, as many as memory holds; they are taken out of ``pending``.

        cuDNN and PyTorch choose slower kernels where memory is short, so much of it stays free.
        """
        ready, later = [], []
        while pending:
            answers = [self.answers[contestant] for contestant in ready]
            if any(a['free'] is not None for a in answers) and \
                    min(a['free'] for a in answers) < 2 * max(a['peak'] for a in answers) + 2 ** 31:
                break
            contestant = pending.pop(0)
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.say(contestant, 'left out, the time is up')
                continue
            try:
                began = time.monotonic()
                self.answers[contestant] = self.workers[contestant].ask(
                    'prepare', limit=min(left, self.limit))
                self.answers[contestant]['seconds'] = time.monotonic() - began
                ready.append(contestant)
                self.say(contestant, f'ready after {time.monotonic() - began:.0f} s')
            except TimeOut as failure:
                if left < self.limit:
                    self.say(contestant, 'left out, the time is up')
                else:
                    self.fail(contestant, failure)
            except Failure as failure:
                if ready and is_short_of_memory(failure):
                    self.say(contestant, 'out of memory beside the others, again without them')
                    self.workers[contestant] = self.start(contestant)
                    later.append(contestant)
                else:
                    self.fail(contestant, failure)
            except Unsupported as reason:
                self.results[contestant] = {'unsupported': str(reason)}
        pending[:0] = later
        return ready

    def take_turns(self, ready, wave):
        turns = {contestant: [] for contestant in ready}
        steps = {contestant: self.args.steps or max(FEWEST, min(MOST, round(
            1e3 * TURN / self.answers[contestant]['ms']))) for contestant in ready}
        for number in range(self.args.rounds):
            if not turns:
                break
            if number and time.monotonic() > self.end - PROFILING:
                print(f'    {number} rounds of {self.args.rounds}, the time is up', flush=True)
                break
            for contestant in list(turns):
                try:
                    left = max(PROFILING, self.end - time.monotonic())
                    turns[contestant].append(self.workers[contestant].ask(
                        'turn', steps[contestant], limit=min(left, self.args.limit)))
                except Failure as failure:
                    self.fail(contestant, failure)
                    del turns[contestant]
            for contestant, taken in turns.items():
                self.results[contestant] = {
                    **summary(taken), 'steps': steps[contestant], 'rounds': len(taken),
                    'wave': wave, 'seconds': round(self.answers[contestant]['seconds'] + sum(
                        turn['wall_ms'] * steps[contestant] / 1e3 for turn in taken), 1)}
            self.keep()
        for contestant in turns:  # all at once: nothing is timed now
            self.workers[contestant].send('profile')
        for contestant in turns:
            left = max(PROFILING, self.end - time.monotonic())
            try:
                counted = self.workers[contestant].receive(min(left, self.args.limit))
            except (Failure, Unsupported) as reason:
                counted = {'kernels': None, 'launches': None, 'not_counted': str(reason)}
            self.results[contestant].update(counted)
            self.workers[contestant].close()

    def fail(self, contestant, failure):
        self.results.setdefault(contestant, {})['failed'] = str(failure)
        self.say(contestant, failure)

    def say(self, contestant, what):
        print(f'    {contestant}: {what}', flush=True)


def is_short_of_memory(failure):
    words = str(failure).lower()
    return any(sign in words for sign in ('out of memory', 'outofmemory', 'alloc_failed'))


def summary(turns):
    """Of the turns of one contestant."""
    taken = [turn['ms'] for turn in turns]
    low, median, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else taken * 3
    return {'ms': round(median, 4), 'low': round(low, 4), 'high': round(high, 4),
            **{name: round(statistics.median(turn[name] for turn in turns), 4)
               for name in ('host_ms', 'wall_ms')},
            'peak_mib': round(turns[-1]['peak'] / 2 ** 20), 'loss': turns[-1]['loss']}


def measure(wanted, contestants, args, rates, floor, end, keep):
    """Measure a row, and ``keep`` it as it is written into the file, each time it is better."""
    case, batch, precision = wanted
    began = time.monotonic()

    def start(contestant):
        return Worker('from benchmarks.contestants import work; '
                      f'work{(contestant, case, batch, precision, args.device)!r}',
                      {'CUPY_TF32': '1'}, f'{args.json}.log')

    def described():
        return compare({
            'case': case, 'batch': batch, 'precision': precision,
            'parameters': row.parameters, 'rounds': args.rounds,
            'seconds': round(time.monotonic() - began, 1), 'results': row.results,
            'rates': rates, 'floor': floor})
    row = Row(start, contestants, args, end, lambda: keep(described()))
    row.measure()
    found = described()
    keep(found)
    return found


def compare(row):
    """The row, with the best modes of PyTorch and of the engine, and how many times as fast as
    PyTorch's, and as its better eager one, the engine is."""
    ms = {contestant: result['ms'] for contestant, result in row['results'].items()
          if 'ms' in result}
    for result in row['results'].values():
        if 'ms' in result:
            result['images_per_second'] = round(1e3 * row['batch'] / result['ms'])
    best, eager, ours = (min((c for c in names if c in ms), key=ms.get, default=None)
                         for names in (PYTORCH, EAGER, ENGINE))
    row.update(pytorch_best=best, engine_best=ours,
               pytorch_best_to_engine=best and ours and round(ms[best] / ms[ours], 3),
               pytorch_eager_to_engine=eager and ours and round(ms[eager] / ms[ours], 3))
    return row


# What is printed

def print_table(row):
    print('\n{case}, batch {batch}, {precision}: {} parameters'.format(
        f'{row["parameters"]:,}' if row['parameters'] else 'unknown', **row), end='')
    floor = row.get('floor') or {}
    if floor.get('ms'):
        print('; floor {ms:.2f} ms ({:,.0f} GFLOP, {:.2f} GB)'.format(
            floor['operations'] / 1e9, floor['bytes'] / 1e9, **floor), end='')
    print(f'\n{HEAD}')
    best = row['results'][row['pytorch_best']]['ms'] if row['pytorch_best'] else None
    for contestant in sorted(row['results'], key=CONTESTANTS.index):
        result = row['results'][contestant]
        if 'ms' not in result:
            print(f'{contestant:<26}  ' + result.get(
                'failed', f'not supported: {result.get("unsupported")}'))
            continue
        print(TABLE.format(
            contestant, f'{result["ms"]:.2f}', '{low:.2f}-{high:.2f}'.format(**result),
            f'{result["images_per_second"]:,}', f'{result["host_ms"]:.2f}',
            result.get('kernels') or '-', result.get('launches') or '-',
            f'{result["peak_mib"]:,}',
            f'{floor["ms"] / result["ms"]:.0%}' if floor.get('ms') else '-',
            f'{best / result["ms"]:.2f}' if best else '-'))


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
        if key(row)[:2] == (case, batch) and row['pytorch_eager_to_engine']:
            ratio = row['pytorch_eager_to_engine']
            line += (f'; {ratio:.2f} times as fast as eager PyTorch for {name(key(row))}, '
                     f'{"reached" if ratio >= target else "not reached"}: {target}')
    return line


def name(wanted):
    return '{} {} {}'.format(*wanted)


# All rows

def affordable(contestants, costs, left):
    """Those for which there is time, by what each has taken in another row; new ones are tried."""
    taken = itertools.accumulate(costs.get(contestant, 0) for contestant in contestants)
    return [contestant for contestant, until in zip(contestants, taken) if until <= left]


def run(args, report, contestants, bench, end):
    """Measure all rows; gives the names of those that are not whole when the time is up."""
    rates, costs, unfinished = None, {}, []
    wanted_ones = wanted_rows(args)
    for number, wanted in enumerate(wanted_ones):
        there = find(report, wanted)
        # Contestants are compared within a row: one that is missing means all of them again.
        asked = [c for c in CONTESTANTS
                 if c in contestants or there and c in there['results']]
        if there and all(c in there['results'] for c in asked):
            print(f'{name(wanted)}: there already', flush=True)
            continue
        rates = rates or measure_rates(args, bench)
        floor = find_floor(args, bench, wanted, rates)
        left = end - time.monotonic()
        if args.budget:
            left /= max(1, min(len(wanted_ones) - number, int(left / ROW)))
        fitting = affordable(asked, costs, left)
        if left <= 0 or not fitting:
            print(f'{name(wanted)}: not begun, {max(left, 0):.0f} s are left', flush=True)
            unfinished.append(name(wanted))
            continue
        print(f'{name(wanted)}:', flush=True)
        for contestant in asked[len(fitting):]:
            print(f'    {contestant}: left out, it took {costs[contestant]:.0f} s in another row',
                  flush=True)
        row = measure(wanted, fitting, args, rates, floor, time.monotonic() + left,
                      lambda row: add(report, row, args.json))
        if not all(c in row['results'] for c in asked):
            unfinished.append(name(wanted))
        costs.update({contestant: result['seconds'] for contestant, result
                      in row['results'].items() if 'seconds' in result})
        print_table(row)
    return unfinished


def time_epoch(args, report):
    step = find(report, ('resnet50-imagenet', 256, 'tf32'))
    ours = (step or {'results': {}})['results'].get(
        ENGINE[0] if args.device != 'cpu' else 'engine', {})  # as the script is run there
    try:
        report['epoch'] = epoch_time.measure(args.device, args.epoch_time, 2 * args.limit)
    except Failure as failure:
        print(f'epoch: {failure}', flush=True)
        return
    run_directory.write_json(args.json, report)
    print(epoch_time.describe(report['epoch'], ours.get('ms')), flush=True)


def main():
    args = parse_args()
    end = time.monotonic() + (args.budget or float('inf'))
    with machine(args) as bench:
        made_by = inspect(args, bench)
        report = load(args.json, made_by, args.fresh)
        print(', '.join(f'{name} {value}' for name, value in made_by.items() if value), flush=True)
        contestants = args.contestant or [
            c for c in CONTESTANTS if c not in PYTORCH or 'torch' in made_by]
        unfinished = run(args, report, contestants, bench, end)
    if args.epoch_time:
        time_epoch(args, report)
    print(f'\n{verdict(report["rows"])}')
    print(f'All rows are in {args.json}')
    if unfinished:
        print(f'Unfinished, the time was up: {", ".join(unfinished)}; the next call does them')
        return UNFINISHED


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
