"""Folders of images as people have them: which files count, and what becomes of their pixels."""
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from experiment import dataset, memory
from experiment.errors import Invalid

RANDOM = np.random.RandomState(0)


def write_image(path, mode='RGB', size=(32, 32), colour=(200, 100, 50), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, colour).convert(mode).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for split in ('train', 'test'):
        for i, name in enumerate(('cat', 'dog')):
            write_image(tmp_path / split / name / 'a.png', colour=(100 * i, 7, 9))
    write_image(tmp_path / 'train' / 'dog' / 'more' / 'b.bmp', size=(50, 20))
    return tmp_path


def load(folder, size=32):
    return dataset.load(str(folder), size=size)


def refused(folder, match):
    with pytest.raises(Invalid, match=match) as error:
        load(folder)
    return str(error.value)


def test_a_folder_is_read_class_by_class_and_resized(folder):
    train, test = load(folder, size=24)
    assert train.images.shape == (3, 3, 24, 24) and test.images.shape == (2, 3, 24, 24)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert train.labels.tolist() == [0, 1, 1] and test.labels.tolist() == [0, 1]
    assert train.classes == test.classes == ('cat', 'dog') and train.n_class == 2
    assert train.images[:, :, 5, 5].tolist() == [[0, 7, 9], [100, 7, 9], [200, 100, 50]]


# What is said of it

def test_what_was_read_is_said_and_recorded(folder, capsys):
    write_image(folder / 'train' / 'cat' / 'b.tif', 'L')
    (folder / 'train' / 'dog' / 'notes.txt').write_text('no image')
    train, test = load(folder)
    said = capsys.readouterr().out
    assert f'Left out of {folder}/train, not named like images: dog/notes.txt\n' in said
    assert 'train: formats BMP 1, PNG 2, TIFF 1; modes L 1, RGB 3\n' in said
    assert ('4 images to train (2 a class), 2 to test (1), 2 classes: cat, dog\n') in said
    assert train.record() == {
        'images': 4, 'per_class': [2, 2], 'sha256': train.sha256,
        'formats': {'PNG': 2, 'BMP': 1, 'TIFF': 1}, 'modes': {'RGB': 3, 'L': 1},
        'turned_by_exif': 0, 'first_of_several_frames': 0, 'left_out': 1}
    assert test.record()['per_class'] == [1, 1] and test.record()['left_out'] == 0


def test_classes_of_different_sizes_are_said(folder, capsys):
    load(folder)
    assert '3 images to train (1 to 2 a class)' in capsys.readouterr().out


def test_the_fingerprint_is_that_of_pixels_and_labels_alone(folder, tmp_path_factory):
    train, test = load(folder)
    elsewhere = tmp_path_factory.mktemp('elsewhere') / 'moved'
    os.rename(folder, elsewhere)
    Image.open(elsewhere / 'train' / 'cat' / 'a.png').save(elsewhere / 'train' / 'cat' / 'a.bmp')
    os.remove(elsewhere / 'train' / 'cat' / 'a.png')
    again, _ = load(elsewhere)
    assert again.sha256 == train.sha256 != test.sha256
    assert load(elsewhere, size=16)[0].sha256 != train.sha256
    os.rename(elsewhere / 'train' / 'dog' / 'a.png', elsewhere / 'train' / 'cat' / 'b.png')
    assert load(elsewhere)[0].sha256 != train.sha256
    write_image(elsewhere / 'train' / 'cat' / 'b.png', colour=(100, 7, 8))
    other = load(elsewhere)[0].sha256
    write_image(elsewhere / 'train' / 'cat' / 'b.png', colour=(100, 7, 9))
    assert load(elsewhere)[0].sha256 != other


# Which files count

@pytest.mark.parametrize('suffix, form', [
    ('webp', 'WEBP'), ('gif', 'GIF'), ('tif', 'TIFF'), ('tiff', 'TIFF'), ('jfif', 'JPEG'),
    ('jpeg', 'JPEG'), ('JPG', 'JPEG'), ('pgm', 'PPM'), ('ppm', 'PPM'), ('bmp', 'BMP'),
    ('jp2', 'JPEG2000'), ('tga', 'TGA'), ('mpo', 'JPEG'), ('png', 'JPEG')])
def test_every_format_that_pillow_decodes_is_read(folder, suffix, form):
    os.remove(folder / 'train' / 'cat' / 'a.png')
    write_image(folder / 'train' / 'cat' / f'a.{suffix}', colour=(80, 80, 80), format=form,
                mode='L' if suffix == 'pgm' else 'RGB')
    train, _ = load(folder)
    assert train.source['formats'][form] == 1 + (form == 'BMP')
    assert train.images[0].min() >= 78 and train.images[0].max() <= 82


@pytest.mark.parametrize('name', ['a.eps', 'b.ps', 'c.txt', 'd', 'e.png~', 'f.png.part', 'g.h5'])
def test_what_is_no_image_is_named_and_never_opened(folder, capsys, name):
    (folder / 'train' / 'cat' / name).write_text('%!PS-Adobe-3.0\n')
    assert len(load(folder)[0]) == 3
    assert f'train, not named like images: cat/{name}\n' in capsys.readouterr().out


