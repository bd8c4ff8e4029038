"""Test, measure and train on a GPU within a given time; all results go into one folder.

    python -m benchmarks.gpu_check --out gpu-check                           everything: ten minutes
    python -m benchmarks.gpu_check --out one --seconds 300 tests step        two of the parts
    python -m benchmarks.gpu_check --out try --device cpu --dataset digits   a trial without a GPU

tests     all tests that need a GPU; failures.txt gets each failure as it happens
step      training_step.py: a training step of ResNet-50 with both stems, batch 128, beside
          stock Chainer's and PyTorch's
profile   step_profile.py: the engine's step, kernel by kernel
train     paired_training.py: as many pairs of runs with and without mixup as fit, and their
          comparison

The parts run in this order.  The time is divided among them by what they need; what one leaves
unused goes to the next.  A part that runs out of time is stopped, and its results so far are kept.
OUT/PART.log has what a part printed, OUT/PART.gpu.csv the GPU's memory and load over time, and
summary.json how each part ended.  OUT.tar.gz holds all of it but weights, and is never more than
half a minute old, so that a call that is killed leaves its results too.
"""
import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

from benchmarks import devices, paired_training
from benchmarks.archive import Archive
from benchmarks.workers import ROOT, UNFINISHED, one_line
from experiment import dataset, device, run_directory
from experiment.atomic_file import write_json
from experiment.errors import Invalid, one_line_errors
from experiment.options import RATE, SEED, DocstringHelp, Parser

NEEDS = {'tests': 100, 'step': 200, 'profile': 60, 'train': 250}  # seconds, of each part
GRACE = 10  # seconds of its time in which a part that has not ended may still do so
CLOSING = 3  # seconds of the whole time for the last archive
BOTH_STEMS = '--case', 'resnet50-imagenet', '--case', 'resnet50-cifar'


def command_of(part, seconds, args):
    """Python's arguments for a part, which ends by itself within ``seconds`` if it can."""
    def at(name):
        return os.path.join(args.out, name)
    on_cpu = args.device == 'cpu'
    if part == 'tests':
        in_parallel = ['-n', str(min(8, os.cpu_count()))] if has('xdist') else []
        return ['-m', 'pytest', '-m', 'gpu', '-q', '-rs', '--tb=short', *in_parallel,
                '-W', 'default', '-p', 'no:benchmark',  # what else is there may warn
                '--continue-on-collection-errors', '-o', 'faulthandler_timeout=30',
                '-p', 'benchmarks.failures', '--failures', at('failures.txt')]
    if part == 'step':
        contestants = ['engine', 'pytorch channels-last', 'chainer'] if on_cpu else [
            'engine graph autotune', 'engine graph', 'engine autotune', 'engine', 'chainer',
            'pytorch channels-last', 'pytorch graph', 'compile graph']
        if not has('torch'):
            contestants = [c for c in contestants if c.split()[0] not in ('pytorch', 'compile')]
        small = ['--batch', '2', '--rounds', '2', '--steps', '2'] if on_cpu else [
            '--batch', '128', '--rounds', '5']
        return ['-m', 'benchmarks.training_step', '--device', args.device, *BOTH_STEMS,
                '--precision', 'tf32', *small, '--budget', f'{seconds:.0f}',
                '--json', at('step.json'),
                *(word for c in contestants for word in ('--contestant', c))]
    if part == 'profile':
        return ['-m', 'benchmarks.step_profile', '--device', args.device, *BOTH_STEMS,
                '--json', at('profile.json')]
    return ['-m', 'benchmarks.paired_training', '--device', args.device,
            '--seconds', f'{seconds:.0f}', '--out', at('train'), '--dataset', args.dataset,
            '--seeds', *map(str, args.seeds), *([] if on_cpu else ['--engine', 'fast']),
            *shlex.split(args.train)]


def has(package):
    return importlib.util.find_spec(package) is not None


def grace(seconds):
    """Seconds of a part's time that are for its end."""
    return min(GRACE, seconds / 4)


def run(part, seconds, command, out, **environment):
    """Run a part for so many seconds at most; gives its entry of summary.json."""
    print(f'{part}, {seconds:.0f} s: python {shlex.join(command)}', flush=True)
    start = time.monotonic()
    deadline = start + seconds
    log = os.path.join(out, part + '.log')
    with open(log, 'w') as file, gpu_watched(out, part):
        process = start_python(command, file, **environment)
        try:
            status = process.wait(seconds - grace(seconds))
            if status == UNFINISHED and command[1].startswith('benchmarks.'):
                status = 'unfinished'
        except subprocess.TimeoutExpired:
            status = 'unfinished'
        except KeyboardInterrupt:  # then there is little time
            deadline = time.monotonic() + GRACE
            raise
        finally:
            end(process, deadline)
    took = round(time.monotonic() - start, 1)
    with open(log, errors='replace') as file:
        last = [line for line in file.read().splitlines() if line.strip()][-1:]
    if status != 'unfinished':
        status = f'failed with status {status}' if status else 'ok'
    print(f'    {status} after {took} s: {one_line("".join(last), 100)}', flush=True)
    return {'part': part, 'command': command, 'status': status, 'seconds': took, 'last': last}


def start_python(command, log, **environment):
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL,
                            stdout=log, stderr=log, env={**os.environ, **environment},
                            process_group=0)  # to be ended with what it has started


