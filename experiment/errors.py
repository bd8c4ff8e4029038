"""What a user can mend, and what the system refuses: one line on stderr, exit status 2."""
import atexit
import contextlib
import errno
import io
import os
import signal
import sys

from experiment.atomic_file import exit_on_sigterm

REMEDIES = {
    errno.ENOSPC: 'free some space', errno.EDQUOT: 'free some space or ask for more',
    errno.EFBIG: 'name a directory where files may be larger',
    errno.EROFS: 'name a directory that can be written', errno.EACCES: 'change its permissions',
    errno.EPERM: 'change its permissions', errno.EMFILE: 'raise the limit, ulimit -n'}

# What has to be undone at the end, whatever ends the program.
AT_END = contextlib.ExitStack()
atexit.register(AT_END.close)


class Invalid(ValueError):
    """Something given from outside cannot be used.

    The message is a sentence or two: what was given, what is valid, what to do.
    """


@contextlib.contextmanager
def one_line_errors():
    """Turn :class:`Invalid` and what the system refuses into one line and exit status 2.

    Ctrl-C, SIGTERM and a reader that closed its end of the pipe end in silence, with the status
    that shells give them.  What a terminal cannot show is printed as ``?``.
    """
    sys.stdout = sys.stdout or open(os.devnull, 'w')  # None where it is closed, as by >&-
    sys.stderr = sys.stderr or sys.stdout
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook, which shows everything
        sys.stdout.reconfigure(errors='replace')
    try:
        with exit_on_sigterm():
            yield
    except Invalid as error:
        fail(error)
    except MemoryError as error:
        said = f' ({error})' if str(error) else ''
        fail(f'memory ran out{said}: take a smaller --batchsize or --size')
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno is None:
            raise
        remedy = REMEDIES.get(error.errno, 'put that right')
        fail(f'{error.filename or "the system"}: {error.strerror}; {remedy}, then run it again (a '
             'training script with --resume, if its run had begun)')
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        AT_END.close()


def fail(message):
    """Print the line and end the program with status 2."""
    print(f'{os.path.basename(sys.argv[0])}: error: {plain(" ".join(str(message).split()))}',
          file=sys.stderr)
    raise SystemExit(2) from None


def listed(names, most=10):
    """'a, b, c', or with a count in place of what comes after the first ten."""
    names = list(names)
    more = len(names) - most
    return plain(', '.join(names[:most])) + (f' and {more} more' if more > 0 else '')


def plain(text):
    """A text with ``?`` for each character that would control the terminal or break the line."""
    return ''.join(letter if letter.isprintable() else '?' for letter in text)
