"""The seam between the engine and Chainer: which functions of Chainer's it replaces, and when.

A replacement says only what the engine does.  For a case that it does not cover it returns
``NotImplemented``, before it has changed anything, and Chainer's own function is called with the
same arguments.
"""
import collections
import contextlib
import functools

from engine.cpu.threads import BLAS

Replacement = collections.namedtuple('Replacement', 'owner name stock ours')

REPLACEMENTS = []


def replaces(owner, *names):
    """Decorator: while the engine is on, the function is called in the place of ``owner.name``.

    Args:
        owner: A class or a module of Chainer's.
        names (str): Functions of it that take the arguments of the decorated one.
    """
    def register(function):
        def or_stock(stock, /, *args, **kwargs):
            result = function(*args, **kwargs)
            return stock(*args, **kwargs) if result is NotImplemented else result
        wraps_stock(owner, *names)(or_stock)
        return function
    return register


def wraps_stock(owner, *names):
    """Decorator: like :func:`replaces`, for a function that does something around Chainer's own.

    It is handed Chainer's own as its first argument, ``stock``, and calls it itself.
    """
    def register(function):
        for name in names:
            stock = getattr(owner, name)
            REPLACEMENTS.append(Replacement(owner, name, stock, with_stock(function, stock)))
        return function
    return register


def with_stock(function, stock):
    @functools.wraps(stock)
    def ours(*args, **kwargs):
        return function(stock, *args, **kwargs)
    return ours


def switch(on):
    """Turn the engine on or off: put all of its replacements in place, or all of Chainer back."""
    (BLAS.restrict if on else BLAS.restore)()
    for owner, name, stock, ours in REPLACEMENTS:
        setattr(owner, name, ours if on else stock)


@contextlib.contextmanager
def replaced():
    """Context manager: the engine is on inside the ``with`` block, and off after it."""
    switch(True)
    try:
        yield
    finally:
        switch(False)
