"""All that a machine with a GPU has to show, in one go; the results lie in one folder.

    python -m benchmarks.gpu_check --out gpu-check             at most ten minutes
    python -m benchmarks.gpu_check --out gpu-proof --full      hours: the whole table, 300 epochs
    python -m benchmarks.gpu_check --device cpu --out try --seconds 60     tries it without a GPU

tests   every test that needs a GPU
bench   ResNet-50 with both stems beside PyTorch; with --full the whole table
runs    two epochs of both scripts, with graphs and without; with --full both recipes to the end,
        several seeds, and their comparisons

Each part has a time of its own and is ended when that is over; the next one begins all the same.
What it printed is in OUT/PART.log, the memory that it used, over time, in OUT/PART.memory.csv, and
summary.json says how each ended.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from benchmarks.workers import ROOT
from recipe import device, run_directory
from recipe.errors import Invalid, one_line_errors
from recipe.options import LINE, RATE, SEED, Parser

SCRIPTS = 'baseline', 'manifoldmixup'
GRACE = 10  # seconds of its time in which a part that has not ended may still do so


def parts(args):
    """(name, seconds, command) of each part."""
    on_cpu = args.device == 'cpu'
    bench = ['-m', 'benchmarks.gpu_training_step', '--device', args.device,
             '--json', os.path.join(args.out, 'bench.json')]
    engine = [] if on_cpu else ['--engine', 'fast']
    data = ['--dataset', args.dataset, '--device', args.device, *engine]
    small = ['--epoch', '2', '--snapshot-every', '0', *(
        [] if args.dataset == 'cifar10' else ['--batchsize', '64'])]
    short = ['--case', 'resnet50-imagenet', '--case', 'resnet50-cifar', '--precision', 'tf32',
             '--contestant', 'engine graph', '--contestant', 'engine',
             '--contestant', 'pytorch channels-last', '--contestant', 'compile reduce-overhead']
    if on_cpu:
        short = ['--case', 'resnet50-imagenet', '--precision', 'tf32', '--batch', '2', '--rounds',
                 '2', '--steps', '2', '--contestant', 'engine', '--contestant', 'pytorch']
    elif not args.full:
        short += ['--batch', '128', '--batch', '256']

    found = [('tests', 230, ['-m', 'pytest', '-m', 'gpu', '-q', '-rs'])]
    if args.full:
        found += [('bench', 3600, [*bench, *(short if on_cpu else []), '--budget', '3000',
                                   '--epoch-time', args.dataset]), *trainings(args, data)]
    else:
        found += [('bench', 200, [*bench, *short, '--limit', '90', '--budget', '180'])]
        for script in SCRIPTS:
            for graph in ('off',) if on_cpu else ('on', 'off'):
                name = f'{script}-graph-{graph}'
                found += [(f'run-{name}', 35, [
                    f'train_{script}.py', *data, *small, '--graph', graph,
                    '--out', os.path.join(args.out, name)])]
    return [(name, args.seconds or seconds, command) for name, seconds, command in found]


def trainings(args, data):
    """The blog post's comparison; the paper's, with input mixup, in short; the paper's in full."""
    paper = ['--recipe', 'standard', '--mixup-alpha', '2', '--layer-mix', '0,2,3']

    def pairs(name, hours, *options):
        return name, 3600 * hours, [
            '-m', 'recipe.pairs', '--seeds', *map(str, args.seeds),
            '--out', os.path.join(args.out, name), *data, *options, *args.train.split()]
    short = os.path.join(args.out, 'standard-60')
    found = [pairs('blog', 12, '--recipe', 'blog'),
             pairs('standard-60', 8, *paper, '--epoch', '60')]
    for seed in args.seeds:
        found.append((f'input-mixup-{seed}', 3600, [
            'train_manifoldmixup.py', *data, *paper, '--layer-mix', '0', '--epoch', '60',
            '--seed', str(seed), '--out', os.path.join(short, f'input-{seed}'),
            *args.train.split()]))
    runs = [os.path.join(short, f'{method}-{seed}') for seed in args.seeds
            for method in (*SCRIPTS, 'input')]
    return found + [('compare', 60, ['compare.py', *runs, '--out', short]),
                    pairs('standard-200', 24, *paper)]


