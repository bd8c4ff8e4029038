"""The data sets, and everything that can be wrong with them."""
import builtins
import functools
import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import zipfile

import chainer
import numpy as np
import pytest

from experiment import cifar, dataset
from experiment.errors import Invalid
from tests.conftest import BUILD

RANDOM = np.random.RandomState(0)


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


# Chainer's cache

def test_cifar10_is_what_chainer_reads_from_its_cache(cifar10_root, monkeypatch):
    monkeypatch.setattr(chainer.dataset.download, '_dataset_root', cifar10_root)
    loaded = dataset.load('cifar10')
    expected = chainer.datasets.get_cifar10(scale=255., dtype=np.float32)
    for images, chainers, n in zip(loaded, expected, (50000, 10000)):
        assert len(images) == n and images.n_class == 10
        assert images.images.dtype == np.uint8 and images.labels.dtype == np.int32
        pixels, labels = chainers._datasets
        np.testing.assert_array_equal(images.images, np.rint(pixels).astype(np.uint8))
        np.testing.assert_array_equal(images.labels, labels)


def test_real_cifar10_has_its_known_mean_colour(cifar10_root, cifar10_is_real, monkeypatch):
    if not cifar10_is_real:
        pytest.skip('needs the real pixels')
    monkeypatch.setattr(chainer.dataset.download, '_dataset_root', cifar10_root)
    train, test = dataset.load('cifar10')
    # As published with most CIFAR-10 recipes.
    np.testing.assert_allclose(
        train.images.mean(axis=(0, 2, 3)) / 255, [.4914, .4822, .4465], atol=1e-4)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10


def write_cache(root, **changed):
    path = root / 'pfnet' / 'chainer' / 'cifar' / 'cifar-10.npz'
    path.parent.mkdir(parents=True)
    arrays = {'train_x': np.zeros((4, 3072), np.uint8), 'train_y': np.zeros(4, np.uint8),
              'test_x': np.zeros((2, 3072), np.uint8), 'test_y': np.zeros(2, np.uint8)}
    arrays.update(changed)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize('changed', [
    {'train_x': None}, {'train_x': np.zeros((4, 3072))}, {'train_x': np.zeros((4, 9), np.uint8)},
    {'test_y': np.zeros(3, np.uint8)}, {'train_y': np.full(4, 10, np.uint8)},
    {'train_y': np.zeros(4)},
    {'test_x': np.zeros((0, 3072), np.uint8), 'test_y': np.zeros(0, np.uint8)},
    {'train_y': np.array([0, 1, 2, None])}])
def test_a_cache_of_other_contents_names_the_file_to_delete(root, changed):
    path = write_cache(root, **changed)
    with pytest.raises(Invalid, match='delete it') as error:
        dataset.load('cifar10')
    assert str(path) in str(error.value)


@pytest.mark.parametrize('kept, why', [
    (0, 'it is empty'), (10, 'it is cut off'), (1000, 'it is cut off'), (-1000, 'it is cut off')])
def test_a_truncated_cache_names_the_file_to_delete(root, kept, why):
    path = write_cache(root)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Invalid, match=f'cifar-10.npz is not a readable .*{why}.*: delete it'):
        dataset.load('cifar10')


@pytest.mark.parametrize('content, why', [
    (b'a page of a proxy', 'it is not an npz file'), (pickle.dumps([1]), 'it is not an npz file'),
    (None, 'train_x in it is damaged')])
def test_a_cache_that_is_another_file_is_not_to_be_trusted(root, content, why):
    path = write_cache(root)
    damaged = bytearray(read(path))
    damaged[2000] ^= 1
    path.write_bytes(content or damaged)
    with pytest.raises(Invalid, match=rf'cifar-10.npz is not a readable cifar-10 \({why}\): '):
        dataset.load('cifar10')


# Archives

class Raw(bytes):
    """A pickle as it is to stand in the archive."""


