"""Errors in what a user gives, reported in one line with exit status 2."""
import contextlib
import os
import signal
import sys


class Invalid(ValueError):
    """Something given from outside cannot be used.

    The message is a sentence or two: what was given, what is valid, what to do.
    """


@contextlib.contextmanager
def one_line_errors():
    """Turn :class:`Invalid` into one line on stderr and exit status 2; Ctrl-C ends in silence."""
    try:
        yield
    except Invalid as error:
        message = ' '.join(str(error).split())
        print(f'{os.path.basename(sys.argv[0])}: error: {message}', file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