def run(name, seconds, command, out, **environment):
    """How a part ended, and what it took."""
    print(f'{name}: python {" ".join(command)}', flush=True)
    start = time.monotonic()
    with open(os.path.join(out, name + '.log'), 'w') as log, memory_watched(out, name):
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log,
                                   start_new_session=True,  # to be ended with what it has started
                                   env={**os.environ, **environment})
        grace = min(GRACE, seconds / 2)
        try:
            status = process.wait(seconds - grace)
        except subprocess.TimeoutExpired:
            status = f'ended after {seconds - grace:.1f} s'
            os.killpg(process.pid, signal.SIGTERM)  # a training leaves a snapshot
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    took = round(time.monotonic() - start, 1)
    with open(os.path.join(out, name + '.log')) as log:
        last = [line for line in log.read().splitlines() if line.strip()][-1:]
    print(f'    {"ok" if status == 0 else status} in {took} s: {"".join(last)[:100]}', flush=True)
    return {'part': name, 'command': command, 'status': status, 'seconds': took, 'last': last}


@contextlib.contextmanager
def memory_watched(out, name):
    """PART.memory.csv gets the GPU's memory in use every ten seconds, where nvidia-smi is there."""
    if not shutil.which('nvidia-smi'):
        yield
        return
    with open(os.path.join(out, name + '.memory.csv'), 'w') as file:
        watch = subprocess.Popen(['nvidia-smi', '--query-gpu=timestamp,memory.used',
                                  '--format=csv,nounits', '-l', '10'], stdout=file)
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()


def parse_args():
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=LINE)
    parser.add_argument('--device', default='0', metavar='ID|cpu', help='(default: %(default)s)')
    parser.add_argument('--out', type=os.path.abspath, required=True, metavar='DIR',
                        help='a new folder')
    parser.add_argument('--dataset', default='cifar10', help='(default: %(default)s)')
    parser.add_argument('--full', action='store_true', help='see above')
    parser.add_argument('--seeds', type=SEED, nargs='+', default=[0, 1, 2], metavar='SEED',
                        help='of the trainings of --full (default: 0 1 2)')
    parser.add_argument('--train', default='', metavar='OPTIONS',
                        help='for these trainings, such as "--epoch 2 --batchsize 512"')
    parser.add_argument('--seconds', type=RATE, help='for each part, instead of its own')
    args = parser.parse_args()
    if os.path.exists(args.out):
        raise Invalid(f'--out: {args.out} exists; name a new folder')
    if args.device != 'cpu':
        if not args.device.isdecimal():
            raise Invalid(f'--device: given {args.device!r}, valid: the number of a GPU, or cpu')
        device.check_gpu(int(args.device))
    return args


def main():
    args = parse_args()
    os.makedirs(args.out)
    summary = {'commit': run_directory.commit(), 'versions': run_directory.versions(),
               'driver': driver(), 'parts': []}
    for part in parts(args):
        # Without a GPU its tests would only be skipped.
        simulated = {'GPU': 'simulated'} if args.device == 'cpu' else {}
        summary['parts'].append(run(*part, args.out, **simulated))
        run_directory.write_json(os.path.join(args.out, 'summary.json'), summary)
    print(json.dumps({p['part']: p['status'] for p in summary['parts']}))
    return int(any(p['status'] != 0 for p in summary['parts']))


def driver():
    """The line of nvidia-smi that names GPU and driver, or None."""
    if not shutil.which('nvidia-smi'):
        return None
    query = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version,memory.total',
                            '--format=csv,noheader'], capture_output=True, text=True)
    return query.stdout.strip() or None


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
