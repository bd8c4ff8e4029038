"""Train pairs of runs, baseline and Manifold Mixup, within a given time, and compare them.

    python -m benchmarks.paired_training --device 0 --seconds 480 --seeds 0 1 2 --out runs/blog

Options that are not listed below go to both scripts, as with experiment.grid; without any it is
the blog post's recipe.

First it is measured how many pairs should train at once: one more is added as long as all together
then get through more epochs in the same time.  Whether they share the GPU by NVIDIA's Multi-Process
Service, where the driver brings it, is measured too.  Then as many pairs as fit are trained for the
recipe's number of epochs.  If not even one fits, one pair is trained for as many epochs as do; the
schedule of the learning rate spans these, for both methods alike.  A run that is cut off by the end
of the time leaves a snapshot and takes no part in the comparison; the exit status is then 3.
"""
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import experiment
from benchmarks import mps
from benchmarks.workers import ROOT, UNFINISHED, one_line
from experiment import run_directory
from experiment.atomic_file import write_json
from experiment.errors import Invalid, one_line_errors
from experiment.grid import PAIR, add_options, options_for, parse
from experiment.options import COUNT, RATE, RECIPES, DocstringHelp, Parser
from model import ARCHITECTURES

GAIN = 1.05  # times as many epochs in the same time, for which another pair is worth its place
FIRST, SHARE = .5, .15  # of the time: for measuring the first pair, and one more, at most
EPOCHS, ENOUGH = 3, 10  # that are measured, or fewer if they take so many seconds
SLACK = 1.08  # times an epoch as measured: what is cut off is lost to the comparison
CLOSING = 20  # seconds to write snapshots and compare, or less where there is little time


class Failed(Exception):
    """An error after which nothing can be trained; the message is one line that says why."""


class Terminated(KeyboardInterrupt):
    """The signal to end that this process got and its runs did not."""


class Run:
    """A training script in a process of its own.

    Args:
        out (str): Its run directory; what it prints goes to ``out + '.log'``.
        options (list of str): For the script.
        environment (dict): Variables that it has in addition to this process's.
    """

    def __init__(self, method, seed, out, options, environment):
        self.name, self.out = f'{method}-{seed}', out
        with open(out + '.log', 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, f'train_{method}.py', '--seed', str(seed), '--out', out,
                 *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment})

    def entries(self):
        """The entries of Chainer's log so far, a list of dict."""
        try:
            with open(os.path.join(self.out, 'log')) as file:
                return json.load(file)
        except (OSError, ValueError):
            return []

    def check(self):
        """Whether the run goes on.

        Raises:
            Failed: If it has ended with an error.
        """
        status = self.process.poll()
        if status:
            with open(self.out + '.log') as log:
                lines = log.read().split('\n')
            raise Failed(one_line(f'{self.name} ended with status {status}: '
                                  + ([''] + [line for line in lines if line.strip()])[-1]))
        return status is None


@contextlib.contextmanager
def running(commands, grace=0):
    """Runs that go on side by side; those that have not ended in this context are ended.

    Args:
        commands (list of tuple): The arguments of each Run.
        grace (float): Seconds in which they may write a snapshot.
    """
    runs = []
    try:
        for command in commands:
            runs.append(Run(*command))
        yield runs
        interrupt(runs, grace)
    except Terminated:
        interrupt(runs, grace)
        raise
    except KeyboardInterrupt:  # which the runs have got too; a second one would end them at once
        wait(runs, grace)
        raise
    finally:
        for run in runs:
            run.process.kill()
            run.process.wait()


def interrupt(runs, grace):
    """Let runs write a snapshot, in so many seconds."""
    if grace:
        for run in runs:
            run.process.terminate()
        wait(runs, grace)


def wait(runs, seconds):
    """Wait until all runs have ended, or these seconds have passed."""
    end = time.monotonic() + seconds
    for run in runs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(max(0, end - time.monotonic()))


