"""Reading Chainer's npz files; nothing in them is ever unpickled."""
import zipfile

import chainer
import numpy as np

from recipe.errors import Invalid


class PlainArrays:
    """The arrays of an npz file by name, as Chainer's deserializer looks them up.

    Chainer writes None as an object array, the one thing it pickles.  Every object array
    therefore reads as None here.
    """

    def __init__(self, npz):
        self.npz = npz

    def __contains__(self, name):
        return name in self.npz

    def __getitem__(self, name):
        try:
            return self.npz[name]
        except ValueError:  # NumPy's refusal to unpickle
            return np.array(None)


def load_npz(path, target, what):
    """``chainer.serializers.load_npz`` without its unpickling.

    Args:
        path (str): The file.
        target: What is filled from it: a Link or a Trainer.  Parameters must agree in shape.
        what (str): What the file should be, for the messages.

    Raises:
        Invalid: If the file is missing, is no npz file, or does not fit ``target``.
    """
    try:
        with np.load(path, allow_pickle=False) as npz:
            if isinstance(target, chainer.Link):
                check_shapes(npz, target)
            chainer.serializers.NpzDeserializer(PlainArrays(npz)).load(target)
    except FileNotFoundError:
        raise Invalid(f'{what}: there is no file {path}') from None
    except KeyError as error:
        raise Invalid(f'{what}: {path} does not fit: {error.args[0]}') from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid(f'{what}: {path} cannot be read: {error}') from None


def check_shapes(npz, link):
    for name, parameter in link.namedparams():
        stored = npz[name.lstrip('/')].shape
        if stored != parameter.shape:
            raise Invalid(f'{name} has shape {stored} in the file, {parameter.shape} here')
