"""Parts of a training set, and what a run is validated on."""
import json

import numpy as np
import pytest

import train_baseline
from experiment import dataset
from experiment.errors import Invalid
from experiment.labeled_images import LabeledImages
from experiment.train_size import balanced_order, divide
from tests.test_command_line import refused
from tests.test_image_folder import write_image

RANDOM = np.random.RandomState(0)


def labels(*counts):
    """Labels in disorder, of so many images of each class."""
    return RANDOM.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))


# The order

@pytest.mark.parametrize('counts', [(7, 7, 7), (1, 5, 9), (40, 3), (1, 1)])
def test_every_prefix_has_each_class_as_often_until_it_runs_out(counts):
    t = labels(*counts)
    order = balanced_order(t)
    assert sorted(order) == [*range(len(t))]
    for n in range(len(t) + 1):
        taken = np.bincount(t[order[:n]], minlength=len(counts))
        assert (taken.max() - taken[taken < counts] <= 1).all()


def test_the_order_within_a_class_is_shuffled_and_the_same_each_time():
    t = labels(50, 50)
    np.random.seed(1)
    order = balanced_order(t)
    np.random.seed(2)
    np.testing.assert_array_equal(order, balanced_order(t))
    assert np.any(np.diff(order[t[order] == 0]) < 0)
    # What RandomState(0) gives; another release of NumPy must not change it.
    assert balanced_order(np.arange(24) % 3)[:9].tolist() == [15, 13, 17, 6, 1, 23, 3, 19, 5]


def test_a_larger_part_contains_a_smaller_one_and_the_rest_is_the_others():
    train, _ = dataset.load('digits')
    numbered = LabeledImages(np.arange(len(train)), train.labels, train.classes)
    smaller = divide(numbered, 50)[0].images
    larger, rest = divide(numbered, 333)
    np.testing.assert_array_equal(larger.images[:50], smaller)
    assert sorted([*larger.images, *rest.images]) == [*range(1437)]
    np.testing.assert_array_equal(train.labels[larger.images], larger.labels)


# What is trained and validated on

def test_a_few_labels_are_chosen_and_said(capsys):
    train, test = dataset.load('digits', train_size=100)
    assert train.per_class == [10] * 10 and len(test) == 360
    assert ('Data: digits: 100 of 1437 images to train (10 a class), 360 to test (35 to 37), '
            '10 classes: 0,') in capsys.readouterr().out
    whole = {image.tobytes(): label for image, label in zip(
        *(getattr(dataset.load('digits')[0], name) for name in ('images', 'labels')))}
    assert [whole[image.tobytes()] for image in train.images] == train.labels.tolist()


def test_the_rest_is_what_is_not_trained_on(capsys):
    train, rest = dataset.load('digits', train_size=100, validate_on='rest')
    assert len(rest) == 1337
    assert '1337 others to validate (129 to 136), ' in capsys.readouterr().out
    whole, _ = dataset.load('digits')
    assert (sorted(image.tobytes() for part in (train, rest) for image in part.images)
            == sorted(image.tobytes() for image in whole.images))


def test_some_of_the_rest_are_as_balanced_and_the_first_of_it():
    part, rest = (dataset.load('digits', train_size=103, validate_on=validate_on)[1]
                  for validate_on in ('rest:207', 'rest'))
    np.testing.assert_array_equal(part.images, rest.images[:207])
    assert len(part) == 207 and set(part.per_class) == {20, 21}


@pytest.fixture
def folder(tmp_path):
    for split, n in ('train', 5), ('val', 2):
        for name, colour in ('cat', (9, 8, 7)), ('dog', (70, 80, 90)):
            for i in range(n):
                write_image(tmp_path / split / name / f'{i}.png', colour=colour)
    return tmp_path


@pytest.mark.parametrize('validate_on, n', [
    ('rest', 6), ('rest:4', 4), ('{}/val', 4), ('{}/train', 10)])
