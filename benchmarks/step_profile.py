"""The engine's training step on a GPU, kernel by kernel, to see what to improve first.

    python -m benchmarks.step_profile --device 0
    python -m benchmarks.step_profile --device 0 --case resnet50-cifar --batch 256

An operation is a convolution by cuDNN, which may launch several kernels, or one kernel of the
engine.  Its floor is the longer of two times: that of its multiplications and additions at the rate
of a large matrix product, and that of the bytes of the arrays it is given, each counted once, at
the rate of a large copy; both rates are measured in the same call.  A row is all operations of one
kind and shape, and the rows that take the most time beyond their floors stand first.  Kernels that
CuPy launches by itself are listed too, without a floor.

The times are those of an eager step by PyTorch's profiler, without the gaps between kernels; the
step replayed from a CUDA graph is timed beside them.  Without PyTorch there are no times.
"""
import bisect
import collections
import contextlib
import dataclasses
import os

os.environ['CUPY_TF32'] = '1'  # before CuPy: its products, by which a rate may be measured

from benchmarks import machine
from benchmarks.contestants import CASES, Chainer, traced
from benchmarks.workers import one_line
from experiment.atomic_file import write_json
from experiment.errors import Invalid, one_line_errors
from experiment.options import COUNT, DocstringHelp, Parser

STEPS = 5  # that are profiled
MARK = 'operation '  # before the number of an operation, in a trace
TABLE = '{:>5}  {:<44}{:>10}{:>10}{:>10}  {}'


@dataclasses.dataclass
class Operation:
    """One thing that a GPU is asked for: what it is called, and what it has to do."""

    name: str
    shape: str
    operations: int  # multiplications and additions
    size: int  # bytes


class Ledger:
    """The operations of the engine, in the order in which it asks a GPU for them.

    Attributes:
        operations (list of Operation)
        mark (callable): ``mark(text)`` is a context that a profiler notes.
    """

    def __init__(self):
        self.operations = []
        self.mark = contextlib.nullcontext
        self.inside = False

    @contextlib.contextmanager
    def operation(self, *properties):
        """A context in which all that the engine asks for is entered as one operation."""
        if self.inside:
            yield
            return
        self.inside = True
        try:
            with self.mark(f'{MARK}{len(self.operations)}'):
                yield
        finally:
            self.inside = False
        self.operations.append(Operation(*properties))

    def watch_engine(self):
        """Enter all that the engine does on a GPU from now on, in this process."""
        from engine.gpu import kernels, optimizers, plans
        run, launch, module = plans.run, optimizers.launch, kernels.module

        def convolution(kind, x, W, y, stride, pad):
            shape = f'{by(x.shape)} {by(W.shape[1:3])}/{stride[0]} {len(W)}'
            with self.operation(kind, shape, 2 * y.size * W[0].size,
                                x.nbytes + W.nbytes + y.nbytes):
                run(kind, x, W, y, stride, pad)

        def update(name, rows, *arguments):
            size = sum(bytes_of_update(*arrays) for *arrays, _ in rows)
            with self.operation(name, f'{len(rows)} parameters', 0, size):
                launch(name, rows, *arguments)
        plans.run, optimizers.launch = convolution, update
        kernels.module = lambda *which: WatchedModule(module(*which), self)
        kernels.kernel.cache_clear()


def by(shape):
    return 'x'.join(map(str, shape))


def bytes_of_update(w, g, first, second, copy):
    """The bytes that an update of one parameter reads and writes.

    Weights and states are read and written, the gradient is read, the copy in float16 is written.
    """
    if w is None:  # nothing is updated: gradients are looked through
        return g.nbytes
    return sum(times * array.nbytes for times, array in (
        (2, w), (1, g), (2, first), (2, second), (1, copy)) if array is not None)


class WatchedModule:
    """A ``cupy.RawModule`` whose kernels enter their launches into a ledger."""

    def __init__(self, module, ledger):
        self.module, self.ledger = module, ledger

    def get_function(self, name):
        return WatchedKernel(name, self.module.get_function(name), self.ledger)


