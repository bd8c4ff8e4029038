"""How several runs come along, by their logs: a block on a terminal, plain lines elsewhere."""
import datetime
import json
import math
import os
import shutil
import sys
import time

from experiment.errors import plain

EACH = {True: 1, False: 60}  # seconds between updates on a terminal, and elsewhere


def read_log(out):
    """The entries of the log of a run so far, a list of dict."""
    entries = read_json(os.path.join(out, 'log'), [])
    whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    return entries if whole else []


def read_epochs(out):
    """The number of epochs of the run in a directory; 0 where it is not known yet."""
    try:
        return int(read_json(os.path.join(out, 'run.json'), {})['options']['epoch'])
    except (LookupError, TypeError, ValueError):
        return 0


def read_json(path, default):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return default


class Display:
    """What is shown of the runs of a grid.

    On a terminal, a line for each run that goes on and one for all, each second anew.  Elsewhere,
    the same at most once a minute, and only after a new epoch.  The beginning and the end of a run
    have lines that stay.

    Args:
        runs (list of Run): All of them.
        left (list of Run): Those that are trained now.
        stream (file): Where it is shown; standard output where it is None.
        clock (callable): It gives the time in seconds.
    """

    def __init__(self, runs, left, stream=None, clock=time.monotonic):
        self.left, self.before, self.total = left, len(runs) - len(left), len(runs)
        self.stream, self.clock = stream or sys.stdout, clock
        self.terminal = self.stream.isatty()
        self.logs = {run.name: read_log(run.out) for run in left}
        # Of a run that goes on from a snapshot, the log is cut back to it with the next epoch.
        self.begun = {name: len(log) for name, log in self.logs.items()}
        self.said = dict(self.begun)
        self.epochs = 0
        self.start = self.clock()
        self.due = self.start + EACH[self.terminal]
        self.height = 0  # of the block that is on the terminal

    def begin(self, run):
        if self.terminal:
            self.draw()
        else:
            self.print(f'{run.name} {"goes on" if run.started else "begins"}')

    def end(self, run):
        self.read(run)
        end = run.state + f': {run.problem}' * (run.state == 'failed')
        self.erase()
        self.print(f'{self.line(run)}; {end}')
        if self.terminal:
            self.draw()
        else:
            self.print(self.summary())

    def update(self):
        """Show the state of the runs, if it is time."""
        if self.clock() < self.due:
            return
        running = [run for run in self.left if run.state == 'running']
        for run in running:
            self.read(run)
        if self.terminal:
            self.draw()
        else:
            new = [run for run in running if len(self.logs[run.name]) != self.said[run.name]]
            if not new:
                return  # and look again soon
            for run in new:
                self.said[run.name] = len(self.logs[run.name])
                self.print(self.line(run))
            self.print(self.summary())
        self.due = self.clock() + EACH[self.terminal]

    def close(self):
        """Leave the block without what was left to do in it."""
        self.erase()
        if self.terminal:
            self.print(self.summary())

    def read(self, run):
        log = self.logs[run.name] = read_log(run.out)
        self.begun[run.name] = min(self.begun[run.name], len(log))
        self.epochs = max(self.epochs, read_epochs(run.out))

    def line(self, run):
        """'baseline-0: epoch 3 of 10, validation accuracy 71.20 %'."""
        log = self.logs[run.name]
        text = f'{run.name}: epoch {len(log)} of {self.epochs or "?"}'
        accuracy = log[-1].get('validation/main/accuracy') if log else None
        known = isinstance(accuracy, (int, float))  # null where it was not finite
        return f'{text}, validation accuracy {100 * accuracy:.2f} %' if known else text

    def summary(self):
        """'2 of 6 runs finished; 27 epochs to go; 0:01:10 elapsed, about 0:02:05 left'."""
        states = [run.state for run in self.left]
        parts = [f'{self.before + states.count("finished")} of {self.total} runs finished'
                 + f', {states.count("failed")} failed' * ('failed' in states)]
        to_go = sum(max(0, self.epochs - len(self.logs[run.name])) for run in self.left
                    if run.state in ('waiting', 'running', 'interrupted'))
        done = sum(len(log) - self.begun[name] for name, log in self.logs.items())
        elapsed = self.clock() - self.start
        if self.epochs:
            parts.append(f'{to_go} epoch{"s" * (to_go != 1)} to go')
        parts.append(f'{duration(elapsed)} elapsed' + (
            f', about {duration(elapsed * to_go / done)} left' if done and to_go else ''))
        return '; '.join(parts)

    def draw(self):
        """Put the block in the place of the one before."""
        size = shutil.get_terminal_size()
        lines = [self.line(run) for run in self.left if run.state == 'running'] + [self.summary()]
        lines = [plain(line)[:size.columns - 1] for line in lines[-max(1, size.lines - 1):]]
        self.erase()
        self.print('\n'.join(lines))
        self.height = len(lines)

    def erase(self):
        if self.height:
            self.stream.write(f'\033[{self.height}A\033[J')
        self.height = 0

    def print(self, text):
        print(text, file=self.stream, flush=True)


def duration(seconds):
    return datetime.timedelta(seconds=math.ceil(seconds))