class Training:
    """The pairs of runs of one call: how many train at once, and for how many epochs.

    Attributes:
        paces (dict): By the number of pairs at once, seconds an epoch and seconds around a run.
        epochs (int): The number of epochs of each run.
        environment (dict): Variables that runs have in addition to this process's.
    """

    def __init__(self, args, options):
        self.args, self.options = args, options
        self.closing = min(CLOSING, args.seconds / 5)
        self.end = time.monotonic() + args.seconds - self.closing
        self.epochs = args.epoch or RECIPES[args.recipe]['epoch']
        self.paces = {}
        self.environment = {}
        self.runs, self.failed = [], False

    def left(self):
        return self.end - time.monotonic()

    def command(self, method, seed, folder):
        return method, seed, os.path.join(folder, f'{method}-{seed}'), [
            '--recipe', self.args.recipe, '--device', self.args.device,
            '--epoch', str(self.epochs), '--snapshot-every', '0', *self.options[method]
        ], self.environment

    def commands(self, seeds, folder):
        return [self.command(method, seed, folder) for seed in seeds for method in PAIR]

    def measure(self, n, seconds):
        """How long runs take with ``n`` pairs at once, measured for so many seconds at most.

        Returns:
            tuple: Seconds of an epoch, and of a run beside its epochs.

        Raises:
            Failed: If a run fails, or there is not even one epoch in that time.
        """
        # It is left where something fails.
        folder = os.path.join(self.args.out, f'measuring-{n}' + '-mps' * bool(self.environment))
        os.makedirs(folder)
        start = time.monotonic()
        with running(self.commands(self.args.seeds[:n], folder)) as runs:
            begun = None  # when each had an epoch behind it, and how many each had
            while time.monotonic() < start + seconds:
                logs = [run.entries() for run in runs]
                if begun is None and all(logs):
                    begun = time.monotonic(), [len(log) for log in logs]
                going_on = [run.check() for run in runs]
                if begun and all(is_enough(log, before, time.monotonic() - begun[0]) or not goes_on
                                 for log, before, goes_on in zip(logs, begun[1], going_on)):
                    break
                time.sleep(.1)
        if begun is None:
            raise Failed(f'no epoch of {pairs(n)} within {seconds:.0f} s')
        shutil.rmtree(folder)
        pace = max(map(seconds_an_epoch, logs, begun[1]))
        return pace, max(0, begun[0] - start - pace)

    def measure_all(self, shared=None):
        """Fill ``paces``, up to the number of pairs that pays off.

        Args:
            shared (dict): The environment by which runs use a GPU side by side, not in turns.
        """
        self.paces[1] = self.try_pace(1, FIRST)
        share = SHARE * self.args.seconds
        if shared and (self.fits(1, share) or not self.fits(1)):
            self.environment = shared
            pace = self.try_pace(1, SHARE, ', by MPS')
            if pace and pace[0] * GAIN < self.paces[1][0]:
                self.paces[1] = pace
            else:
                self.environment = {}
        for n in range(2, len(self.args.seeds) + 1):
            if not self.fits(n - 1, share):
                break  # n pairs would be no faster, or the time gone in which they could be
            pace = self.try_pace(n, SHARE)
            if not pace or n / pace[0] < GAIN * (n - 1) / self.paces[n - 1][0]:
                break
            self.paces[n] = pace

    def try_pace(self, n, share, how=''):
        """What :meth:`measure` finds in such a share of the time; None, with a line that says why,
        where it fails.  A single pair has to be measured once."""
        print(f'{pairs(n)} at once{how}: measuring an epoch', flush=True)
        try:
            pace = self.measure(n, share * self.args.seconds)
        except Failed as failure:
            if not self.paces:
                raise
            print(f'    {failure}', flush=True)
            return None
        print(f'    {pace[0]:.2f} s an epoch, {3600 * 2 * n / pace[0]:,.0f} epochs an hour',
              flush=True)
        return pace

    def fits(self, n, less=0):
        """Whether runs with ``n`` pairs at once fit into the time left, less some seconds."""
        return n in self.paces and self.epochs <= self.fitting(n, less)

    def fitting(self, n, less=0):
        """The number of epochs that fit into the time left, less some seconds."""
        pace, around = self.paces[n]
        return int((self.left() - less - around) / (SLACK * pace))

    def train_all(self):
        """Train as many pairs as fit, and one in any case."""
        seeds = list(self.args.seeds)
        if not self.fits(1):
            print(f'{self.epochs} epochs of one pair do not fit into {self.left():.0f} s',
                  flush=True)
            self.epochs = max(1, self.fitting(1))
            self.train(seeds[:1])
            return
        while seeds and any(map(self.fits, self.paces)):
            n = max(filter(self.fits, self.paces))
            self.train(seeds[:n])
            seeds = seeds[n:]

    def train(self, seeds):
        """Train the pairs of these seeds at once, to the end or till the time is up."""
        n, start = len(seeds), time.monotonic()
        pace, around = self.paces[min(m for m in self.paces if m >= n)]
        expected = datetime.timedelta(seconds=round(around + self.epochs * pace))
        print(f'{", ".join(f"seed {seed}" for seed in seeds)}: {self.epochs} epochs of both '
              f'methods, {pairs(n)} at once, about {expected}', flush=True)
        with running(self.commands(seeds, self.args.out), self.closing / 2) as runs:
            self.runs += runs
            said, failed = start, set()
            while len(failed) < len(runs) and self.left() > 0:
                going_on = False
                for run in set(runs) - failed:
                    try:
                        going_on |= run.check()
                    except Failed as failure:
                        print(f'    {failure}', flush=True)
                        failed.add(run)
                        self.failed = True
                if not going_on:
                    break
                if time.monotonic() > said + 30:
                    said = time.monotonic()
                    print(f'    {said - start:.0f} s: ' + ', '.join(
                        f'{run.name} {describe(run.entries())}' for run in runs), flush=True)
                time.sleep(.2)

    def summary(self):
        """The content of training.json, a dictionary."""
        epochs = {run.name: run_directory.finished(run.out) for run in self.runs}
        return {'epochs': self.epochs, 'recipe': self.args.recipe, 'options': self.options,
                'environment': self.environment,
                'seconds_an_epoch': {n: pace for n, (pace, _) in self.paces.items()},
                'finished': [name for name, done in epochs.items() if done >= self.epochs],
                'unfinished': {run.name: len(run.entries()) for run in self.runs
                               if epochs[run.name] < self.epochs}}