def end(process, deadline):
    """End a process and what it has started: by SIGINT, at which tests report and trainings save
    their state, and at the deadline by SIGKILL."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def gpu_watched(out, part):
    """PART.gpu.csv gets the GPU's memory in use and load every ten seconds, by nvidia-smi."""
    if not shutil.which('nvidia-smi'):
        yield
        return
    with open(os.path.join(out, part + '.gpu.csv'), 'w') as file:
        watch = subprocess.Popen(['nvidia-smi', '--query-gpu=timestamp,memory.used,utilization.gpu',
                                  '--format=csv,nounits', '-l', '10'], stdout=file)
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()


COMPILE = '''
from benchmarks.contestants import PyTorch
for case in 'resnet50-imagenet', 'resnet50-cifar':
    PyTorch('compile graph', case, 128, 'tf32', {device!r}).prepare()
    print(case, 'is compiled', flush=True)'''


@contextlib.contextmanager
def compiling(args, seconds):
    """Let PyTorch compile beside the tests what ``step`` needs; it keeps that in its own cache."""
    if args.device == 'cpu' or not has('torch'):
        yield
        return
    deadline = time.monotonic() + seconds
    with open(os.path.join(args.out, 'compile.log'), 'w') as log:
        process = start_python(['-c', COMPILE.format(device=args.device)], log)
        try:
            yield
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
        finally:
            end(process, time.monotonic() + 2)


def parse_args(argv=None):
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('parts', nargs='*', metavar='PART', help='(default: all)')
    parser.add_argument('--device', default='0', type=devices.name, metavar='ID|cpu',
                        help='(default: %(default)s)')
    parser.add_argument('--out', type=os.path.abspath, required=True, metavar='DIR',
                        help='a new folder')
    parser.add_argument('--archive', type=os.path.abspath, metavar='FILE',
                        help='(default: OUT.tar.gz)')
    parser.add_argument('--seconds', type=RATE, default=590, metavar='S',
                        help='for the whole call (default: %(default)s)')
    parser.add_argument('--dataset', default='cifar10', metavar='NAME',
                        help='for train (default: %(default)s)')
    parser.add_argument('--seeds', type=SEED, nargs='+', default=[0, 1, 2, 3, 4], metavar='SEED',
                        help='for train, as many as fit (default: 0 1 2 3 4)')
    parser.add_argument('--train', default='', metavar='OPTIONS',
                        help='for train, such as "--recipe standard --epoch 60"')
    args = parser.parse_args(argv)
    for part in args.parts:
        if part not in NEEDS:
            raise Invalid(f'given the part {part!r}, valid: {", ".join(NEEDS)}')
    args.parts = [part for part in NEEDS if part in (args.parts or NEEDS)]
    args.archive = args.archive or args.out + '.tar.gz'
    for option, path in ('out', args.out), ('archive', args.archive):
        if os.path.exists(path):
            raise Invalid(f'--{option}: {path} exists; name a new one, or remove it')
    if args.archive.startswith(os.path.join(args.out, '')):
        raise Invalid(f'--archive: {args.archive} is in --out, which it holds; name another place')
    if args.device != 'cpu':
        device.check_gpu(int(args.device))
    if 'train' in args.parts:  # now, and not when most of the time is over
        check_training(args)
    return args


def check_training(args):
    """Read the options of ``train`` and its data set.

    Raises:
        Invalid: If it could not use them.
    """
    try:
        given = shlex.split(args.train)
    except ValueError as error:
        raise Invalid(f'--train: given {args.train}: {error}') from None
    for option in 'out', 'seconds', 'device', 'seeds', 'dataset':
        if any(word.split('=')[0] == f'--{option}' for word in given):
            raise Invalid(f'--train: given --{option}, which is an option of this call')
    paired_training.parse_args(command_of('train', args.seconds, args)[2:])
    print(f'Reading {args.dataset}', flush=True)
    dataset.load(args.dataset)


def share(parts, seconds):
    """How many of the seconds that all these parts have are for the first."""
    return seconds * NEEDS[parts[0]] / sum(NEEDS[part] for part in parts)


def run_all(args, finish, summary):
    """Run the parts until ``finish``, by time.monotonic(), and enter each into the summary."""
    def write():
        write_json(os.path.join(args.out, 'summary.json'), summary)
    write()
    for place, part in enumerate(args.parts):
        summary['parts'].append({'part': part, 'status': 'interrupted'})
        try:
            summary['parts'][-1] = run_part(
                part, share(args.parts[place:], finish - time.monotonic()), args)
        finally:
            write()


def run_part(part, seconds, args):
    if part == 'profile' and args.device == 'cpu':
        print('profile: left out, a CPU runs no kernels', flush=True)
        return {'part': part, 'status': 'left out'}
    # Without a GPU its tests would only be skipped.
    simulated = {'GPU': 'simulated'} if (part, args.device) == ('tests', 'cpu') else {}
    beside = contextlib.nullcontext()
    if part == 'tests' and 'step' in args.parts:
        beside = compiling(args, seconds)
    with beside:
        return run(part, seconds, command_of(part, seconds - grace(seconds), args), args.out,
                   **simulated)


def main():
    start = time.monotonic()
    args = parse_args()
    # Where this was started in the background SIGINT is ignored, and would be by all parts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    summary = {'commit': run_directory.commit(), 'versions': run_directory.versions(),
               'driver': devices.nvidia_smi('name,driver_version,memory.total'),
               'parts': []}
    with Archive(args.out, args.archive):
        os.makedirs(args.out)
        run_all(args, start + args.seconds - min(CLOSING, args.seconds / 10), summary)
    print(json.dumps({part['part']: part['status'] for part in summary['parts']}))
    print(f'{time.monotonic() - start:.0f} s; the results are in {args.out} and {args.archive}')
    return int(any(part['status'] not in ('ok', 'left out') for part in summary['parts']))


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
