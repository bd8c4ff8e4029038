"""Processes that answer requests, and may fail or hang without harm to the one that asks."""
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

# This module imports the standard library alone: so does a worker, beside what it measures.

ENVIRONMENT = dict(os.environ)  # as the user has it: the engine, once imported, adds to it
UNFINISHED = 3  # exit status of a benchmark whose time was up before it had done everything
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Failure(Exception):
    """A worker gave no answer; the message is one line that says why."""


class Unsupported(Exception):
    """A worker was asked for what it is not meant to do; the message says why."""


class TimeOut(Failure):
    """A worker gave no answer in time."""


class Worker:
    """A fresh interpreter that runs ``code``, of which the end is a call of :func:`serve`.

    Args:
        environment (dict): What it has in its environment beside the user's.
        log (path): Gets what it wrote to stderr, if it failed.
    """

    def __init__(self, code, environment=None, log=None):
        self.code, self.log = code, log
        self.stderr = tempfile.TemporaryFile('w+', errors='replace')
        self.read = b''
        self.process = subprocess.Popen(
            [sys.executable, '-c', code], cwd=ROOT, env={**ENVIRONMENT, **(environment or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
            process_group=0)  # with the processes that it starts it can be ended as one

    def ask(self, *request, limit):
        """The answer to a request, a list of JSON's values.

        Raises:
            Unsupported: If that is the answer.
            Failure: If there was none within ``limit`` seconds, the worker ended or reports an
                error.  It has been ended then.
        """
        self.send(*request)
        return self.receive(limit)

    def send(self, *request):
        with contextlib.suppress(BrokenPipeError):  # receive says why
            os.write(self.process.stdin.fileno(), json.dumps(request).encode() + b'\n')

    def receive(self, limit):
        try:
            answer = json.loads(self.line(limit))
            if 'result' not in answer:
                raise {'unsupported': Unsupported}.get(answer['kind'], Failure)(answer['reason'])
            return answer['result']
        except Exception as error:
            self.close(failed=isinstance(error, Failure))
            raise

    def line(self, limit):
        end = time.monotonic() + limit
        while b'\n' not in self.read:
            ready, _, _ = select.select([self.process.stdout], [], [],
                                        max(0, end - time.monotonic()))
            if not ready:
                raise TimeOut(f'no result within {limit:.0f} s')
            block = os.read(self.process.stdout.fileno(), 2 ** 16)
            if not block:
                raise Failure(self.last_words())
            self.read += block
        line, self.read = self.read.split(b'\n', 1)
        return line

    def last_words(self):
        status = self.process.wait()
        if status < 0:
            with contextlib.suppress(ValueError):
                return f'ended by {signal.Signals(-status).name}'
        self.stderr.seek(0)
        lines = self.stderr.read().split('\n')
        return one_line(f'ended with status {status}: ' + ([''] + [s for s in lines if s])[-1])

    def close(self, failed=False):
        """End the worker and all that it started, and wait until its memory is free."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if failed and self.log:
            self.stderr.seek(0)
            with open(self.log, 'a') as file:
                file.write(f'{self.code}\n{self.stderr.read()}\n')
        for file in self.process.stdin, self.process.stdout, self.stderr:
            file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# In a worker

def serve(make):
    """Answer each line of stdin, ``[method, *arguments]`` of ``make()``, until there is no more."""
    if sys.platform == 'linux':  # end with the process that asks, however it ends
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # Whatever else writes to stdout, C libraries and compilers too, keeps out of the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)
    try:
        served = make()
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            answer(result=getattr(served, method)(*arguments))
    except Unsupported as error:
        answer(kind='unsupported', reason=one_line(error))
    except BaseException as error:
        # A traceback holds the arrays of its frames, so the words are all that is kept.
        answer(kind='failed', reason=one_line(f'{type(error).__name__}: {error}'))
        raise


def one_line(text, length=240):
    text = ' '.join(str(text).split())
    return text if len(text) <= length else f'{text[:length - 1]}…'
