"""Train pairs of runs, baseline and Manifold Mixup, within a given time, and compare them.

    python -m benchmarks.paired_training --device 0 --seconds 480 --seeds 0 1 2 --out runs/blog

Options that are not listed below go to both scripts, as with recipe.pairs; without any it is the
blog post's recipe.

First it is measured how many pairs should train at once: one more is added as long as all together
then get through more epochs in the same time.  Then as many pairs as fit are trained for the
recipe's number of epochs.  If not even one fits, one pair is trained for as many epochs as do; the
schedule of the learning rate spans these, for both methods alike.  A run that is cut off by the end
of the time leaves a snapshot and takes no part in the comparison; the exit status is then 3.
"""
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.workers import ROOT, UNFINISHED, one_line
from recipe import run_directory
from recipe.errors import Invalid, one_line_errors
from recipe.options import COUNT, LINE, RATE, RECIPES, Parser
from recipe.pairs import METHODS, add_options, parse

GAIN = 1.05  # times as many epochs in the same time, for which another pair is worth its place
SHARE = .15  # of the time for one measurement of that, at most
SLACK = 1.03  # times an epoch as measured
CLOSING = 20  # seconds to write snapshots and compare, or less where there is little time


class Failed(Exception):
    """A run has ended as it should not; the message is one line that says why."""


