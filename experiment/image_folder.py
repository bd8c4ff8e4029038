"""Folders of images, ``FOLDER/CLASS/IMAGE``, as arrays.

A file counts if its name ends like one of a format that Pillow decodes; any other is named.
Folders below a class belong to it.  Links are followed; what is hidden is passed over.
"""
import collections
import dataclasses
import functools
import itertools
import os
import unicodedata
import warnings
from pathlib import Path

import chainer
import numpy as np
import tqdm
from chainercv.transforms import resize
from PIL import Image, ImageOps, UnidentifiedImageError

from experiment import memory
from experiment.errors import Invalid, listed, plain
from experiment.labeled_images import LabeledImages

WANTED = 'train/CLASS/IMAGE and test/CLASS/IMAGE'
# Pillow would run Ghostscript for EPS, and only recognises the others.
NOT_DECODED = {'EPS', 'WMF', 'MPEG', 'BUFR', 'GRIB', 'HDF5'}
# What macOS, Windows, Linux and Synology's disks put into any folder; names with a dot too.
SYSTEM = {'__MACOSX', 'Thumbs.db', 'desktop.ini', '$RECYCLE.BIN', 'System Volume Information',
          'lost+found', '@eaDir'}
ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 2 to 8 are not
BITS_PER_SAMPLE = 258  # TIFF's tag


@dataclasses.dataclass
class Split:
    """What lies in one folder of classes.

    Attributes:
        root: its path.
        folders: the classes' folders by name, sorted; names are in Unicode's composed form, NFC.
        pictures: (path, label) of each image file.
        outside: paths of the files that lie in no class.
        others: paths of those that are no images by their names.
    """

    root: str
    folders: dict
    pictures: list
    outside: list
    others: list


def load_folders(paths, size, like=None):
    """Read folders of images that have the same classes.

    Classes are numbered in the order of their sorted names.  Images are turned as their EXIF
    says, become RGB with 8 bits (transparency is ignored; of 16 bits the upper 8 stay), and are
    resized to ``size`` x ``size`` without regard to their proportions.  Of several frames the
    first is read.

    Args:
        paths (list of str): the folders.
        size (int): height and width in pixels.
        like (dict): ``{name of a set: its classes}``, which the folders must have too.

    Returns:
        A tuple of a :class:`LabeledImages` for each folder.

    Raises:
        Invalid: a folder is laid out in another way, an image cannot be read, or all of them
            do not fit into the memory; the message names the files.
    """
    splits = [find(path) for path in paths]
    first = splits[0]
    if not like and len(first.folders) < 2:
        raise Invalid(f'class folders in {first.root}: {len(first.folders)} (files beside them: '
                      f'{len(first.outside)}), at least 2 are needed: {os.path.dirname(first.root)}'
                      f' must hold {WANTED}')
    check_classes({**(like or {}), **{split.root: split.folders for split in splits}})
    n = sum(len(split.pictures) for split in splits)
    need, free = n * 3 * size ** 2, memory.available()
    if free is not None and need > free:
        raise Invalid(f'--size: given {size}: {n} images of {size} x {size} pixels take '
                      f'{memory.amount(need)} of memory, and {memory.amount(free)} are free; take '
                      'a smaller --size or fewer images')
    for split in splits:
        for why, files in ('in no class', split.outside), ('not named like images', split.others):
            if files:
                shown = listed(os.path.relpath(path, split.root) for path in files)
                print(f'Left out of {plain(split.root)}, {why}: {shown}', flush=True)
    return tuple(read(split, size) for split in splits)


# Which files

def check_classes(sets):
    """Raise Invalid unless all sets, ``{name: its classes}``, have the same classes."""
    for (here, those), (there, these) in itertools.permutations(sets.items(), 2):
        if odd := sorted(set(those) - set(these)):
            raise Invalid(f'the class {odd[0]!r} is in {here} but not in {there}, which has '
                          f'{listed(map(repr, these)) or "none"}: both must hold the same classes')


def find(path):
    """Look for the classes and the files of a folder; see :class:`Split`."""
    if not os.path.isdir(path):
        root = os.path.dirname(path)
        there = [entry.name for entry in entries(root) if entry.is_dir()]
        raise Invalid(f'there is no folder {path}: {root} must hold {WANTED}; its folders: '
                      f'{listed(there) or "none"}')
    split = Split(path, {}, [], [], [])
    for entry in entries(path):
        if not entry.is_dir():
            split.outside.append(entry.path)
            continue
        name = composed(entry.name)
        if name in split.folders:
            raise Invalid(f'{entry.path!a} and {split.folders[name]!a} are two spellings of one '
                          'name: put their files into one folder')
        split.folders[name] = entry.path
    real = Path(path).resolve()
    for label, folder in enumerate(split.folders.values()):
        pictures, others = [], []
        for file in files_below(folder, {real, *real.parents}):
            (pictures if is_picture(file) else others).append(file)
        if not pictures:
            raise Invalid(f'{folder} holds no image, but every class needs one; it holds '
                          f'{listed(os.path.relpath(file, folder) for file in others) or "none"} '
                          '(images are named .jpg, .png or as any other format of Pillow)')
        split.pictures += [(file, label) for file in pictures]
        split.others += others
    return split