class WatchedKernel:
    """A kernel that enters its launches into a ledger."""

    def __init__(self, name, kernel, ledger):
        self.name, self.launched, self.ledger = name, kernel, ledger

    def __getattr__(self, name):
        return getattr(self.launched, name)

    def __call__(self, grid, block, arguments):
        arrays = [a for a in arguments if hasattr(a, 'nbytes') and hasattr(a, 'device')]
        arrays = [a for a in arrays if a.dtype.kind == 'f' or a.ndim > 1]  # no counters, no labels
        with self.ledger.operation(self.name, by(arrays[0].shape) if arrays else '', 0,
                                   sum(a.nbytes for a in arrays)):
            self.launched(grid, block, arguments)


# Times

def profiled(ledger, step, synchronize):
    """The events of a trace of :data:`STEPS` steps; None where there is no profiler."""
    try:
        from torch.profiler import record_function
    except ImportError:
        return None

    def steps():
        del ledger.operations[:]
        for _ in range(STEPS):
            step()
        synchronize()
    ledger.mark = record_function
    return traced(steps)


def attributed(events):
    """Kernels in a trace and the operations that launched them.

    A kernel belongs to the operation in whose mark the host launched it.

    Returns:
        tuple of dict: Milliseconds and names of the kernels of each operation, by its number; the
        same of what belongs to none, by the kernel's name.
    """
    launches, marks, on_device = {}, [], []
    for event in events:
        kind = event.get('cat', '')
        if kind in ('cuda_runtime', 'cuda_driver'):
            launches[correlation(event)] = event['ts']
        elif kind == 'user_annotation' and event['name'].startswith(MARK):
            marks.append((event['ts'], event['ts'] + event['dur'],
                          int(event['name'][len(MARK):])))
        elif kind == 'kernel' or kind.startswith('gpu_mem'):
            on_device.append(event)
    marks.sort()  # they lie beside one another: one thread launches all

    def operation(event):
        launched = launches.get(correlation(event), -1)
        place = bisect.bisect(marks, (launched, float('inf'))) - 1
        return marks[place][2] if place >= 0 and launched <= marks[place][1] else None
    known, others = {}, {}
    for event in on_device:
        number = operation(event)
        place = others.setdefault(event['name'], []) if number is None else \
            known.setdefault(number, [])
        place.append((event['dur'] / 1e3, event['name']))
    return known, others


def correlation(event):
    """The number that a kernel and its launch share."""
    return event.get('args', {}).get('correlation')


def rows_of(operations, known, others, rates, steps):
    """The rows of the table, each a dictionary; what has the most time beyond its floor first."""
    groups = collections.defaultdict(list)
    for number, operation in enumerate(operations):
        groups[operation.name, operation.shape].append((operation, known.get(number, [])))
    found = []
    for (name, shape), members in groups.items():
        operation = members[0][0]
        limits = rates and {
            'operations': 1e3 * operation.operations / (rates['tf32'] * 1e12),
            'bytes': 1e3 * operation.size / (rates['copy_gb_per_s'] * 1e9)}
        count = len(members) / steps
        kernels = [kernel for _, kernels in members for kernel in kernels]
        found.append({
            'name': name, 'shape': shape, 'count': count, 'operations': operation.operations,
            'bytes': operation.size,
            'floor_ms': limits and count * max(limits.values()),
            'bound_by': limits and max(limits, key=limits.get),
            'ms': sum(ms for ms, _ in kernels) / steps if kernels else None,
            'kernels': sorted({kernel for _, kernel in kernels})})
    for name, kernels in others.items():
        found.append({'name': name, 'shape': '', 'count': len(kernels) / steps, 'floor_ms': None,
                      'ms': sum(ms for ms, _ in kernels) / steps, 'kernels': [name]})
    return sorted(found, key=lambda row: -beyond(row))


def beyond(row):
    """Milliseconds that could be saved at most; without a time, the floor."""
    floor = row['floor_ms'] or 0
    return floor if row['ms'] is None else row['ms'] - floor