def test_postscript_is_not_run_under_the_name_of_an_image(folder):
    (folder / 'train' / 'cat' / 'b.png').write_text(
        '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n')
    refused(folder, 'cat/b.png .no format that Pillow decodes')


def test_an_image_beside_the_classes_is_named(folder, capsys):
    write_image(folder / 'test' / 'lost.png')
    load(folder)
    assert 'test, in no class: lost.png\n' in capsys.readouterr().out


def test_of_many_files_that_are_left_out_ten_are_named_and_all_counted(folder, capsys):
    for i in range(13):
        (folder / 'train' / 'cat' / f'{i:02}.csv').write_text('')
    load(folder)
    said = capsys.readouterr().out
    assert '09.csv and 3 more\n' in said and '10.csv' not in said


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX', '@eaDir', '.git',
                                  '$RECYCLE.BIN', 'lost+found'])
def test_hidden_folders_are_neither_classes_nor_images(folder, name, capsys):
    for split in 'train', 'test', 'train/cat':
        write_image(folder / split / name / 'a-checkpoint.png')
    train, test = load(folder)
    assert train.classes == ('cat', 'dog') and len(train) == 3 and len(test) == 2
    assert name not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['._a.png', '.DS_Store', 'Thumbs.db', 'desktop.ini'])
def test_hidden_files_are_passed_over(folder, name, capsys):
    (folder / 'train' / 'cat' / name).write_bytes(b'\0\5\26\7\0\2\0\0Mac OS X        ')
    assert len(load(folder)[0]) == 3 and name not in capsys.readouterr().out


