"""SVHN from MAT-files as SciPy writes them; checksums of theirs stand for the official ones."""
import hashlib
import io
import os
import tarfile
import zipfile

import chainer
import numpy as np
import pytest
import scipy.io

from experiment import dataset, svhn
from experiment.errors import Invalid

RANDOM = np.random.RandomState(0)
TRAIN, TEST = svhn.FILES


def arrays(n, **changed):
    """X and y of n images, of all ten labels."""
    return {'X': RANDOM.randint(0, 256, (32, 32, 3, n)).astype(np.uint8),
            'y': (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None], **changed}


def mat(values, **how):
    file = io.BytesIO()
    scipy.io.savemat(file, values, **how)
    return file.getvalue()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes both files into a folder; they count as official."""
    def write(train, test=None, name=str):
        folder = tmp_path / 'svhn'
        for file, content in (TRAIN, train), (TEST, mat(arrays(10)) if test is None else test):
            path = folder / name(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            monkeypatch.setitem(svhn.FILES, file, hashlib.md5(content).hexdigest())
        return folder
    return write


def files(folder):
    return [(str(path.relative_to(folder)), path) for path in folder.rglob('*') if path.is_file()]


def packed(folder, how):
    """The path of a folder, or of an archive of the files in it."""
    path = folder.parent / 'archive'
    if how == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
            for name, member in files(folder):
                file.write(member, name)
    elif how != 'folder':
        with tarfile.open(path, how) as file:
            for name, member in files(folder):
                file.add(member, name)
    return str(folder if how == 'folder' else path)


def assert_loaded(images, values):
    n = values['X'].shape[3]
    assert images.images.shape == (n, 3, 32, 32) and images.images.flags.c_contiguous
    assert images.images.dtype == np.uint8 and images.labels.dtype == np.int32
    for i, label in enumerate(values['y'].ravel()):
        for channel in range(3):
            np.testing.assert_array_equal(
                images.images[i, channel], values['X'][:, :, channel, i])
        assert images.classes[images.labels[i]] == str(int(label))[-1]  # '10' is '0'


def test_the_official_checksums_are_the_published_ones():
    assert svhn.FILES == {'train_32x32.mat': 'e26dedcc434d2e4c54c9b2d4a06d8373',
                          'test_32x32.mat': 'eb5a983be6a315427106f1b164d9cef3'}


@pytest.mark.parametrize('kind', [np.uint8, np.float64])
@pytest.mark.parametrize('compressed', [False, True])
def test_rows_columns_channels_and_labels_are_where_they_belong(write, kind, compressed):
    train, test = arrays(23), arrays(11)
    train['y'] = train['y'].astype(kind)
    folder = write(mat(train, do_compression=compressed), mat(test))
    loaded = dataset.load('svhn', str(folder))
    for images, values in zip(loaded, (train, test)):
        assert_loaded(images, values)
    assert loaded[0].classes == tuple('0123456789')
    assert loaded[0].labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize('how', ['folder', 'w:', 'w:gz', 'zip'])
@pytest.mark.parametrize('below', ['', 'svhn/'])
def test_both_files_are_found_in_a_folder_or_an_archive(write, capsys, how, below):
    values = arrays(12)
    path = packed(write(mat(values), name=lambda name: below + name), how)
    assert_loaded(dataset.load('svhn', path)[0], values)
    assert capsys.readouterr().err == ''


def test_images_and_labels_are_those_that_chainer_makes(write):
    values = arrays(12)
    train, _ = dataset.load('svhn', str(write(mat(values))))
    images, labels = chainer.datasets.svhn._preprocess_svhn(
        {'x': values['X'], 'y': values['y']}, True, 255., np.float32, np.int32)._datasets
    np.testing.assert_array_equal(train.images, np.rint(images))
    np.testing.assert_array_equal(train.labels, labels)


# The download

def test_the_first_use_downloads_to_where_chainer_looks(root, write, serve):
    values = arrays(12)
    contents = {TRAIN: mat(values), TEST: mat(arrays(10))}
    write(*contents.values())
    serve(served := dict(contents))
    assert_loaded(dataset.load('svhn')[0], values)
    served.clear()
    assert_loaded(dataset.load('svhn')[0], values)  # from the cache
    for name, content in contents.items():
        with open(chainer.dataset.cached_download(svhn.URL + name), 'rb') as file:
            assert file.read() == content


def test_a_download_of_another_checksum_leaves_nothing_behind(root, serve):
    serve(mat(arrays(10)))
    with pytest.raises(Invalid, match='gave is not the official train_32x32.mat .its md5 is .*, '
                                      'not e26d.*: try again, .* --data-archive PATH'):
        dataset.load('svhn')
    assert [path for path in root.rglob('*') if path.is_file()] == []


def test_what_chainer_downloaded_is_verified_before_it_is_read(root, serve):
    path = root / '_dl_cache' / hashlib.md5((svhn.URL + TRAIN).encode()).hexdigest()
    path.parent.mkdir(parents=True)
    path.write_bytes(mat(arrays(10))[:-9])
    with pytest.raises(Invalid, match=f'{path}.*not the official train_32x32.mat.*delete it'):
        dataset.load('svhn')


# What is refused; SciPy does not see it

@pytest.fixture
def refused(monkeypatch):
    """A function that asserts that a path is refused, and why."""
    monkeypatch.setattr(scipy.io, 'loadmat', None)

    def refused(path, why):
        with pytest.raises(Invalid, match=why) as error:
            dataset.load('svhn', str(path))
        assert str(error.value).startswith(f'{path} cannot be read as SVHN (')
        assert f'from {svhn.URL}, and give their folder with --data-archive' in str(error.value)
    return refused


@pytest.mark.parametrize('change', [
    lambda content: content[:-9], lambda content: b'', lambda content: b'<html>404</html>',
    lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:]])
def test_another_file_than_the_official_one_is_refused(write, refused, change):
    folder = write(mat(arrays(10)))
    path = folder / TEST
    path.write_bytes(change(path.read_bytes()))
    refused(folder, f'{TEST} is not the official one: its md5 is .*, not {svhn.FILES[TEST]}')


def test_files_that_are_larger_than_allowed_are_refused(write, refused, monkeypatch):
    folder = write(mat(arrays(20)))
    monkeypatch.setattr(svhn, 'LIMIT', 90000)
    refused(folder, 'more than 90000 bytes')


def test_a_missing_file_and_a_missing_folder_are_named(write, refused):
    folder = write(mat(arrays(10)))
    os.remove(folder / TEST)
    refused(folder, 'there is no test_32x32.mat in it')
    refused(folder / 'none', 'there is no such folder or file')
    refused('/dev/zero', 'there is no such folder or file')
    refused(folder / TRAIN, 'it is neither a tar nor a zip')


def test_a_truncated_archive_is_named_as_such(write, refused):
    path = packed(write(mat(arrays(10))), 'w:gz')
    os.truncate(path, 9000)
    refused(path, 'it is truncated')
