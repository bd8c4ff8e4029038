"""The files in an archive or a folder, none of which is trusted.

An archive, which its first bytes tell and not its name, is a zip, or a tar that is plain or
compressed by gzip, bzip2 or xz.  It is read in memory; nothing is unpacked to a disk.
"""
import bz2
import functools
import gzip
import io
import lzma
import os
import posixpath
import stat
import tarfile
import typing
import zipfile

# How compressed files begin, and what reads them
COMPRESSED = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ\0': lzma.open}


class File(typing.NamedTuple):
    """A file that is in an archive or in a folder.

    Attributes:
        name: Its path there, with slashes.
        size: Its size in bytes, as the archive says: read no more than that.
        is_regular: Whether it is neither a link nor a device.
        open: A function that opens it, as binary.
    """

    name: str
    size: int
    is_regular: bool
    open: typing.Callable


def files_in(path, limit):
    """Yield each :class:`File`, to be read at once, in an archive or at any depth in a folder.

    Args:
        path (str): The archive or the folder.
        limit (int): Size in bytes that the archive, and the tar in it, may have.

    Raises:
        EOFError: If the archive is cut off.
        Exception: Others, of many kinds, if it is malformed.
    """
    if os.path.isdir(path):
        yield from files_in_folder(path)
        return
    content = uncompressed(path, limit)
    if not content:
        raise ValueError('it is empty')
    files_in_archive = files_in_zip if content.startswith(b'PK\x03\x04') else files_in_tar
    yield from files_in_archive(io.BytesIO(content))


def read_files(path, wanted, limit, read):
    """Read the files of some names, at any depth in an archive or a folder.

    Args:
        path (str): The archive or the folder.
        wanted (sequence of str): The names, without folders.
        limit (int): Size in bytes that the archive, and these files in all, may have.
        read (callable): What ``read(content, path in the archive)`` returns is kept.

    Returns:
        What was read, by name, and the names of all files; a file that is missing is in neither.

    Raises:
        ValueError: If a file is there twice, is no plain file, or the limit is exceeded.
        Exception: As :func:`files_in` and ``read``.
    """
    found, names, size = {}, set(), 0
    for file in files_in(path, limit):
        name = posixpath.basename(file.name)
        names.add(name)
        if name not in wanted:
            continue
        if name in found:
            raise ValueError(f'there is more than one {name} in it')
        size += file.size
        if not file.is_regular:
            raise ValueError(f'{file.name} is not a plain file')
        if size > limit:
            raise ValueError(f'unpacks to more than {limit} bytes')
        with file.open() as opened:
            found[name] = read(opened.read(file.size), file.name)
    return found, names


def uncompressed(path, limit):
    """Return the content of a file, decompressed where it is compressed."""
    with open(path, 'rb') as file:
        start = file.read(8)
    opener = next((COMPRESSED[key] for key in COMPRESSED if start.startswith(key)), open)
    with opener(path, 'rb') as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f'unpacks to more than {limit} bytes')
    return content


def files_in_folder(root):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            yield File(os.path.relpath(path, root), info.st_size, stat.S_ISREG(info.st_mode),
                       functools.partial(open, path, 'rb'))


def files_in_tar(file):
    try:
        opened = tarfile.open(fileobj=file, mode='r:')
    except tarfile.ReadError:
        raise ValueError('it is neither a tar nor a zip') from None
    with opened as tar:
        for info in tar:
            if not info.isdir():
                yield File(info.name, info.size, info.isreg(),
                           functools.partial(tar.extractfile, info))


def files_in_zip(file):
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:  # its directory is at its end
        raise EOFError from None
    for info in archive.infolist():
        # Others give more than they say before they are stopped.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f'{info.filename} is compressed by another method than deflate')
        if info.flag_bits & 1:
            raise ValueError(f'{info.filename} is encrypted')
        if not info.is_dir():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was made on Windows
            yield File(info.filename.replace('\\', '/'), info.file_size,
                       kind in (0, stat.S_IFREG), functools.partial(archive.open, info))