def pairs(n):
    return '1 pair' if n == 1 else f'{n} pairs'


def is_enough(log, before, seconds):
    """Whether a log, after entry ``before`` and these seconds, tells the length of an epoch.

    The epoch after that entry may have begun when not all runs were at work.
    """
    measured = len(log) - before - 1
    return measured >= EPOCHS or measured >= 1 and seconds >= ENOUGH


def seconds_an_epoch(log, before):
    """The mean of the epochs after the one that followed entry ``before``; else the last one's."""
    times = [0, *(entry['elapsed_time'] for entry in log)]
    if len(log) > before + 1:
        return (times[-1] - times[before + 1]) / (len(log) - before - 1)
    return times[-1] - times[-2]


def describe(log):
    if not log:
        return 'before its first epoch'
    return f'{len(log)} ({log[-1].get("validation/main/accuracy", float("nan")):.4f})'


def compare(runs, out):
    """Compare the pairs of which both runs are given, if there are any; gives an exit status."""
    seeds = [run.name.rsplit('-', 1)[1] for run in runs]
    whole = [run.out for run, seed in zip(runs, seeds) if seeds.count(seed) == len(PAIR)]
    if not whole:
        print('No pair is finished: there is nothing to compare', flush=True)
        return 0
    return subprocess.run([sys.executable, 'compare.py', *whole, '--out', out], cwd=ROOT).returncode


def parse_args(argv=None):
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('--device', required=True, metavar='ID|cpu', help='the number of a GPU')
    parser.add_argument('--seconds', type=RATE, required=True, metavar='S',
                        help='for the whole call')
    parser.add_argument('--recipe', choices=RECIPES, default='blog',
                        help='(default: %(default)s)')
    parser.add_argument('--epoch', type=COUNT, metavar='N',
                        help="of each run, if that fits (default: the recipe's)")
    add_options(parser)
    args, rest = parse(parser, argv)
    options = {method: options_for(method, args, rest) for method in PAIR}
    args.out = os.path.abspath(args.out)
    if os.path.exists(args.out):
        raise Invalid(f'--out: {args.out} exists; name a new folder')
    if len(set(args.seeds)) < len(args.seeds):
        raise Invalid('--seeds: given one twice')
    for command in Training(args, options).commands(args.seeds[:1], args.out):
        check(command)
    return args, options


def check(command):
    """Raise what a script would say of its options, before anything is begun."""
    method, seed, out, given, _ = command
    try:
        experiment.parse_args(
            None, method, ARCHITECTURES, ['--seed', str(seed), '--out', out, *given])
    except Invalid as error:
        raise Invalid(f'train_{method}.py: {error}') from None


def terminate(number, frame):
    raise Terminated


def main():
    args, options = parse_args()
    signal.signal(signal.SIGTERM, terminate)
    training, interrupted = Training(args, options), False
    os.makedirs(args.out)
    try:
        with mps.service(os.path.join(args.out, 'mps')) if args.device != 'cpu' else \
                contextlib.nullcontext() as shared:
            training.measure_all(shared)
            training.train_all()
    except KeyboardInterrupt:
        print('Interrupted', flush=True)
        interrupted = True
    except Failed as failure:
        print(failure, flush=True)
        training.failed = True
    if not training.runs:
        return 1 if training.failed else UNFINISHED
    summary = training.summary()
    write_json(os.path.join(args.out, 'training.json'), summary)
    status = compare(
        [run for run in training.runs if run.name in summary['finished']], args.out)
    for name, done in summary['unfinished'].items():
        print(f'Unfinished: {name}, {done} of {training.epochs} epochs', flush=True)
    if status or training.failed:
        return 1
    return UNFINISHED if interrupted or summary['unfinished'] else 0


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