def batch(n, key='labels', n_class=10):
    return {'batch_label': 'a batch', 'data': RANDOM.randint(0, 256, (n, 3072)).astype(np.uint8),
            key: RANDOM.randint(0, n_class, n).tolist(), 'filenames': ['a.png'] * n}


def cifar10_batches():
    return {**{f'cifar-10-batches-py/data_batch_{i}': batch(3 + i) for i in range(1, 6)},
            'cifar-10-batches-py/test_batch': batch(5)}


def cifar100_batches():
    return {f'cifar-100-python/{split}': batch(n, 'fine_labels', 100)
            for split, n in (('train', 20), ('test', 5))}


def write_archive(path, members, protocol=2, mode='w:gz'):
    with tarfile.open(path, mode) as tar:
        for name, value in members.items():
            data = value if isinstance(value, Raw) else pickle.dumps(value, protocol)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def write_folder(path, members):
    for name, value in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(value, 2))
    return str(path)


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', method) as file:
        file.mkdir('cifar-10-batches-py')
        for name, value in members.items():
            file.writestr(name, pickle.dumps(value, 2))
    return str(path)


def renamed(members, name):
    """The same members, with the names that a function makes of theirs."""
    return {name(old): value for old, value in members.items()}


def make_official(monkeypatch, name, archive):
    digest = hashlib.sha256(read(archive)).hexdigest()
    monkeypatch.setitem(cifar.CIFAR, name, cifar.CIFAR[name]._replace(sha256=digest))


def assert_loaded(loaded, batches, key='labels'):
    *train, test = batches.values()
    for images, parts in zip(loaded, (train, [test])):
        np.testing.assert_array_equal(
            images.images.reshape(-1, 3072), np.concatenate([part['data'] for part in parts]))
        np.testing.assert_array_equal(
            images.labels, np.concatenate([part[key] for part in parts]))


def test_the_official_checksums_are_the_published_ones():
    assert cifar.CIFAR['cifar10'].sha256 == (
        '6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce')
    assert cifar.CIFAR['cifar100'].sha256 == (
        '85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7')


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_archive_of_the_official_layout_is_read(root, tmp_path, protocol):
    batches = cifar10_batches()
    archive = write_archive(tmp_path / 'a.tar.gz', batches, protocol)
    assert_loaded(dataset.load('cifar10', archive), batches)


def test_cifar100_is_read_with_its_fine_labels(root, tmp_path):
    batches = cifar100_batches()
    train, test = dataset.load('cifar100', write_archive(tmp_path / 'a.tar.gz', batches))
    assert_loaded((train, test), batches, 'fine_labels')
    assert train.n_class == test.n_class == 100


@pytest.mark.parametrize('mode', ['w:', 'w:gz', 'w:bz2', 'w:xz'])
@pytest.mark.parametrize('name', [
    lambda name: f'./{name}', os.path.basename, lambda name: f'/data/mine/{name}',
    lambda name: f'../{os.path.basename(name)}'])
def test_a_tar_packed_in_another_way_is_read(root, tmp_path, mode, name):
    batches = cifar10_batches()
    archive = write_archive(tmp_path / 'a', renamed(batches, name), mode=mode)
    assert_loaded(dataset.load('cifar10', archive), batches)


@pytest.mark.parametrize('name', [
    str, os.path.basename, lambda name: f'top/{name}', lambda name: name.replace('/', '\\')])
@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read(root, tmp_path, name, method):
    batches = cifar10_batches()
    archive = write_zip(tmp_path / 'a', renamed(batches, name), method)
    assert_loaded(dataset.load('cifar10', archive), batches)


