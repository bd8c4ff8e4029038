"""Training runs in processes of their own, some at once."""
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time

from engine import environment
from experiment.errors import plain

INTERVAL = .1  # seconds between looks at the processes
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


class Run:
    """A run of a training script, in a directory of its own.

    Args:
        method (str): What is trained.
        seed (int): Its seed.
        out (str): Its directory; what the script prints is appended to ``output`` there.
        arguments (list of str): The script and its options beside seed and directory.

    Attributes:
        state (str): ``'waiting'``, ``'running'``, ``'finished'``, ``'interrupted'``, ``'failed'``.
        problem (str): Why it failed: the last line that it printed, and where the others are.
    """

    def __init__(self, method, seed, out, arguments):
        self.method, self.seed, self.out, self.arguments = method, seed, out, arguments
        self.name = f'{method}-{seed}'
        self.output = os.path.join(out, 'output')
        self.process, self.state, self.problem = None, 'waiting', None

    @property
    def started(self):
        return os.path.exists(os.path.join(self.out, 'run.json'))

    def command(self):
        """The command that begins the run, or goes on with it."""
        script, *options = self.arguments
        return [sys.executable, script, '--seed', str(self.seed), '--out', self.out, *options,
                *['--resume'] * self.started]

    def start(self, variables):
        """Start the process, with these environment variables in addition to this process's.

        A process group of its own keeps Ctrl-C on the terminal from it: :func:`train` passes on
        each signal, once.
        """
        os.makedirs(self.out, exist_ok=True)
        with open(self.output, 'ab') as output:
            self.begin = output.tell()
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **variables}, process_group=0,
                preexec_fn=functools.partial(end_with, os.getpid(), prctl()))
        self.state = 'running'

    def look(self, interrupted):
        """Find out whether the process has ended, and how."""
        status = self.process.poll()
        if status is None:
            return
        if status and interrupted:
            self.state = 'interrupted'
        elif status:
            self.state = 'failed'
            end = f'{signal.Signals(-status).name} ended it' if status < 0 else self.last_line()
            self.problem = f'{end} (see {plain(self.output)})'
        else:
            self.state = 'finished'

    def last_line(self):
        """The last line that the process printed, or its exit status."""
        with open(self.output, errors='replace') as output:
            output.seek(self.begin)
            lines = [line for line in output.read().splitlines() if line.strip()]
        return plain(lines[-1].strip()) if lines else f'exit status {self.process.returncode}'


def prctl():
    """The system's function of that name, where there is one."""
    return ctypes.CDLL(None).prctl if sys.platform == 'linux' else None


def end_with(parent, prctl):
    """Let the system end this process by SIGTERM when its parent has ended, in whatever way.

    It then saves a snapshot, so that nothing goes on unseen after a grid that was killed.
    """
    if prctl:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def share(jobs):
    """Environment variables by which each of so many processes gets its share of the cores."""
    if jobs == 1 or {'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'} & os.environ.keys():
        return {}
    return {'OPENBLAS_NUM_THREADS': str(max(1, environment.cores() // jobs))}


def train(runs, jobs, display):
    """Train runs, so many at once, until all have ended.

    Ctrl-C and SIGTERM are passed on, after which the runs save a snapshot and no other begins.

    Args:
        runs (list of Run): Those to train, in this order.
        jobs (int): How many at once.
        display (Display): What shows how they come along.

    Returns:
        int: The signal that ended it; None where there was none.
    """
    # Lines reach ``output`` as they are printed, so that the last one is that of an error.
    variables = {'PYTHONUNBUFFERED': '1', **share(jobs)}
    waiting, running, interrupted = list(runs), [], None
    with ended(running), received() as signals:
        while running or waiting and not interrupted:
            while waiting and len(running) < jobs and not interrupted:
                running.append(waiting.pop(0))
                running[-1].start(variables)
                display.begin(running[-1])
            time.sleep(INTERVAL)
            while signals:
                interrupted = signals.pop(0)
                for run in running:
                    run.process.send_signal(interrupted)
            for run in list(running):
                run.look(interrupted)
                if run.state != 'running':
                    running.remove(run)
                    display.end(run)
            display.update()
        display.close()
    return interrupted


@contextlib.contextmanager
def received():
    """A list of the signals to end that this process gets in the context, in place of its end."""
    signals = []
    previous = {number: signal.signal(number, lambda number, frame: signals.append(number))
                for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended(running):
    """End what is running, with a snapshot, if the context ends by an error."""
    try:
        yield
    finally:
        processes = [run.process for run in running if run.process]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
