"""Seconds per training step on the CPU: stock Chainer, this engine, and PyTorch in two layouts.

    python -m benchmarks.training_step                                 some ten minutes
    python -m benchmarks.training_step --case resnet50-imagenet-32     one network

A step is forward, backward and Adam, on 32x32 images of 10 classes.  Each contestant lives in a
process of its own, all with the same number of threads and the settings of malloc that suit
PyTorch best; they take turns, and the first steps of each are not counted.  Median and middle half
of the steps, peak memory, the time that imports take and, unless --case is given, that of ``make
demo``; a table, then one line of JSON.
"""
import collections
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# A worker imports nothing that it does not measure, and the engine before NumPy: so this module
# imports the standard library alone, and everything else where it is used.

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
THREADS = os.environ.get('OMP_NUM_THREADS') or str(CORES)
SETTINGS = {
    'OMP_NUM_THREADS': THREADS, 'OPENBLAS_NUM_THREADS': THREADS, 'MKL_NUM_THREADS': THREADS,
    # glibc then keeps what is freed, where the next step would have to fault it in again
    'MALLOC_TRIM_THRESHOLD_': str(2 ** 32), 'MALLOC_MMAP_THRESHOLD_': str(2 ** 32)}
ENVIRONMENT = {**os.environ, **SETTINGS}  # as the user has it, before an import may add to it

Case = collections.namedtuple('Case', 'architecture stem batch steps')  # steps: in a turn
CASES = {
    'resnet50-imagenet-128': Case('resnet50', 'imagenet', 128, 2),
    'resnet50-imagenet-32': Case('resnet50', 'imagenet', 32, 4),
    'resnet50-cifar-32': Case('resnet50', 'cifar', 32, 1),
    'preactresnet18-64': Case('preactresnet18', 'cifar', 64, 1)}
CHAINER = 'chainer', 'engine'
PYTORCH = 'pytorch', 'pytorch channels-last'
WARM_UP = 2  # steps; the first one allocates, and PyTorch chooses its kernels in it
PAUSE = .25  # seconds between turns: by then the threads of the one before have ceased to spin
MODULES = 'engine, mixup, model, experiment, chainer, chainercv'
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python(code, **options):
    """A fresh interpreter, as every contestant gets it."""
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, **options)


# In a worker