def totals(rows):
    """The sums over all rows of each name, the longest first."""
    found = collections.defaultdict(lambda: {'count': 0, 'ms': 0, 'floor_ms': 0})
    for row in rows:
        name = row['name'] if 'operations' in row else 'by CuPy itself'
        for key in 'count', 'ms', 'floor_ms':
            found[name][key] += row[key] or 0
    return dict(sorted(found.items(), key=lambda item: -item[1]['ms']))


def print_tables(report, most=30):
    ms = report['replayed_ms']
    ms = f'{ms:.3f} ms' if ms else f'not timed ({report["failed"]})'
    kernels = sum(row['ms'] or 0 for row in report['rows'])
    floor = sum(row['floor_ms'] or 0 for row in report['rows'])
    print(f'{report["case"]}, batch {report["batch"]}, tf32: a replayed step {ms}; '
          f'its kernels {kernels:.3f} ms, their floors {floor:.3f} ms', flush=True)
    for title, rows in (('of a kind', [
            {'name': name, 'shape': '', **values} for name, values in report['totals'].items()]),
            (f'the first {most} rows', report['rows'][:most])):
        print('\n' + TABLE.format('count', title, 'ms/step', 'floor ms', 'beyond', 'bound by'))
        for row in rows:
            numbers = row['ms'], row['floor_ms'], beyond(row)
            if not report['times']:
                numbers = None, row['floor_ms'], None
            print(TABLE.format(
                f'{row["count"]:.0f}', f'{row["name"]} {row["shape"]}'[:43],
                *('-' if number is None else f'{number:.4f}' for number in numbers),
                row.get('bound_by') or ''))


def measure(case, batch, device, ledger):
    """The report of one network, as it is written into the file."""
    eager = Chainer('engine autotune', case, batch, 'tf32', device)
    eager.prepare()
    del ledger.operations[:]
    events = profiled(ledger, eager.step, eager.device.synchronize)
    if events is None:
        for _ in range(STEPS):
            eager.step()
    operations = list(ledger.operations)
    known, others = attributed(events or [])
    report = {'case': case, 'batch': batch, 'replayed_ms': None, 'rates': None,
              'times': bool(known)}
    try:  # whatever fails here, the profile is there
        report['rates'] = machine.rates(device)
        report['replayed_ms'] = replayed(case, batch, device)
    except Exception as error:
        report['failed'] = one_line(f'{type(error).__name__}: {error}')
    rows = rows_of(operations, known, others, report['rates'], STEPS)
    return {**report, 'totals': totals(rows), 'rows': rows}


def replayed(case, batch, device):
    """Milliseconds of a step replayed from a CUDA graph."""
    graph = Chainer('engine graph autotune', case, batch, 'tf32', device)
    ms = graph.prepare()['ms']
    return min(graph.turn(max(3, min(100, round(500 / ms))))['ms'][0] for _ in range(3))


def main():
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('--device', required=True, metavar='ID', help='the number of a GPU')
    parser.add_argument('--case', action='append', choices=list(CASES),
                        help='may be given several times (default: resnet50-imagenet)')
    parser.add_argument('--batch', type=COUNT, default=128, metavar='N',
                        help='(default: %(default)s)')
    parser.add_argument('--json', type=os.path.abspath, metavar='FILE',
                        default='runs/step_profile.json', help='(default: %(default)s)')
    args = parser.parse_args()
    if not args.device.isdecimal():
        raise Invalid(f'--device: given {args.device!r}, valid: the number of a GPU')
    from experiment import device
    device.check_gpu(int(args.device))
    ledger, reports = Ledger(), []
    ledger.watch_engine()
    for case in args.case or ['resnet50-imagenet']:
        reports.append(measure(case, args.batch, args.device, ledger))
        write_json(args.json, reports)
        print_tables(reports[-1])
        print()
    if not all(report['times'] for report in reports):
        print("No times: they are those of PyTorch's profiler, which saw no kernels")
    print(f'All rows are in {args.json}')


if __name__ == '__main__':
    with one_line_errors():
        main()
