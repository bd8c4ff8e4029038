"""Files that appear whole, and text on the terminal."""
import io
import signal
import sys
import tempfile
from pathlib import Path

from comparison.errors import Invalid


def write(out, contents):
    """Write {name: bytes} into `out`, each complete before it takes the place of an older one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out) as folder:
            for name, content in contents.items():
                Path(folder, name).write_bytes(content)
            for name in contents:
                Path(folder, name).replace(out / name)
    except OSError as error:
        raise Invalid(f'{out} cannot be written ({error.strerror}): give another --out') from None


def show(text):
    """Print a text whatever the terminal can show; end as the shell would where a pipe closes."""
    if sys.stdout is None:  # closed by `>&-`
        return
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):  # not in a notebook
            sys.stdout.reconfigure(errors='replace')  # a terminal that lacks '±' shows '?'
        print(text, flush=True)
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        raise Invalid(f'standard output cannot be written ({error.strerror}): the results are in '
                      'the files comparison.*, see --out') from None
