"""Reading Chainer's npz files; nothing in them is ever unpickled."""
import zipfile

import chainer
import numpy as np

from experiment.errors import Invalid


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
        with open(path, 'rb') as file, np.load(file, allow_pickle=False) as npz:
            if isinstance(target, chainer.Link):
                check_shapes(npz, target)
            chainer.serializers.NpzDeserializer(PlainArrays(npz)).load(target)
    except FileNotFoundError:
        raise Invalid(f'{what}: there is no file {path}') from None
    except (KeyError, ShapeMismatch) as error:
        raise Invalid(f'{what}: {path} does not fit this network: {error.args[0]}') from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise Invalid(f'{what}: {path} cannot be read: {error}') from None


class ShapeMismatch(Exception):
    pass


def check_shapes(npz, link):
    """NumPy would broadcast a smaller array into a larger one without a word."""
    expected = chainer.serializers.DictionarySerializer()
    expected.save(link)
    for name, array in expected.target.items():
        stored = npz[name].shape
        if stored != array.shape:
            raise ShapeMismatch(f'{name} has shape {stored} in the file, {array.shape} here')
