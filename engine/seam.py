"""Where the engine takes the place of what Chainer computes."""
import contextlib
import functools

from engine.cpu.threads import BLAS

REPLACEMENTS = []  # (class or module of Chainer's, name in it, Chainer's function, ours)


def replaces(owner, *names):
    """Decorator: while the engine is on, ``owner.name(...)`` is ``function(stock, ...)``.

    ``stock`` is Chainer's own, to which a function hands on what it does not do itself.
    """
    def register(function):
        for name in names:
            stock = getattr(owner, name)
            REPLACEMENTS.append((owner, name, stock, with_stock(function, stock)))
        return function
    return register


def with_stock(function, stock):
    @functools.wraps(stock)
    def replacement(*args, **kwargs):
        return function(stock, *args, **kwargs)
    return replacement


def switch(on):
    """Put all of the engine in place, or all of Chainer back."""
    (BLAS.restrict if on else BLAS.restore)()
    for owner, name, stock, replacement in REPLACEMENTS:
        setattr(owner, name, replacement if on else stock)


@contextlib.contextmanager
def replaced():
    """The engine is on inside a ``with`` block, and off after it."""
    switch(True)
    try:
        yield
    finally:
        switch(False)
