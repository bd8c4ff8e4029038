"""Models and snapshots as Chainer's npz files: read without unpickling anything, and written."""
import functools
import zipfile

import chainer
import numpy as np
from chainer.training.extensions import snapshot_writers

from experiment.errors import Invalid

# Weights barely compress, and compressing takes longer than an epoch on a GPU.
save_npz = functools.partial(chainer.serializers.save_npz, compression=False)


def load_pretrained(path, network):
    """Fill ``network.backbone`` from the file of ``--pretrained``; None leaves it as it is.

    The file is Chainer's ResNet-50-model.npz, weights trained on ImageNet.  The classifier ``fc6``
    keeps its random weights, as in the blog post: ImageNet has other classes.

    Raises:
        Invalid: If the file is missing or does not fit.
    """
    if path is not None:
        if network.backbone is None:
            raise Invalid(f'--pretrained: given {path}, but there are no ImageNet weights for a '
                          f'{type(network).__name__}; leave the option out')
        load_npz(path, network.backbone, '--pretrained')


# Reading

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
    """Load an npz file as ``chainer.serializers.load_npz`` does, but unpickle nothing.

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
    """An array of a file has another shape than the parameter that it is for."""


def check_shapes(npz, link):
    """Raise ShapeMismatch where NumPy would silently broadcast an array into a larger one."""
    expected = chainer.serializers.DictionarySerializer()
    expected.save(link)
    for name, array in expected.target.items():
        stored = npz[name].shape
        if stored != array.shape:
            raise ShapeMismatch(f'{name} has shape {stored} in the file, {array.shape} here')


# Writing

def snapshot_writer(model):
    """Return the snapshot writer: a thread on a GPU, which goes on computing, else a plain one.

    On a CPU training changes the arrays in place, so they are written before it goes on.
    """
    on_gpu = isinstance(model.device, chainer.backend.GpuDevice)
    return (BackgroundWriter if on_gpu else snapshot_writers.SimpleWriter)(save_npz)


class BackgroundWriter(snapshot_writers.ThreadWriter):
    """Chainer's ThreadWriter, with errors kept: the next call raises what went wrong.

    What is to be written has been copied from the GPU before the call returns.
    """

    error = None

    def save(self, *args, **kwargs):
        """Write one file, in the thread."""
        try:
            super().save(*args, **kwargs)
        except Exception as error:
            self.error = error

    def __call__(self, filename, outdir, target):
        self.wait()
        super().__call__(filename, outdir, target)

    def wait(self):
        """Wait for the file that is being written; raise the error if there was one."""
        if self._started:
            self._worker.join()
        error, self.error = self.error, None
        if error:
            raise error

    def finalize(self):
        self.wait()
