"""Milliseconds per training step: this engine, stock Chainer, and PyTorch at its best.

    python -m benchmarks.training_step                                  on the CPU: half an hour
    python -m benchmarks.training_step --case resnet50-imagenet-32      one network and batch
    python -m benchmarks.training_step --device 0                       on a GPU
    python -m benchmarks.training_step --device 0 --case resnet50-imagenet --batch 128 \\
        --precision tf32 --contestant "engine graph" --contestant pytorch --budget 500
    python -m benchmarks.training_step --device cpu --precision tf32 --batch 2 \\
        --case preactresnet18 --rounds 2                                tries a GPU's rows without

A row is a network, a batch and a precision: float32 on a CPU, tf32 and fp16 on a GPU.  Its
contestants (contestants.py says what each does) live in a process of their own and take turns.  The
first steps are not counted, nor is the time that compiling takes.  On a CPU each step is timed, and
all contestants have the same number of threads and the settings of malloc that suit PyTorch best;
on a GPU the steps of a turn are timed together between two events, and contestants that do not fit
in its memory at once go into one wave after another.  ``host ms`` is how long the host needs to
issue a step, ``of floor`` how near it comes to what floor.py computes from the rates of the device.

FILE gets each row as it is after each round of turns; the next call leaves out the rows that are
there, if they were made by the same code with the same versions on the same device.  What a
contestant that failed wrote to stderr is in FILE.log.  Without a FILE the last line is the JSON.

On a CPU the time that imports take is measured too and, unless --case or --budget is given, that
of ``make demo``.  With --budget, seconds that the rows share, the call ends in time and leaves out
the contestants that are not ready by then.  The exit status is then 3.
"""
import argparse
import itertools
import json
import os
import time

from benchmarks import devices, machine, programs
from benchmarks.contestants import CASES, CONTESTANTS, ENGINE, ON_CPU, PYTORCH
from benchmarks.report import Report, made_by, name, print_table, verdict
from benchmarks.row import Row, is_for_gpu
from benchmarks.workers import UNFINISHED, Failure, Unsupported
from experiment.errors import Invalid, one_line_errors
from experiment.options import COUNT, RATE, DocstringHelp, Parser

# The first of each list counts most.
CPU_BATCHES = {'resnet50-imagenet': (32, 128), 'resnet50-cifar': (32,), 'preactresnet18': (64,),
               'resnet18-cifar': (64,), 'wrn28-10': (16,)}
GPU_BATCHES = 128, 256, 1024
PRECISIONS = 'float32', 'tf32', 'fp16'
ROW = 60  # seconds, of which no row gets less while others wait


def case(text):
    """A network and its batch, or None: ``'resnet50-cifar-32'``, ``'resnet50-cifar'``."""
    network, _, batch = text.rpartition('-')
    if text in CASES:
        return text, None
    if network in CASES and batch.isdecimal() and int(batch):
        return network, int(batch)
    raise argparse.ArgumentTypeError(
        f'given {text!r}, valid: {", ".join(CASES)}, also with a batch: resnet50-imagenet-32')