def test_links_to_folders_and_files_are_followed(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    write_image(other / 'more' / 'x.png', colour=(1, 2, 3))
    write_image(other / 'y.png', colour=(4, 5, 6))
    os.symlink(other / 'more', folder / 'train' / 'cat' / 'more')
    os.symlink(other / 'y.png', folder / 'train' / 'cat' / 'y.png')
    train, _ = load(folder)
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert train.images[:3, :, 0, 0].tolist() == [[0, 7, 9], [1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize('link, target', [
    ('train/cat/loop', '.'), ('train/cat/loop', '..'), ('train/cat/loop', '../../..'),
    ('train/loop', '.'), ('train/cat/loop', '/')])
def test_a_loop_of_links_is_named(folder, link, target):
    os.symlink(target, folder / link)
    refused(folder, f'{link} leads back to .*: remove that link')


def test_a_loop_through_two_folders_is_named(folder):
    os.symlink('../../dog', folder / 'train' / 'dog' / 'more' / 'dog')
    refused(folder, 'more/dog leads back to .*: remove that link')


@pytest.mark.parametrize('name', ['cat/b.png', 'cat/more', 'bird'])
@pytest.mark.parametrize('target', ['nowhere', 'more', '/mnt/no-disk'])
def test_a_link_that_leads_nowhere_is_named(folder, name, target):
    os.symlink(target, folder / 'train' / name)
    refused(folder, f'train/{name} is a link that leads nowhere: mend or remove it')


def test_a_pipe_is_named_and_not_waited_for(folder):
    os.mkfifo(folder / 'train' / 'cat' / 'b.png')
    refused(folder, 'cat/b.png .it is not a plain file')


def test_a_name_cannot_command_the_terminal(folder, capsys):
    write_image(folder / 'train' / 'cat' / '\x1b[31m\n.txt', format='PNG')
    for split in 'train', 'test':
        os.rename(folder / split / 'dog', folder / split / 'dog\x1b[31m\n')
    assert load(folder)[0].classes == ('cat', 'dog\x1b[31m\n')
    said = capsys.readouterr().out
    assert '\x1b' not in said and said.count('\n') == 4


# Names

def test_one_name_in_two_unicode_forms_is_one_class(folder):
    for split, form in ('train', 'NFC'), ('test', 'NFD'):
        os.rename(folder / split / 'cat', folder / split / unicodedata.normalize(form, 'für'))
    train, test = load(folder)
    assert train.classes == test.classes == ('dog', 'für')
    assert train.labels.tolist() == [0, 0, 1] and test.labels.tolist() == [0, 1]


def test_both_forms_beside_each_other_are_refused_legibly(folder):
    for form in 'NFC', 'NFD':
        write_image(folder / 'train' / unicodedata.normalize(form, 'für') / 'a.png')
    assert refused(folder, 'two spellings of one name').isascii()


@pytest.mark.parametrize('here, there', [('train', 'test'), ('test', 'train')])
def test_a_class_in_one_split_only_is_named(folder, here, there):
    write_image(folder / here / 'cat ' / 'a.png')
    refused(folder, f"the class 'cat ' is in .*{here} but not in .*{there}, which has 'cat', 'dog'")


def test_a_missing_split_is_named_beside_those_there_are(folder):
    os.rename(folder / 'test', folder / 'val')
    refused(folder, 'there is no folder .*test: .*train/CLASS/IMAGE.*its folders: train, val')


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_class_without_an_image_is_named_with_what_it_holds(folder, split):
    os.rename(folder / split / 'cat' / 'a.png', folder / split / 'cat' / 'a.heic')
    refused(folder, f'{split}/cat holds no image, .* holds a.heic .*png')


def test_fewer_than_two_classes_are_refused(tmp_path):
    for split in ('train', 'test'):
        write_image(tmp_path / split / 'cat' / 'a.png')
    refused(tmp_path, 'class folders in .*train: 1 .files beside them: 0., at least 2')


# Pixels

@pytest.mark.parametrize('mode, expected', [
    ('RGB', (200, 100, 50)), ('RGBA', (200, 100, 50)), ('L', (124, 124, 124)),
    ('LA', (124, 124, 124)), ('1', (255, 255, 255)), ('P', None)])
def test_every_kind_of_image_becomes_rgb(folder, mode, expected):
    path = write_image(folder / 'test' / 'cat' / 'a.png', mode)
    expected = expected or Image.open(path).convert('RGB').getpixel((0, 0))
    _, test = load(folder)
    if mode == '1':  # dithered
        assert set(np.unique(test.images[0])) <= {0, 255}
    else:
        assert test.images[0, :, 0, 0].tolist() == list(expected)


def test_an_image_of_the_right_size_keeps_its_pixels(folder):
    pixels = RANDOM.randint(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / 'test' / 'cat' / 'a.png')
    np.testing.assert_array_equal(load(folder)[1].images[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize('name', ['a.png', 'a.pgm', 'a.tif', 'a.jp2'])
def test_16_bits_are_scaled_by_their_depth(folder, name):
    os.remove(folder / 'test' / 'cat' / 'a.png')
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(folder / 'test' / 'cat' / name)
    _, test = load(folder)
    np.testing.assert_array_equal(test.images[0], np.stack([ramp // 256] * 3))


def test_12_bits_are_scaled_by_their_depth(folder):
    os.remove(folder / 'test' / 'cat' / 'a.png')
    path = folder / 'test' / 'cat' / 'a.tif'
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(path, tiffinfo={})
    content = bytearray(path.read_bytes())  # a TIFF of 16 bits becomes one of 12: FFF everywhere
    tag = content.index(np.array([258, 3], '<u2').tobytes() + np.array([1], '<u4').tobytes())
    content[tag + 8:tag + 10] = np.array([12], '<u2').tobytes()
    start = len(content) - 2048 if content[-2048:] == bytes(2048) else content.index(bytes(2048))
    content[start:start + 2048] = b'\xff' * 2048
    path.write_bytes(content)
    assert (load(folder)[1].images[0] == 255).all()


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_pixels_without_a_white_are_refused_by_name(folder, dtype):
    Image.fromarray(np.ones((8, 8), dtype)).save(folder / 'test' / 'cat' / 'b.tif')
    assert 'b.tif' in refused(folder, 'which number is white: save it with 8 bits')


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_a_picture_is_turned_as_its_exif_says(folder, suffix):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    os.remove(folder / 'test' / 'cat' / 'a.png')
    Image.fromarray(pixels).save(folder / 'test' / 'cat' / f'a.{suffix}', quality=100, exif=exif)
    _, test = load(folder)
    assert test.images[0, :, :12].min() > 250 and test.images[0, :, 20:].max() < 5
    assert test.source['turned_by_exif'] == 1


def test_of_several_frames_the_first_is_read(folder):
    first, second = (Image.new('RGB', (32, 32), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    os.remove(folder / 'test' / 'cat' / 'a.png')
    first.save(folder / 'test' / 'cat' / 'a.gif', save_all=True, append_images=[second])
    _, test = load(folder)
    assert test.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert test.source['first_of_several_frames'] == 1


# What cannot be read

def test_unreadable_images_are_all_named(folder):
    for i, kept in enumerate([0, 20, 60] * 4):
        path = write_image(folder / 'test' / 'dog' / f'{i:02}.png')
        path.write_bytes(path.read_bytes()[:kept])
    said = refused(folder, 'unreadable images, to be mended or removed: .*00.png .it is empty')
    assert all(f'dog/{i:02}.png (' in said for i in range(10)) and said.endswith('and 2 more')


def test_a_picture_that_unpacks_to_too_much_is_named(folder, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 200)
    refused(folder, 'train/cat/a.png .it has more than 400 pixels')


def test_images_that_do_not_fit_the_memory_are_refused_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: 3 * 2 ** 20)
    with pytest.raises(Invalid, match='--size: given 1024: 5 images .* take 15.0 MiB of memory, '
                                      'and 3.0 MiB are free; take a smaller --size'):
        load(folder, size=1024)
    monkeypatch.setattr(memory, 'available', lambda: None)
    load(folder, size=64)