class Run:
    """A training script in a process of its own.

    Args:
        out (str): Its run directory; what it prints goes to ``out + '.log'``.
        options (list of str): For the script.
    """

    def __init__(self, method, seed, out, options):
        self.name, self.out = f'{method}-{seed}', out
        with open(out + '.log', 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, f'train_{method}.py', '--seed', str(seed), '--out', out,
                 *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def entries(self):
        """Chainer's log so far."""
        try:
            with open(os.path.join(self.out, 'log')) as file:
                return json.load(file)
        except (OSError, ValueError):
            return []

    def check(self):
        """Whether it goes on.

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
        for run in runs:
            if grace:
                run.process.terminate()
        wait(runs, grace)
    except KeyboardInterrupt:  # which the runs have got too; a second one would end them at once
        wait(runs, grace)
        raise
    finally:
        for run in runs:
            run.process.kill()
            run.process.wait()


def wait(runs, seconds):
    """Until all have ended, but no longer."""
    end = time.monotonic() + seconds
    for run in runs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(max(0, end - time.monotonic()))


class Training:
    """All that one call does.

    Attributes:
        paces (dict): By the number of pairs at once, seconds an epoch and seconds around a run.
        epochs (int): Of each run.
    """

    def __init__(self, args, options):
        self.args, self.options = args, options
        self.closing = min(CLOSING, args.seconds / 5)
        self.end = time.monotonic() + args.seconds - self.closing
        self.epochs = args.epoch or RECIPES[args.recipe]['epoch']
        self.paces = {}
        self.runs, self.failed = [], False

    def left(self):
        return self.end - time.monotonic()

    def command(self, method, seed, folder):
        return method, seed, os.path.join(folder, f'{method}-{seed}'), [
            '--recipe', self.args.recipe, '--device', self.args.device,
            '--epoch', str(self.epochs), '--snapshot-every', '0', *self.options[method]]

    def commands(self, seeds, folder):
        return [self.command(method, seed, folder) for seed in seeds for method in METHODS]

    def measure(self, n):
        """How long runs take with ``n`` pairs at once.

        Returns:
            tuple: Seconds of an epoch, and of a run beside its epochs; None if there was no time
            for an epoch.
        """
        end = time.monotonic() + SHARE * self.args.seconds
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, \
                running(self.commands(self.args.seeds[:n], folder)) as runs:
            first, begun = None, None  # when each had an epoch behind it, and how many that were
            while time.monotonic() < end:
                logs = [run.entries() for run in runs]
                if begun is None and all(logs):
                    first, begun = time.monotonic() - start, [len(log) for log in logs]
                # The epoch that was going on then may have begun when not all were at work.
                if begun and all(len(log) > 1 + before or not run.check()
                                 for run, log, before in zip(runs, logs, begun)):
                    break
                for run in runs:
                    run.check()
                time.sleep(.1)
        if not all(logs):
            return None
        pace = max(seconds_an_epoch(log, before) for log, before in
                   zip(logs, begun or [0] * len(logs)))
        return pace, max(0, (first or SHARE * self.args.seconds) - pace)

    def measure_all(self):
        """Fill ``paces``, up to the number of pairs that pays off."""
        for n in range(1, len(self.args.seeds) + 1):
            if n > 1 and not self.fits(n - 1):
                break  # one more would be no faster
            print(f'{pairs(n)} at once: measuring an epoch', flush=True)
            try:
                pace = self.measure(n)
            except Failed as failure:
                if n == 1:
                    raise
                print(f'    {failure}', flush=True)
                break
            if pace is None:
                print(f'    no epoch within {SHARE * self.args.seconds:.0f} s', flush=True)
                break
            print(f'    {pace[0]:.2f} s an epoch, {3600 * 2 * n / pace[0]:,.0f} epochs an hour',
                  flush=True)
            if n > 1 and n / pace[0] < GAIN * (n - 1) / self.paces[n - 1][0]:
                break
            self.paces[n] = pace

    def fits(self, n):
        return n in self.paces and self.epochs <= self.fitting(n)

    def fitting(self, n):
        """Epochs that fit into the time that is left, with ``n`` pairs at once."""
        pace, around = self.paces[n]
        return int((self.left() - around) / (SLACK * pace))

    def train_all(self):
        """Train as many pairs as fit, and one in any case."""
        seeds = list(self.args.seeds)
        if not self.fits(1):
            print(f'{self.epochs} epochs of one pair may not fit into {self.left():.0f} s',
                  flush=True)
            if 1 in self.paces:
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
        expected = ''
        if n in self.paces:
            pace, around = self.paces[n]
            expected = f', about {datetime.timedelta(seconds=round(around + self.epochs * pace))}'
        print(f'{", ".join(f"seed {seed}" for seed in seeds)}: {self.epochs} epochs of both '
              f'methods, {pairs(n)} at once{expected}', flush=True)
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
        """What goes into the file."""
        epochs = {run.name: run_directory.finished(run.out) for run in self.runs}
        return {'epochs': self.epochs, 'recipe': self.args.recipe, 'options': self.options,
                'seconds_an_epoch': {n: pace for n, (pace, _) in self.paces.items()},
                'finished': [name for name, done in epochs.items() if done >= self.epochs],
                'unfinished': {run.name: len(run.entries()) for run in self.runs
                               if epochs[run.name] < self.epochs}}


def pairs(n):
    return '1 pair' if n == 1 else f'{n} pairs'


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
    whole = [run.out for run, seed in zip(runs, seeds) if seeds.count(seed) == len(METHODS)]
    if not whole:
        print('No pair is finished: there is nothing to compare', flush=True)
        return 0
    return subprocess.run([sys.executable, 'compare.py', *whole, '--out', out], cwd=ROOT).returncode


def parse_args():
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=LINE)
    parser.add_argument('--device', required=True, metavar='ID|cpu', help='the number of a GPU')
    parser.add_argument('--seconds', type=RATE, required=True, metavar='S',
                        help='for the whole call')
    parser.add_argument('--recipe', choices=RECIPES, default='blog',
                        help='(default: %(default)s)')
    parser.add_argument('--epoch', type=COUNT, metavar='N',
                        help="of each run, if that fits (default: the recipe's)")
    add_options(parser)
    args, options = parse(parser)
    args.out = os.path.abspath(args.out)
    if os.path.exists(args.out):
        raise Invalid(f'--out: {args.out} exists; name a new folder')
    if len(set(args.seeds)) < len(args.seeds):
        raise Invalid('--seeds: given one twice')
    return args, options


def main():
    args, options = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    training = Training(args, options)
    os.makedirs(args.out)
    try:
        training.measure_all()
        training.train_all()
    except KeyboardInterrupt:
        print('Interrupted', flush=True)
    except Failed as failure:
        print(failure, flush=True)
        training.failed = True
    summary = training.summary()
    run_directory.write_json(os.path.join(args.out, 'training.json'), summary)
    status = compare(
        [run for run in training.runs if run.name in summary['finished']], args.out)
    for name, done in summary['unfinished'].items():
        print(f'Unfinished: {name}, {done} of {training.epochs} epochs', flush=True)
    if status or training.failed:
        return 1
    return UNFINISHED if summary['unfinished'] else 0


if __name__ == '__main__':
    with one_line_errors():
        raise SystemExit(main())