def parse_args(argv=None):
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    several, cpu, gpu = 'may be given several times', devices.Cpu, devices.Gpu
    parser.add_argument('--device', default='cpu', type=devices.name, metavar='ID|cpu',
                        help='cpu, or the number of a GPU (default: %(default)s)')
    parser.add_argument('--case', action='append', type=case, metavar='NETWORK[-BATCH]',
                        help=f'{", ".join(CASES)}; {several} (default: all, on a CPU '
                             f'{", ".join(CPU_BATCHES)})')
    parser.add_argument('--batch', action='append', type=COUNT, metavar='N',
                        help=f"{several} (default: the case's own; a case without one has several, "
                             'on a GPU {}, {} and {})'.format(*GPU_BATCHES))
    parser.add_argument('--precision', action='append', choices=PRECISIONS,
                        help=f'{several} (default: float32 on a CPU, tf32 and fp16 on a GPU)')
    parser.add_argument('--contestant', action='append', choices=CONTESTANTS,
                        help=f'{several} (default: all, for float32 {", ".join(ON_CPU)})')
    parser.add_argument('--rounds', type=COUNT, metavar='N',
                        help='turns of each contestant '
                             f'(default: {cpu.ROUNDS}, on a GPU {gpu.ROUNDS})')
    parser.add_argument('--steps', type=COUNT, metavar='N',
                        help='in a turn (default: as many as take '
                             f'{cpu.TURN} s, on a GPU {gpu.TURN} s)')
    parser.add_argument('--limit', type=RATE, metavar='SECONDS',
                        help='for a contestant to compile and warm up '
                             f'(default: {cpu.LIMIT}, on a GPU {gpu.LIMIT})')
    parser.add_argument('--budget', type=RATE, metavar='SECONDS',
                        help='for all rows: what does not fit is left out')
    parser.add_argument('--epoch-time', nargs='?', const='auto', metavar='DATASET',
                        help='also run the training script for some epochs and time the last one '
                             '(default: CIFAR-10 if Chainer has it, else digits)')
    parser.add_argument('--json', type=os.path.abspath, metavar='FILE',
                        help='(default: none, on a GPU runs/training_step.json)')
    parser.add_argument('--fresh', action='store_true', help='forget the rows in FILE')
    args = parser.parse_args(argv)
    kind, on_gpu = devices.kind(args.device), args.device != 'cpu'
    args.rounds = args.rounds or kind.ROUNDS
    args.limit = min(args.limit or kind.LIMIT, args.budget or float('inf'))
    args.precision = args.precision or (['tf32', 'fp16'] if on_gpu else ['float32'])
    if on_gpu and 'float32' in args.precision:
        raise Invalid('--precision: given float32, valid on a GPU: tf32, fp16')
    if on_gpu and not args.json:
        args.json = os.path.abspath('runs/training_step.json')
        os.makedirs('runs', exist_ok=True)
    folder = args.json and os.path.dirname(args.json)
    if args.json and (os.path.isdir(args.json) or not os.access(folder, os.W_OK)):
        raise Invalid(f'--json: {args.json} cannot be written; name a file in a directory that '
                      'exists')
    return args


def wanted_rows(args):
    """``(case, batch, precision)`` of all rows, what matters most first.

    ResNet-50 is one network with two stems, and float16 comes with the second batch.
    """
    on_gpu = args.device != 'cpu'
    wanted = set()
    for case, batch in args.case or [(case, None) for case in (CASES if on_gpu else CPU_BATCHES)]:
        batches = args.batch or batch and [batch] or (
            GPU_BATCHES if on_gpu else CPU_BATCHES.get(case, (32,)))
        wanted.update(itertools.product([case], batches, args.precision))
    batches = sorted({batch for _, batch, _ in wanted})
    precisions = sorted(args.precision, key=PRECISIONS.index)

    def rank(row):
        case, batch, precision = row
        number = precisions.index(precision)
        first = (not case.startswith('resnet50')) + batches.index(batch) + number
        return first, number, list(CASES).index(case), batch
    return sorted(wanted, key=rank)


def contestants_of(args, precision, has_torch):
    """The names of those that take part in rows of a precision."""
    there = args.contestant or [c for c in (CONTESTANTS if is_for_gpu(precision) else ON_CPU)
                                if has_torch or c not in PYTORCH]
    return [contestant for contestant in CONTESTANTS if contestant in there]


def measure_rates(args, bench):
    """The rates of the device; None where they cannot be measured, with a line that says why."""
    try:
        rates = bench.ask('rates', args.device, limit=args.limit)
    except Failure as failure:
        print(f'rates: {failure}', flush=True)
        return None
    print('matrix products {tf32:,.0f} TFLOP/s in TF32, {fp16:,.0f} in float16; '
          'copy {copy_gb_per_s:,.0f} GB/s (by {by})'.format(**rates), flush=True)
    return rates