def files_below(folder, above):
    """Yield the paths of all files below a folder, by name; links are followed.

    Args:
        folder (str): Its path.
        above (set of Path): The folders that it lies in, by their real paths.
    """
    real = Path(folder).resolve()
    if real in above:
        raise Invalid(f'{folder} leads back to {real}, which it lies in: remove that link')
    for entry in entries(folder):
        if entry.is_dir():
            yield from files_below(entry.path, above | {real, *real.parents})
        else:
            yield entry.path


def entries(folder):
    """Return what lies in a folder and is not hidden, sorted by name as any system would."""
    with os.scandir(folder) as found:
        shown = sorted((entry for entry in found
                        if not entry.name.startswith('.') and entry.name not in SYSTEM),
                       key=lambda entry: composed(entry.name))
    for entry in shown:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise Invalid(f'{entry.path} is a link that leads nowhere: mend or remove it')
    return shown


def composed(name):
    """Return a name in Unicode's form NFC: macOS may write 'ü' as 'u' and a diaeresis."""
    return unicodedata.normalize('NFC', name)


def is_picture(path):
    return os.path.splitext(path)[1].lower() in suffixes()


@functools.cache
def formats():
    """Return the names of the formats that are decoded."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - NOT_DECODED))


@functools.cache
def suffixes():
    """Return how the names of these formats end, such as '.png', in lower case."""
    return {suffix for suffix, name in Image.registered_extensions().items()
            if name in formats() or name == 'MPO'}  # which JPEG's decoder opens


# What is in them

def read(split, size):
    """Read the files of a :class:`Split` into :class:`LabeledImages`."""
    images = np.empty((len(split.pictures), 3, size, size), np.uint8)
    labels = np.array([label for _, label in split.pictures], np.int32)
    seen = {'formats': collections.Counter(), 'modes': collections.Counter(),
            'turned_by_exif': 0, 'first_of_several_frames': 0,
            'left_out': len(split.outside + split.others)}
    unreadable = []
    # Pillow whether or not OpenCV is there: the two give different pixels.
    with chainer.using_config('cv_resize_backend', 'PIL'), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, on metadata and on large pictures
        for i, (path, _) in enumerate(
                tqdm.tqdm(split.pictures, desc=split.root, unit='image', disable=None)):
            try:
                image = read_image(path, seen)
            except MemoryError:
                raise
            except Exception as error:  # what a damaged file raises has no bounds
                unreadable.append(f'{path} ({reason(path, error)})')
                continue
            images[i] = np.rint(resize(image, (size, size)))
    if unreadable:
        raise Invalid(f'unreadable images, to be mended or removed: {listed(unreadable)}')
    print(f'{plain(split.root)}: {account(seen)}', flush=True)
    return LabeledImages(images, labels, tuple(split.folders), seen)


def read_image(path, seen):
    """Read one file as float32 ``(3, H, W)`` in [0, 255], and count in ``seen`` what it was."""
    if not os.path.isfile(path):
        raise ValueError('it is not a plain file')
    with Image.open(path, formats=formats()) as image:
        form, mode, depth = image.format, image.mode, bits(image)
        turned = image.getexif().get(ORIENTATION) in range(2, 9)
        several = getattr(image, 'is_animated', False)
        upright = ImageOps.exif_transpose(image)
    if depth > 8:  # Pillow would clip them
        upright = Image.fromarray((np.asarray(upright) >> (depth - 8)).astype(np.uint8))
    pixels = np.asarray(upright.convert('RGB'), np.float32)
    seen['formats'][form] += 1
    seen['modes'][mode] += 1
    seen['turned_by_exif'] += turned
    seen['first_of_several_frames'] += several
    return pixels.transpose(2, 0, 1)


def bits(image):
    """Return the bits of a channel, of which Pillow keeps more than 8 for one grey channel alone.

    Raises:
        ValueError: the image does not say which number is white.
    """
    scaled = image.mode == 'I' if image.format == 'PPM' else image.mode.startswith('I;16')
    if scaled and image.format != 'FITS':  # which has a scale of its own, unknown to Pillow
        return getattr(image, 'tag_v2', {}).get(BITS_PER_SAMPLE, (16,))[0]
    if image.mode[0] in 'IF':
        raise ValueError(f'{image.format} with pixels of mode {image.mode} does not say which '
                         'number is white: save it with 8 bits')
    return 8


def reason(path, error):
    """Return why a file could not be read, in words that stand beside its path."""
    if isinstance(error, OSError) and error.errno:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return 'no format that Pillow decodes' if os.path.getsize(path) else 'it is empty'
    if isinstance(error, Image.DecompressionBombError):
        return f'it has more than {2 * Image.MAX_IMAGE_PIXELS} pixels'
    return error


def account(seen):
    """One line on what was read: 'formats PNG 10, WEBP 2; modes RGB 11, I;16 1; …'."""
    parts = [f'{what} ' + ', '.join(f'{name} {n}' for name, n in sorted(seen[what].items()))
             for what in ('formats', 'modes')]
    if seen['turned_by_exif']:
        parts.append(f'{seen["turned_by_exif"]} turned as EXIF says')
    if seen['first_of_several_frames']:
        parts.append(f'first frame of {seen["first_of_several_frames"]} with several')
    return '; '.join(parts)
