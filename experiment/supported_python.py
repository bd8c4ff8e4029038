"""Refuses a Python that is not supported, in one line with exit status 2.

Imported first, and run as a program by make and by the build of Chainer, so that an older Python
says this and not what it stumbles over. Hence it is written for any Python.
"""
import sys

OLDEST, NEWEST = (3, 11), (3, 15)

if not OLDEST <= sys.version_info[:2] <= NEWEST:
    sys.stderr.write(
        'Python {}.{} is not supported; valid: {}.{} to {}.{}; make VENV=python3.13 makes .venv '
        'with another Python\n'.format(*sys.version_info[:2] + OLDEST + NEWEST))
    raise SystemExit(2)
