"""npz files, which may come from anyone: nothing is unpickled, and what is wrong is said plainly.

Where NumPy's own reader cannot read a file, it advises to load it by pickle.
"""
import contextlib
import zipfile

import numpy as np


class BadNpz(ValueError):
    """What is wrong with an npz file: a clause in which the file is 'it'."""


class ObjectArray(BadNpz):
    """An array of Python objects, which only unpickling could read."""


@contextlib.contextmanager
def open_npz(path):
    """Open an npz file for a ``with`` block, which gets its :class:`Npz`.

    Raises:
        BadNpz: If it is another kind of file or cut off.
        OSError: If there is no such file or it cannot be read.
    """
    with open(path, 'rb') as file:
        start = file.read(4)
        try:
            npz = Npz(zipfile.ZipFile(file))
        except Exception:  # what a damaged directory of a zip raises has no bounds
            if not start:
                raise BadNpz('it is empty') from None
            is_zip = start == b'PK\x03\x04'
            raise BadNpz('it is cut off' if is_zip else 'it is not an npz file') from None
        if not npz.names:
            raise BadNpz('it is not an npz file: there are no arrays in it')
        yield npz


class Npz:
    """The arrays of an npz file by name, each read when it is asked for.

    Attributes:
        names (set of str): Their names.

    Raises:
        KeyError: If there is no array of that name; its argument says so.
        BadNpz: If the array is damaged or, as an :class:`ObjectArray`, would have to be unpickled.
    """

    def __init__(self, archive):
        self.archive = archive
        self.names = {name[:-4] for name in archive.namelist() if name.endswith('.npy')}

    def __contains__(self, name):
        return name in self.names

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(f'there is no {name} in it')
        try:
            with self.archive.open(f'{name}.npy') as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:  # what a damaged array raises has no bounds
            if 'Object arrays' in str(error):
                raise ObjectArray(f'{name} in it holds Python objects, '
                                  'which are not loaded') from None
            raise BadNpz(f'{name} in it is damaged') from None