def test_a_folder_needs_no_test_where_it_is_not_asked_for(folder, capsys, validate_on, n):
    validate_on = validate_on.format(folder)
    train, validation = dataset.load(
        str(folder), size=24, train_size=4, validate_on=validate_on)
    assert train.per_class == [2, 2] and validation.per_class == [n // 2] * 2
    assert train.images.shape[2:] == validation.images.shape[2:] == (24, 24)
    assert (validation.images[:, 2, 0, 0] == np.array([7, 90])[validation.labels]).all()
    use = 'others' if validate_on.startswith('rest') else f'of {validate_on}'
    assert f': 4 of 10 images to train (2 a class), {n} {use} to validate ({n // 2}), 2 ' in (
        capsys.readouterr().out)


def test_a_folder_may_stand_for_the_test_images_of_any_set(tmp_path):
    for i in range(10):
        write_image(tmp_path / str(i) / 'a.png', colour=(i, i, i), size=(50, 60))
    _, validation = dataset.load('digits', validate_on=str(tmp_path))
    assert validation.images[:, :, 7, 7].tolist() == [[i] * 3 for i in range(10)]
    assert validation.labels.tolist() == [*range(10)]


@pytest.mark.parametrize('name', dataset.NAMES)
def test_the_classes_of_every_set_are_in_the_order_of_folders(name):
    classes = (dataset.cifar.CIFAR[name].classes if name in dataset.cifar.CIFAR
               else tuple('0123456789'))
    assert list(classes) == sorted(classes)


def test_a_folder_of_other_classes_is_refused(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(Invalid, match="the class 'cat' is in .* not in .*empty, which has none: "):
        dataset.load(str(folder), validate_on=str(folder / 'empty'))
    with pytest.raises(Invalid, match="the class '0' is in digits but not in .*val, which has "
                                      "'cat', 'dog': both must hold the same classes"):
        dataset.load('digits', validate_on=str(folder / 'val'))
    write_image(folder / 'val' / 'eel' / 'a.png')
    with pytest.raises(Invalid, match="the class 'eel' is in .*val but not in .*train, which"):
        dataset.load(str(folder), validate_on=str(folder / 'val'))


@pytest.mark.parametrize('options, said', [
    (('--train-size', '0'), "--train-size: given '0', valid: a whole number from the number of"),
    (('--train-size', '1.5'), "--train-size: given '1.5', valid: a whole number from"),
    (('--train-size', 'all'), "--train-size: given 'all', valid: a whole number from"),
    (('--train-size', '9'), '--train-size: given 9, valid: 10, one image of each class, to 1437, '
                            'the size of the training set'),
    (('--train-size', '1438'), '--train-size: given 1438, valid: 10, one image of each'),
    (('--validate-on', 'rest'), '--validate-on rest needs --train-size N'),
    (('--train-size', '1437', '--validate-on', 'rest'), '--train-size 1437 leaves no rest'),
    (('--train-size', '1430', '--validate-on', 'rest:8'),
     '--validate-on: given rest:8, valid: rest:1 to rest:7, as many as --train-size 1430 leaves'),
    (('--validate-on', 'rest:0'), "--validate-on: given 'rest:0', valid: test, rest, rest:N, or"),
    (('--validate-on', 'none'), "--validate-on: given 'none', valid: test, rest, rest:N, or a di"),
    (('--train-size', '20', '--batchsize', '32'), '--batchsize: given 32, valid: 1 to 20')])
def test_what_is_not_valid_is_refused_in_one_line(capsys, monkeypatch, tmp_path, options, said):
    assert said in refused(capsys, monkeypatch, '--dataset', 'digits', '--device', 'cpu',
                           '--out', tmp_path / 'a', *options)


# The record

def test_a_run_records_on_what_it_trained_and_was_validated(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', [
        'train_baseline.py', '--dataset', 'digits', '--device', 'cpu', '--train-size', '10',
        '--validate-on', str(one_of_each(tmp_path / 'val')), '--batchsize', '10', '--epoch', '1',
        '--out', str(tmp_path / 'a')])
    train_baseline.main()
    record = json.loads((tmp_path / 'a' / 'run.json').read_text())
    assert record['options']['train_size'] == 10
    assert record['options']['validate_on'] == str(tmp_path / 'val')
    assert 'defaults' not in record['options']
    assert record['data']['train']['per_class'] == record['data']['test']['per_class'] == [1] * 10
    assert record['data']['test']['validate_on'] == str(tmp_path / 'val')
    assert 'validation/main/accuracy' in json.loads((tmp_path / 'a' / 'log').read_text())[0]
    assert (tmp_path / 'a' / 'model_best.npz').exists()


def one_of_each(folder):
    for i in range(10):
        write_image(folder / str(i) / 'a.png', colour=(i, i, i))
    return folder