@pytest.mark.parametrize('below', ['', 'cifar-10-batches-py', 'a/b'])
def test_a_folder_is_read(root, tmp_path, capsys, below):
    batches = cifar10_batches()
    files = renamed(batches, lambda name: os.path.join(below, os.path.basename(name)))
    path = write_folder(tmp_path / 'un', {**files, 'test/readme.html': 'no batch'})
    assert_loaded(dataset.load('cifar10', path), batches)
    assert files_under(root) == []
    message, = capsys.readouterr().err.splitlines()
    assert 'un is a folder, not the official cifar-10-python.tar.gz' in message


def test_cifar100_is_read_from_a_folder_with_folders_of_the_same_names(root, tmp_path):
    batches = cifar100_batches()
    path = write_folder(tmp_path / 'un', {**batches, 'train/a': '', 'test/a': ''})
    assert_loaded(dataset.load('cifar100', path), batches, 'fine_labels')


def test_other_files_of_an_archive_are_not_looked_at(root, tmp_path):
    batches = cifar10_batches()
    others = {'cifar-10-batches-py/batches.meta': Raw(b'not read'), './._data_batch_1': Raw(b''),
              '__MACOSX/cifar-10-batches-py/._test_batch': Raw(b''), 'train': Raw(b'')}
    archive = write_archive(tmp_path / 'a', {**others, **batches})
    assert_loaded(dataset.load('cifar10', archive), batches)