def find_floor(args, bench, wanted, rates):
    """The floor of a row; None where PyTorch, on whose network it is counted, is missing."""
    case, batch, precision = wanted
    try:
        return bench.ask('floor', *CASES[case], batch, precision, rates, limit=args.limit)
    except (Failure, Unsupported):
        return None


def affordable(contestants, costs, left):
    """Those for which there is time, by what each has taken in another row; new ones are tried."""
    taken = itertools.accumulate(costs.get(contestant, 0) for contestant in contestants)
    return [contestant for contestant, until in zip(contestants, taken) if until <= left]


def run(args, report, bench, end):
    """Measure all rows; gives the names of those that are not whole when the time is up."""
    rates, floor, costs, unfinished = None, None, {}, []
    wanted_ones = wanted_rows(args)
    for number, wanted in enumerate(wanted_ones):
        there = report.find(wanted)
        # Contestants are compared within a row: one that is missing means all of them again.
        asked = contestants_of(args, wanted[2], 'torch' in report.content['made_by'])
        asked = [c for c in CONTESTANTS if c in asked or there and c in there['results']]
        if there and all(c in there['results'] for c in asked):
            print(f'{name(wanted)}: there already', flush=True)
            continue
        if is_for_gpu(wanted[2]):
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
        row = Row(wanted, fitting, args, rates, floor, time.monotonic() + left,
                  report.add).measure()
        if not all(c in row['results'] for c in asked):
            unfinished.append(name(wanted))
        costs.update({contestant: result['seconds'] for contestant, result
                      in row['results'].items() if 'seconds' in result})
        print_table(row)
    return unfinished


def time_programs(args, report):
    """Enter what is measured of whole programs on the CPU."""
    report.write(import_seconds=programs.import_seconds())
    print(f'import {programs.MODULES}: {report.content["import_seconds"]} s', flush=True)
    if not (args.case or args.budget):
        try:
            report.write(demo_seconds=programs.demo_seconds())
            print(f'make demo: {report.content["demo_seconds"]} s', flush=True)
        except Failure as failure:
            print(f'make demo: {failure}', flush=True)


def time_epoch(args, report):
    """Enter the time of an epoch of the training script."""
    on_gpu = args.device != 'cpu'
    step = report.find(('resnet50-imagenet', 256, 'tf32' if on_gpu else 'float32'))
    ours = (step or {'results': {}})['results'].get(
        ENGINE[0] if on_gpu else 'engine', {})  # as the script is run there
    try:
        report.write(epoch=programs.epoch(args.device, args.epoch_time, 2 * args.limit))
    except Failure as failure:
        print(f'epoch: {failure}', flush=True)
        return
    print(programs.describe_epoch(report.content['epoch'], ours.get('ms')), flush=True)


def main():
    args = parse_args()
    end = time.monotonic() + (args.budget or float('inf'))
    log = args.json and f'{args.json}.log'
    with machine.worker(args.device, log) as bench:
        facts = made_by(args, log, bench)
        report = Report(args.json, facts, args.fresh)
        print(', '.join(f'{name} {value}' for name, value in facts.items() if value), flush=True)
        report.write(environment=devices.kind(args.device).ENVIRONMENT)
        if args.device == 'cpu':
            time_programs(args, report)
        unfinished = run(args, report, bench, end)
    if args.epoch_time:
        time_epoch(args, report)
    print(f'\n{verdict(report.rows)}')
    if 'torch' not in facts:
        print('PyTorch takes part where it is installed: pip install torch==2.13.0')
    if unfinished:
        print(f'Unfinished, the time was up: {", ".join(unfinished)}; the next call does them')
    print(f'All rows are in {args.json}' if args.json else json.dumps(report.content))
    if unfinished:
        return UNFINISHED


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