def work(contestant, case, batch):
    """Answer each line of stdin, a number of steps, by a line of JSON with what they took."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the parent too, which speaks
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else prints keeps out of them
    prepare = torch_step if contestant in PYTORCH else chainer_step
    step, parameters = prepare(contestant, CASES[case], batch)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mib = round(peak / 2 ** (20 if sys.platform == 'darwin' else 10))  # bytes there, else KiB
        answer = {'seconds': seconds, 'peak_mib': mib, 'parameters': parameters}
        print(json.dumps(answer), file=answers, flush=True)


def chainer_step(contestant, case, batch):
    """A function that does one step, and the number of parameters."""
    if contestant == 'engine':
        import engine
    import chainer
    import numpy as np
    from benchmarks.networks_chainer import network
    from mixup import ManifoldMixupClassifier

    np.random.seed(0)
    model = ManifoldMixupClassifier(network(case.architecture, case.stem), mixup_hidden=False)
    if contestant == 'engine':
        engine.use('fast', model)
    optimizer = chainer.optimizers.Adam().setup(model)
    x = np.random.rand(batch, 3, 32, 32).astype(np.float32)
    t = np.random.randint(0, 10, batch).astype(np.int32)
    return lambda: optimizer.update(model, x, t), model.count_params()


def torch_step(contestant, case, batch):
    import torch
    from benchmarks.networks_torch import network

    torch.manual_seed(0)
    layout = torch.contiguous_format if contestant == 'pytorch' else torch.channels_last
    model = network(case.architecture, case.stem).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = torch.rand(batch, 3, 32, 32).contiguous(memory_format=layout)
    t = torch.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), t).backward()
        optimizer.step()
    return step, sum(parameter.numel() for parameter in model.parameters())


# In the parent

def measure(name, contestants, batch, rounds, steps, progress):
    """One case: its row in the JSON."""
    import numpy as np
    from experiment.errors import Invalid

    def turn(contestant, steps):
        process = workers[contestant]
        with contextlib.suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), f'{steps}\n'.encode())
        answer = process.stdout.readline()
        if not answer:
            raise Invalid(f'{contestant} ended early in {name} with status {process.wait()}; '
                          'where memory was short (-9), a smaller --batch helps')
        time.sleep(PAUSE)
        progress.update()
        return json.loads(answer)

    with contextlib.ExitStack() as stack:
        workers = {
            contestant: stack.enter_context(python(
                'from benchmarks.training_step import work; '
                f'work({contestant!r}, {name!r}, {batch})', stdin=subprocess.PIPE))
            for contestant in contestants}
        counts = {turn(contestant, WARM_UP)['parameters'] for contestant in contestants}
        assert len(counts) == 1, f'{name} is not one network: it has {counts} parameters'
        turns = [[turn(contestant, steps) for contestant in contestants] for _ in range(rounds)]

    results = {}
    for contestant, answers in zip(contestants, zip(*turns)):
        seconds = [s for answer in answers for s in answer['seconds']]
        low, median, high = np.quantile(seconds, (.25, .5, .75)).round(4).tolist()
        results[contestant] = {
            'median': median, 'low': low, 'high': high, 'peak_mib': answers[-1]['peak_mib']}
    best = min((results[layout]['median'] for layout in PYTORCH if layout in results),
               default=None)
    return {'case': name, 'batch': batch, 'parameters': counts.pop(), 'steps': rounds * steps,
            'pytorch_best': best, 'results': results,
            'pytorch_to_engine': best and round(best / results['engine']['median'], 3)}


def import_seconds():
    """What a training script imports, in a fresh process: the median of three."""
    code = f'import time; s = time.time(); import {MODULES}; print(time.time() - s)'
    return round(sorted(float(python(code).communicate()[0]) for _ in range(3))[1], 2)


def demo_seconds():
    """Both trainings of ``make demo`` and their comparison, installation left out."""
    from experiment.errors import Invalid
    if not shutil.which('make'):
        return None
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        demo = subprocess.run(
            ['make', 'demo', f'PYTHON={sys.executable}', f'DEMO=--out {directory}/demo'],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if demo.returncode:
            raise Invalid(f'make demo ended with status {demo.returncode}: {demo.stderr[-200:]}')
        return round(time.perf_counter() - start, 1)


def print_table(row):
    print('\n{case}: batch {batch}, {parameters:,} parameters, {steps} steps each'.format(**row))
    print(f'{"":<24}{"s/step":>8}{"25-75 %":>16}{"peak MiB":>10}{"x PyTorch":>11}')
    for contestant, result in row['results'].items():
        speed = f'{row["pytorch_best"] / result["median"]:.2f}' if row['pytorch_best'] else '-'
        print('{:<24}{median:>8.3f}{low:>10.3f}-{high:.3f}{peak_mib:>10,}{:>11}'.format(
            contestant, speed, **result))


def parse_args():
    from experiment.options import COUNT, DocstringHelp, Parser
    steps = ', '.join(f'{case.steps} ({name})' for name, case in CASES.items())
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('--rounds', type=COUNT, default=6, metavar='N',
                        help='turns of each contestant (default: %(default)s)')
    parser.add_argument('--steps', type=COUNT, metavar='N', help=f'in a turn (default: {steps})')
    parser.add_argument('--case', action='append', choices=CASES,
                        help='may be given several times (default: all)')
    parser.add_argument('--batch', type=COUNT, metavar='N',
                        help='images, instead of the number at the end of the name of a case')
    parser.add_argument('--json', type=os.path.abspath, metavar='FILE',
                        help='write the JSON there too')
    args = parser.parse_args()
    if args.json:
        check_writable(args.json)
    return args


def check_writable(path):
    from experiment.errors import Invalid
    if os.path.isdir(path) or not os.access(os.path.dirname(path), os.W_OK):
        raise Invalid(f'--json: {path} cannot be written; name a file in a directory that exists')


def main():
    from tqdm import tqdm
    from experiment import device, run_directory

    args = parse_args()
    cases = {name: CASES[name] for name in CASES if not args.case or name in args.case}
    contestants = CHAINER
    machine = {'cpu': device.cpu_model(), 'cores': CORES, 'python': platform.python_version(),
               **run_directory.versions(), 'torch': None}
    if importlib.util.find_spec('torch'):
        contestants += PYTORCH
        machine['torch'] = importlib.metadata.version('torch')
    print('{cpu}, {cores} core(s), {} thread(s), Python {python}, NumPy {numpy}, PyTorch {}'.format(
        THREADS, machine['torch'] or 'not installed', **machine), flush=True)
    report = {'machine': machine, 'commit': run_directory.commit(), 'settings': SETTINGS,
              'rounds': args.rounds, 'import_seconds': import_seconds(), 'cases': []}
    print(f'import {MODULES}: {report["import_seconds"]} s', flush=True)
    if not args.case:
        report['demo_seconds'] = demo_seconds()
        print(f'make demo: {report["demo_seconds"]} s', flush=True)
    with tqdm(total=len(cases) * len(contestants) * (1 + args.rounds), disable=None) as progress:
        for name, case in cases.items():
            progress.set_description(name)
            report['cases'].append(measure(name, contestants, args.batch or case.batch,
                                           args.rounds, args.steps or case.steps, progress))
    for row in report['cases']:
        print_table(row)
    if not machine['torch']:
        print('\nPyTorch takes part where it is installed: pip install torch==2.13.0')
    print(json.dumps(report))
    if args.json:
        run_directory.write_json(args.json, report)


if __name__ == '__main__':
    from experiment.errors import one_line_errors
    with one_line_errors():
        main()