def test_keys_may_be_bytes(root, tmp_path):
    batches = cifar10_batches()
    keys = {name: {key.encode(): value for key, value in part.items()}
            for name, part in batches.items()}
    assert_loaded(dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', keys)), batches)


def test_labels_have_the_published_names_in_order():
    assert cifar.CIFAR['cifar10'].classes == (
        'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
    names = cifar.CIFAR['cifar100'].classes
    assert len(names) == len(set(names)) == 100 and list(names) == sorted(names)
    assert (names[0], names[1], names[49], names[-1]) == (
        'apple', 'aquarium_fish', 'mountain', 'worm')


def test_a_pickle_written_by_python_2_and_numpy_1_is_read(root, tmp_path):
    def python2(n, labels):  # what Python 2's pickle.dumps(..., 2) makes of a batch
        data = bytes(range(256)) * 12 * n
        return Raw(
            b'\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03'
            b'cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K' + bytes([n])
            + b'M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN'
            b'J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T' + len(data).to_bytes(4, 'little')
            + data + b'tbU\x06labelsq\x08]q\x09(' + bytes(b for k in labels for b in (75, k))
            + b'eu.')

    members = {name: python2(2, [3, 9]) for name in cifar10_batches()}
    train, test = dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', members))
    assert len(train) == 10 and test.labels.tolist() == [3, 9]
    assert test.images[1].ravel().tolist() == list(range(256)) * 12


@pytest.mark.parametrize('dtype', ['u1', '<i4', '>i8'])
def test_labels_may_be_an_array_of_integers(root, tmp_path, dtype):
    batches = cifar10_batches()
    arrays = {name: {**part, 'labels': np.array(part['labels'], dtype)}
              for name, part in batches.items()}
    assert_loaded(dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', arrays)), batches)


def test_images_in_fortran_order_are_read(root, tmp_path):
    batches = cifar10_batches()
    turned = {name: {**part, 'data': np.asfortranarray(part['data'])}
              for name, part in batches.items()}
    assert_loaded(dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', turned)), batches)


def test_the_official_archive_fills_chainers_cache(root, tmp_path, monkeypatch, capsys):
    batches = cifar10_batches()
    archive = write_archive(tmp_path / 'a.tar.gz', batches)
    make_official(monkeypatch, 'cifar10', archive)
    assert_loaded(dataset.load('cifar10', archive), batches)
    assert files_under(root) == ['pfnet/chainer/cifar/cifar-10.npz']
    assert_loaded(dataset.load('cifar10'), batches)  # from there
    assert len(chainer.datasets.get_cifar10()[0]) == 30
    assert capsys.readouterr().err == ''


def test_another_archive_is_announced_and_never_cached(root, tmp_path, capsys):
    dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', cifar10_batches()))
    assert files_under(root) == []
    message, = capsys.readouterr().err.splitlines()
    assert 'a.tar.gz has another checksum than the official cifar-10-python.tar.gz' in message


def test_an_archive_that_is_given_wins_over_the_cache(root, tmp_path):
    write_cache(root)
    batches = cifar10_batches()
    assert_loaded(dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', batches)), batches)


@pytest.mark.slow
def test_the_real_pixels_are_the_same_from_an_archive(tmp_path, root, cifar10_is_real):
    if not cifar10_is_real:
        pytest.skip('needs the real pixels')
    archive = str(tmp_path / 'a.tar.gz')
    subprocess.run([sys.executable, BUILD, root, '--archive', archive], check=True)
    for cached, read in zip(dataset.load('cifar10'), dataset.load('cifar10', archive)):
        np.testing.assert_array_equal(cached.images, read.images)
        np.testing.assert_array_equal(cached.labels, read.labels)


# Archives that are not what they should be

class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def refused(tmp_path, members, match, **how):
    with pytest.raises(Invalid, match=match) as error:
        dataset.load('cifar10', write_archive(tmp_path / 'a.tar.gz', members, **how))
    assert 'a.tar.gz' in str(error.value) and '--data-archive' in str(error.value)


@pytest.mark.parametrize('member', ['data_batch_1', 'test_batch'])
@pytest.mark.parametrize('place', ['data', 'labels', 'extra'])
@pytest.mark.parametrize('function', [os.system, builtins.eval, builtins.exec, np.load,
                                      subprocess.check_output])
def test_code_in_a_pickle_is_refused_and_not_run(root, tmp_path, member, place, function):
    ran = tmp_path / 'ran'
    code = f'open({str(ran)!r}, "w")' if function in (eval, exec) else f'touch {ran}'
    batches = cifar10_batches()
    batches[f'cifar-10-batches-py/{member}'][place] = Call(function, code)
    refused(tmp_path, batches, f'{member}: it contains .*{function.__name__}, which is refused')
    assert not ran.exists()


def test_an_array_of_objects_is_refused(root, tmp_path):
    batches = cifar10_batches()
    batches['cifar-10-batches-py/test_batch']['data'] = np.array([None])
    refused(tmp_path, batches, "array of 'O8' is refused")


@pytest.mark.parametrize('changed, match', [
    ({'data': np.zeros((5, 3072))}, "array of 'f8' is refused"),
    ({'data': np.zeros((5, 3072), np.int8)}, 'images are int8'),
    ({'data': np.zeros((5, 3071), np.uint8)}, r'images are uint8 \(5, 3071\)'),
    ({'data': np.zeros((4, 3072), np.uint8)}, '4 images'),
    ({'labels': []}, '5 images, labels are'),
    ({'data': 'text'}, 'images are'),
    ({'labels': [0, 1, 2, 3, 10]}, 'labels 0 to 10, not 0 to 9'),
    ({'labels': [0, 1, 2, 3, -1]}, 'labels -1 to 3, not 0 to 9'),
    ({'labels': [0, 1, 2, 3, .5]}, 'labels are float64'),
    ({'labels': [0, 1, 2, 3, [4]]}, 'not a batch of images'),
    ({'labels': None}, 'labels are object'),
])
def test_a_batch_of_other_contents_is_refused(root, tmp_path, changed, match):
    batches = cifar10_batches()
    batches['cifar-10-batches-py/test_batch'].update(changed)
    refused(tmp_path, batches, match)


@pytest.mark.parametrize('data', [
    b'', b'no pickle', pickle.dumps([1, 2]), pickle.dumps(batch(5))[:-9], pickle.dumps({}),
    b'cnumpy\nndarray\n(I9\ntR.',  # calls the stand-in of a class
    b'cnumpy.core.multiarray\n_reconstruct\n)R.'])
def test_a_member_that_is_no_batch_is_refused(root, tmp_path, data):
    batches = {**cifar10_batches(), 'cifar-10-batches-py/test_batch': Raw(data)}
    refused(tmp_path, batches, 'test_batch')


def test_a_missing_member_is_named(root, tmp_path):
    batches = cifar10_batches()
    del batches['cifar-10-batches-py/data_batch_3']
    refused(tmp_path, batches, 'there is no data_batch_3 in it')


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.FIFOTYPE])
@pytest.mark.parametrize('mode', ['w:', 'w:gz', 'w:xz'])
def test_a_member_that_is_a_link_or_a_device_is_refused(root, tmp_path, kind, mode):
    archive = tmp_path / 'a.tar.gz'
    with tarfile.open(archive, mode) as tar:
        info = tarfile.TarInfo('cifar-10-batches-py/data_batch_1')
        info.type, info.linkname = kind, '/etc/passwd'
        tar.addfile(info)
    with pytest.raises(Invalid, match='data_batch_1 is not a plain file'):
        dataset.load('cifar10', str(archive))


@pytest.mark.parametrize('make', [
    lambda path: path.symlink_to('test_batch'), os.mkfifo,
    lambda path: os.truncate(path, cifar.LIMIT + 1) if path.touch() is None else None])
def test_a_file_of_a_folder_that_is_a_link_or_too_large_is_refused(root, tmp_path, make):
    folder = tmp_path / 'un' / 'cifar-10-batches-py'
    write_folder(tmp_path / 'un', cifar10_batches())
    (folder / 'data_batch_1').unlink()
    make(folder / 'data_batch_1')
    with pytest.raises(Invalid, match='(data_batch_1 is not a plain file|unpacks to more than)'):
        dataset.load('cifar10', str(tmp_path / 'un'))


def test_a_link_in_a_zip_is_refused(root, tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        info = zipfile.ZipInfo('data_batch_1')
        info.external_attr = 0o120777 << 16
        file.writestr(info, '/etc/passwd')
    with pytest.raises(Invalid, match='data_batch_1 is not a plain file'):
        dataset.load('cifar10', str(tmp_path / 'a.zip'))


def test_a_batch_that_is_there_twice_is_refused(root, tmp_path):
    refused(tmp_path, {**cifar10_batches(), 'old/data_batch_2': batch(3)},
            'there is more than one data_batch_2 in it')


@pytest.mark.parametrize('members, match', [
    (cifar100_batches(), 'it is cifar-100'),
    ({'kaggle/cifar-10-python.tar.gz': Raw(b'')}, 'there is a cifar-10-python.tar.gz in it: give'),
    ({}, 'there is no data_batch_1 in it')])
def test_what_else_an_archive_is_is_said(root, tmp_path, members, match):
    refused(tmp_path, members, f'not an archive of the layout of cifar-10-python.* .{match}')


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_output_zipfile_cannot_limit_is_refused(root, tmp_path, method):
    with pytest.raises(Invalid, match='data_batch_1 is compressed by another method than deflate'):
        dataset.load('cifar10', write_zip(tmp_path / 'a.zip', cifar10_batches(), method))


@pytest.mark.parametrize('mode', ['w:', 'w:gz', 'w:bz2', 'w:xz'])
def test_an_archive_that_unpacks_without_end_is_refused(root, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(cifar, 'LIMIT', 1 << 16)
    refused(tmp_path, {'zeros': Raw(1 << 20)}, 'unpacks to more than 65536 bytes', mode=mode)


def test_batches_that_unpack_to_more_in_all_than_is_allowed_are_refused(
        root, tmp_path, monkeypatch):
    archive = write_zip(tmp_path / 'a.zip', {
        name: {**part, 'filenames': 'a' * 60000} for name, part in cifar10_batches().items()})
    assert len(dataset.load('cifar10', archive)[0]) == 30
    monkeypatch.setattr(cifar, 'LIMIT', 1 << 18)
    assert os.path.getsize(archive) < cifar.LIMIT
    with pytest.raises(Invalid, match='unpacks to more than 262144 bytes'):
        dataset.load('cifar10', archive)


@pytest.mark.parametrize('content, why', [
    (b'', 'it is empty'), (b'text', 'it is neither a tar nor a zip'), (b'\x1f\x8b', 'truncated'),
    (b'PK\x03\x04', 'truncated'), (bytes(range(99)), 'it is neither a tar nor a zip')])
def test_a_file_that_is_no_archive_is_refused(root, tmp_path, content, why):
    archive = tmp_path / 'a.tar.gz'
    archive.write_bytes(content)
    with pytest.raises(Invalid, match=f'a.tar.gz .*{why}.*cifar-10-python.tar.gz.*--data-archive'):
        dataset.load('cifar10', str(archive))


def test_an_encrypted_zip_is_named_as_such(root, tmp_path):
    path = tmp_path / 'a.zip'
    content = bytearray(read(write_zip(path, {'data_batch_1': batch(3)})))
    content[content.rindex(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(Invalid, match='data_batch_1 is encrypted'):
        dataset.load('cifar10', str(path))


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.999])
@pytest.mark.parametrize('how', ['w:gz', 'w:bz2', 'w:xz', 'zip'])
def test_a_truncated_archive_is_named_as_such_in_one_sentence(root, tmp_path, capsys, kept, how):
    path = tmp_path / 'a.tar.gz'
    archive = (write_zip(path, cifar10_batches()) if how == 'zip' else
               write_archive(path, cifar10_batches(), mode=how))
    content = read(archive)
    with open(archive, 'wb') as file:
        file.write(content[:int(kept * len(content))])
    with pytest.raises(Invalid, match='a.tar.gz is truncated: fetch https://.* --data-archive'):
        dataset.load('cifar10', archive)
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('kept', [1, 700, 9000, 60000])  # bytes
def test_a_tar_without_its_end_is_refused(root, tmp_path, kept):
    archive = write_archive(tmp_path / 'a.tar', cifar10_batches(), mode='w:')
    os.truncate(archive, kept)
    with pytest.raises(Invalid, match=r'a.tar is not an archive .*\((unexpected end|it is nei)'):
        dataset.load('cifar10', archive)


@pytest.mark.parametrize('how', ['w:', 'w:gz', 'w:bz2', 'w:xz', 'zip'])
def test_a_damaged_archive_never_ends_in_anything_but_invalid(root, tmp_path, how):
    archive = tmp_path / 'a.tar.gz'
    write = write_zip if how == 'zip' else functools.partial(write_archive, mode=how)
    content = bytearray(read(write(archive, cifar10_batches())))
    for _ in range(20):
        damaged = content.copy()
        damaged[RANDOM.randint(len(content))] ^= 1 << RANDOM.randint(8)
        archive.write_bytes(damaged)
        try:
            dataset.load('cifar10', str(archive))  # some bits nothing reads
        except Invalid:
            pass


def test_an_archive_that_is_missing_or_a_device_or_an_empty_folder_is_named(root, tmp_path):
    for path, why in ((tmp_path / 'none.tar.gz', 'cannot be read'),
                      ('/dev/zero', 'cannot be read .it is not a file'),
                      (tmp_path, 'there is no data_batch_1 in it')):
        with pytest.raises(Invalid, match=why) as error:
            dataset.load('cifar10', str(path))
        assert str(path) in str(error.value)


def test_a_cache_that_cannot_be_written_names_the_remedy(root, tmp_path, monkeypatch):
    archive = write_archive(tmp_path / 'a.tar.gz', cifar10_batches())
    make_official(monkeypatch, 'cifar10', archive)
    root.write_text('a file where the folder should be')
    with pytest.raises(Invalid, match='set CHAINER_DATASET_ROOT'):
        dataset.load('cifar10', archive)


# The download

def test_the_first_use_downloads_to_where_chainer_looks(root, tmp_path, monkeypatch, serve):
    batches = cifar10_batches()
    archive = write_archive(tmp_path / 'a.tar.gz', batches)
    make_official(monkeypatch, 'cifar10', archive)
    serve(read(archive))
    assert_loaded(dataset.load('cifar10'), batches)
    url = cifar.URL + 'cifar-10-python.tar.gz'
    found = chainer.dataset.cached_download(url)  # does not download again
    assert read(found) == read(archive)
    serve(b'', status=404)
    assert_loaded(dataset.load('cifar10'), batches)  # from the cache


def test_a_download_of_another_checksum_leaves_nothing_behind(root, serve):
    serve(b'something else')
    with pytest.raises(Invalid, match='not the official cifar-10-python.* --data-archive PATH'):
        dataset.load('cifar10')
    assert files_under(root) == []


def test_a_download_that_breaks_off_leaves_nothing_behind(root, serve):
    serve(bytes(1 << 20), sent=1 << 18)
    with pytest.raises(Invalid, match='ended after 262144 of 1048576 bytes.*--data-archive'):
        dataset.load('cifar10')
    assert files_under(root) == []


def test_an_archive_that_chainer_downloaded_is_verified_before_it_is_read(root, serve):
    url = cifar.URL + 'cifar-10-python.tar.gz'
    path = root / '_dl_cache' / hashlib.md5(url.encode()).hexdigest()
    path.parent.mkdir(parents=True)
    path.write_bytes(b'half of the archive')
    with pytest.raises(Invalid, match=f'{path}.*delete it'):
        dataset.load('cifar10')
    assert path.exists()


def test_no_network_is_one_sentence_with_the_remedy(root, monkeypatch):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(cifar, 'URL', f'http://127.0.0.1:{port}/')
    with pytest.raises(Invalid, match='could not be downloaded.*refused.*--data-archive PATH'):
        dataset.load('cifar10')
    assert files_under(root) == []


def test_a_server_that_has_no_archive_is_one_sentence_with_the_remedy(root, serve):
    serve(b'', status=404)
    with pytest.raises(Invalid, match='could not be downloaded.*404.*--data-archive PATH'):
        dataset.load('cifar10')


# Digits

def test_digits_are_1437_and_360_images_of_ten_classes_none_in_both():
    train, test = dataset.load('digits')
    assert train.images.shape == (1437, 3, 32, 32) and test.images.shape == (360, 3, 32, 32)
    for images in (train, test):
        assert images.images.dtype == np.uint8 and images.labels.dtype == np.int32
        assert images.n_class == 10 and set(images.labels) == set(range(10))
        assert images.images.min() == 0 and images.images.max() == 255
        np.testing.assert_array_equal(images.images[:, 0], images.images[:, 2])
    assert not {x.tobytes() for x in train.images} & {x.tobytes() for x in test.images}


def test_digits_are_split_alike_every_time():
    np.random.seed(0)
    first, _ = dataset.load('digits')
    np.random.seed(1)
    second, _ = dataset.load('digits')
    np.testing.assert_array_equal(first.images, second.images)
    # The labels that scikit-learn's random_state=0 gives; another release must not change them.
    assert first.labels[:12].tolist() == [3, 9, 1, 3, 1, 9, 4, 4, 2, 8, 3, 5]


# Names

def test_an_unknown_name_is_answered_with_the_valid_ones():
    with pytest.raises(Invalid, match='cifar11 is neither cifar10, .*, svhn, digits nor a folder'):
        dataset.load('cifar11')


def test_an_archive_goes_with_no_set_that_has_none():
    with pytest.raises(Invalid, match='--data-archive a does not go with --dataset digits'):
        dataset.load('digits', archive='a')
