"""SVHN from MAT-files as SciPy writes them, and everything that can be wrong with them."""
import hashlib
import io
import os
import tarfile
import zipfile

import chainer
import numpy as np
import pytest
import scipy.io
import scipy.sparse

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


def write(folder, train, test=None, name=str):
    folder.mkdir(exist_ok=True)
    for file, content in (TRAIN, train), (TEST, mat(arrays(10)) if test is None else test):
        path = folder / name(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


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


def make_official(monkeypatch, contents):
    for name, content in contents.items():
        monkeypatch.setitem(svhn.FILES, name, hashlib.md5(content).hexdigest())


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


@pytest.mark.parametrize('kind', [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize('compressed', [False, True])
def test_rows_columns_channels_and_labels_are_where_they_belong(tmp_path, kind, compressed):
    train, test = arrays(23), arrays(11)
    train['y'] = train['y'].astype(kind)
    folder = write(tmp_path / 'svhn', mat(train, do_compression=compressed), mat(test))
    loaded = dataset.load('svhn', str(folder))
    for images, values in zip(loaded, (train, test)):
        assert_loaded(images, values)
    assert loaded[0].classes == tuple('0123456789')
    assert loaded[0].labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize('how', ['folder', 'w:', 'w:gz', 'zip'])
@pytest.mark.parametrize('below', ['', 'svhn/'])
def test_both_files_are_found_in_a_folder_or_an_archive(tmp_path, capsys, how, below):
    values = arrays(12, others='not looked at')
    path = packed(write(tmp_path / 'a', mat(values), name=lambda name: below + name), how)
    assert_loaded(dataset.load('svhn', path)[0], values)
    said, = capsys.readouterr().err.splitlines()
    assert said == (f'{path}: other checksums than the official ones: '
                    f'{", ".join(sorted([below + TRAIN, below + TEST], key=said.index))}; '
                    'read without running anything in it')


def test_images_and_labels_are_those_that_chainer_makes(tmp_path):
    values = arrays(12)
    train, _ = dataset.load('svhn', str(write(tmp_path / 'a', mat(values))))
    images, labels = chainer.datasets.svhn._preprocess_svhn(
        {'x': values['X'], 'y': values['y']}, True, 255., np.float32, np.int32)._datasets
    np.testing.assert_array_equal(train.images, np.rint(images))
    np.testing.assert_array_equal(train.labels, labels)


def test_the_official_files_are_read_in_silence(tmp_path, monkeypatch, capsys):
    contents = {TRAIN: mat(arrays(12)), TEST: mat(arrays(10))}
    make_official(monkeypatch, contents)
    dataset.load('svhn', str(write(tmp_path / 'a', *contents.values())))
    assert capsys.readouterr().err == ''


# The download

def test_the_first_use_downloads_to_where_chainer_looks(root, monkeypatch, serve):
    values = arrays(12)
    contents = {TRAIN: mat(values), TEST: mat(arrays(10))}
    make_official(monkeypatch, contents)
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


# What cannot be read

def refused(path, match):
    with pytest.raises(Invalid, match=match) as error:
        dataset.load('svhn', str(path))
    assert str(path) in str(error.value)
    assert f'from {svhn.URL}, and give their folder with --data-archive' in str(error.value)


CELLS = np.empty((1, 10), object)
CELLS[:] = 'a string'


@pytest.mark.parametrize('changed, why', [
    ({'X': CELLS}, 'X in it is no array of real numbers'),
    ({'X': scipy.sparse.eye_array(9)}, 'X in it is no array of real numbers'),
    ({'y': CELLS}, 'y in it is no array of real numbers'),
    ({'y': {'a': 1}}, 'y in it is no array'), ({'y': 'text'}, 'y in it is no array'),
    ({'X': np.zeros((32, 32, 3, 10))}, r'X is float64 .*, not uint8 \(32, 32, 3, N\)'),
    ({'X': np.zeros((28, 28, 3, 10), np.uint8)}, r'X is uint8 \(28, 28, 3, 10\), not uint8 \(32, '),
    ({'X': np.zeros((10, 3, 32, 32), np.uint8)}, r'X is uint8 \(10, 3, 32, 32\)'),
    ({'X': np.zeros((32, 32, 3), np.uint8)}, r'X is uint8 \(32, 32, 3\)'),
    ({'X': np.zeros((32, 32, 3, 0), np.uint8), 'y': np.zeros((0, 1))}, '0 images, 0 labels'),
    ({'y': np.ones((9, 1))}, '10 images, 9 labels'),
    ({'y': np.zeros((10, 1))}, 'labels other than 1 to 10, where 10 is the digit 0'),
    ({'y': np.full((10, 1), 11)}, 'labels other than 1 to 10'),
    ({'y': np.full((10, 1), 11, np.uint8)}, 'labels other than 1 to 10'),
    ({'y': np.full((10, 1), 1.5)}, 'labels other than 1 to 10'),
    ({'y': np.full((10, 1), np.nan)}, 'labels other than 1 to 10'),
    ({'y': np.full((10, 1), 1 + 1j)}, 'y in it is no array of real numbers')])
def test_a_file_of_other_contents_is_refused(tmp_path, changed, why):
    refused(write(tmp_path / 'a', mat(arrays(10, **changed))),
            rf'cannot be read as SVHN \(train_32x32.mat: {why}')


@pytest.mark.parametrize('lost', ['X', 'y'])
def test_a_file_without_an_array_is_refused(tmp_path, lost):
    values = arrays(10)
    del values[lost]
    refused(write(tmp_path / 'a', mat(values)), f'{lost} in it is missing')


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    content = mat(arrays(10))
    refused(write(tmp_path / 'a', content + mat({'X': CELLS})[128:]),
            'train_32x32.mat: there is more than one X in it')


def test_cells_within_cells_are_not_entered(tmp_path):
    start = mat({'X': CELLS})[136:184]  # flags, shape and name
    element = b''
    for _ in range(5000):  # SciPy would go as deep
        element = np.array([14, len(start) + len(element)], '<u4').tobytes() + start + element
    refused(write(tmp_path / 'a', mat({'y': np.ones((10, 1))}) + element),
            'X in it is no array of real numbers')


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('kept', [130, 400, -400, -1])
def test_a_truncated_file_is_named_as_such(tmp_path, capsys, kept, compressed):
    content = mat(arrays(10), do_compression=compressed)[:kept]
    refused(write(tmp_path / 'a', mat(arrays(10)), content),
            r'cannot be read as SVHN \(test_32x32.mat is truncated\)')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('content, why', [
    (b'', 'it is empty'), (b'<html>404</html>', 'it is not a MAT-file of version 5'),
    (mat({'X': 1}, format='4'), 'it is not a MAT-file of version 5'),
    (b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM', 'it is not a MAT-file of version 5')])
def test_another_file_is_refused(tmp_path, content, why):
    refused(write(tmp_path / 'a', content), f'train_32x32.mat: {why}')


@pytest.mark.parametrize('compressed', [False, True])
def test_a_damaged_file_never_ends_in_anything_but_invalid(tmp_path, compressed):
    content = mat(arrays(10), do_compression=compressed)
    for place in [*range(128, 240), *RANDOM.randint(128, len(content), 100)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << RANDOM.randint(8)
        folder = write(tmp_path / 'a', bytes(damaged))
        try:
            dataset.load('svhn', str(folder))  # some bits are pixels
        except Invalid:
            pass


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    content = mat({'X': np.zeros((32, 32, 3, 300), np.uint8)}, do_compression=True)
    monkeypatch.setattr(svhn, 'LIMIT', 1 << 17)
    refused(write(tmp_path / 'a', content), 'train_32x32.mat: unpacks to more than 131072 bytes')


def test_files_that_are_larger_than_allowed_are_refused(tmp_path, monkeypatch):
    folder = write(tmp_path / 'a', mat(arrays(20)))
    monkeypatch.setattr(svhn, 'LIMIT', 90000)
    refused(folder, 'more than 90000 bytes')


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    folder = write(tmp_path / 'a', mat(arrays(10)))
    os.remove(folder / TEST)
    refused(folder, 'there is no test_32x32.mat in it')
    refused(tmp_path / 'none', 'there is no folder or file .*none: ')
    refused('/dev/zero', 'there is no folder or file /dev/zero')
    refused(folder / TRAIN, 'it is neither a tar nor a zip')


def test_a_truncated_archive_is_named_as_such(tmp_path):
    path = packed(write(tmp_path / 'a', mat(arrays(10))), 'w:gz')
    os.truncate(path, 9000)
    refused(path, 'archive is truncated: fetch')
