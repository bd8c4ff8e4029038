"""Models and snapshots as Chainer's npz files: read without unpickling anything, and written."""
import contextlib
import functools
import os

import chainer
import numpy as np
from chainer.training.extensions import snapshot_writers

from experiment.atomic_file import new_file
from experiment.errors import Invalid
from experiment.npz import BadNpz, ObjectArray, open_npz

# Weights barely compress, and compressing takes longer than an epoch on a GPU.
save_npz = functools.partial(chainer.serializers.save_npz, compression=False)

# What the file of --pretrained may be
PRETRAINED = ('; valid: the model.npz of a run with the same --arch and --stem, or for resnet50 '
              "Chainer's ResNet-50-model.npz, which is made of a .caffemodel as "
              'install/README.md#imagenet-weights says')


def load_pretrained(path, network):
    """Fill a network from the file of ``--pretrained`` and say with what; None leaves it as it is.

    The file is one of two: Chainer's ResNet-50-model.npz, weights trained on ImageNet, which fill
    ``network.backbone``; or a model.npz or model_best.npz of a run, which fills all of a network.
    The classifier, the link whose name begins with ``fc``, keeps its random weights where the file
    is of other classes, as ImageNet's is.

    Raises:
        Invalid: If the file is missing, is of neither kind, or does not fit.
    """
    if path is None:
        return
    with reading(path, '--pretrained', PRETRAINED), open_npz(path) as npz:
        if any(name.startswith('updater/') for name in npz.names):
            raise BadNpz('it is a snapshot of a run, which only --resume takes')
        prefix = backbone_prefix(network)
        if prefix and not any(name.startswith(prefix) for name in npz.names):
            fill(network.backbone, npz)
            described = "weights in Chainer's layout; the classifier starts from random weights"
        elif wrong := wrong_classifier(network, npz):
            for part in network.children():
                if not is_classifier(part.name):
                    fill(part, npz, f'{part.name}/')
            described = f'a model of a run; the classifier starts from random weights: {wrong}'
        else:
            fill(network, npz)
            described = 'a model of a run; the classifier starts from its weights too'
    print(f'Initial weights: {path}, {described}', flush=True)


def backbone_prefix(network):
    """Return what the names of the backbone's arrays begin with, such as 'base/'."""
    for path, link in network.namedlinks():
        if link is network.backbone:
            return f'{path}/'.lstrip('/')
    return ''


def is_classifier(name):
    """Whether a link of a network or an array in it, by its name, is of the classifier."""
    return name.startswith('fc')


def wrong_classifier(network, npz):
    """Return where the shape of an array of the classifier differs, or None if none does."""
    for name, what in misfits(network, npz).items():
        if name in npz and is_classifier(name):
            return what
    return None


# Reading

def load_npz(path, target, what):
    """Load an npz file as ``chainer.serializers.load_npz`` does, but unpickle nothing.

    Args:
        path (str): The file.
        target: What is filled from it: a Link or a Trainer.  Parameters must agree in shape.
        what (str): What the file should be, for the messages.

    Raises:
        Unreadable: If the file is no npz file or a damaged one.
        Invalid: If the file is missing or does not fit ``target``.
    """
    with reading(path, what), open_npz(path) as npz:
        fill(target, npz)


class Unreadable(Invalid):
    """A file is no npz file, or a damaged one; another one may do."""


class Misfit(Exception):
    """An array of a file is missing, or has another shape than the parameter that it is for."""


@contextlib.contextmanager
def reading(path, what, valid=''):
    """Turn the errors of reading ``path`` into Invalid, whose message ends with what is valid."""
    try:
        yield
    except FileNotFoundError:
        raise Invalid(f'{what}: there is no file {path}{valid}') from None
    except (KeyError, Misfit) as error:
        raise Invalid(f'{what}: {path} does not fit this network: {error.args[0]}'
                      f'{valid}') from None
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise Unreadable(f'{what}: {path} cannot be read: {reason}{valid}') from None


def fill(target, npz, prefix=''):
    """Fill a Link or a Trainer with the arrays whose names begin with ``prefix``."""
    if isinstance(target, chainer.Link):
        for what in misfits(target, npz, prefix).values():
            raise Misfit(what)
    chainer.serializers.NpzDeserializer(PlainArrays(npz), prefix).load(target)


def misfits(link, npz, prefix=''):
    """Return for each array that does not fit a link, by its name, why: a sorted dictionary.

    NumPy would silently broadcast one into a larger parameter.
    """
    expected = chainer.serializers.DictionarySerializer(path=prefix)
    expected.save(link)
    found = {}
    for name, array in sorted(expected.target.items()):
        if name not in npz:
            found[name] = f'there is no {name} in it'
        elif array.dtype != object and npz[name].shape != array.shape:
            found[name] = (f'{name} has shape {npz[name].shape} in the file, '
                           f'{array.shape} here')
    return found


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
        except ObjectArray:
            return np.array(None)


# Writing

def snapshot_writer(model):
    """Return the snapshot writer: a thread on a GPU, which goes on computing, else a plain one.

    On a CPU training changes the arrays in place, so they are written before it goes on.
    """
    on_gpu = isinstance(model.device, chainer.backend.GpuDevice)
    return (BackgroundWriter if on_gpu else PlainWriter)(save_npz)


class PlainWriter(snapshot_writers.SimpleWriter):
    """Chainer's SimpleWriter, with temporary names of :mod:`experiment.atomic_file`."""

    def save(self, filename, outdir, target, savefun, **kwds):
        """Write one file, then do what follows a snapshot, such as removing older ones."""
        with new_file(os.path.join(outdir, filename)) as file:
            savefun(file, target, **kwds)
        self._post_save()


class BackgroundWriter(snapshot_writers.ThreadWriter):
    """Chainer's ThreadWriter, with errors kept: the next call raises what went wrong.

    What is to be written has been copied from the GPU before the call returns.
    """

    error = None

    def save(self, *args, **kwargs):
        """Write one file, in the thread."""
        try:
            PlainWriter.save(self, *args, **kwargs)
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
