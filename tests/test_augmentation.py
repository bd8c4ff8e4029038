"""Augmentation against chainercv image by image; normalisation against its formula."""
import json
import subprocess
import sys

import chainer
import numpy as np
import pytest
from chainercv import transforms
from hypothesis import given, settings, strategies as st

from experiment.augmentation import AUGMENTATIONS, Blog, NoAugmentation, Standard
from experiment.batches import NORMALIZATIONS, BatchConverter, Normalization, channel_statistics
from experiment.dataset import LabeledImages
from tests.conftest import ROOT

N = 300
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (N, 3, 32, 32)).astype(np.uint8)
DATASET = LabeledImages(IMAGES, RANDOM.randint(0, 10, N).astype(np.int32), tuple('0123456789'))
INDICES = RANDOM.permutation(N)


def apply(augmentation, draws):
    draws = {name: np.array(values) for name, values in draws.items()}
    return augmentation.apply(augmentation.prepare(IMAGES), INDICES, **draws)


# Against chainercv, which draws

@pytest.mark.filterwarnings('ignore:chainercv.transforms.random_rotate:DeprecationWarning')
def test_the_blog_augmentation_is_random_rotate_then_random_flip_of_each_image():
    expected, draws = [], {'k': [], 'y_flip': [], 'x_flip': []}
    for image in IMAGES[INDICES]:
        image, turned = transforms.random_rotate(image, return_param=True)
        image, flipped = transforms.random_flip(
            image, y_random=True, x_random=True, return_param=True)
        expected.append(image)
        for name, value in {**turned, **flipped}.items():
            draws[name].append(value)
    np.testing.assert_array_equal(apply(Blog(), draws), expected)


def test_the_standard_augmentation_is_random_crop_of_the_padded_image_then_a_horizontal_flip():
    expected, draws = [], {'top': [], 'left': [], 'x_flip': []}
    for image in IMAGES[INDICES]:
        image = np.pad(image, ((0, 0), (4, 4), (4, 4)))
        image, cropped = transforms.random_crop(image, (32, 32), return_param=True)
        image, flipped = transforms.random_flip(image, x_random=True, return_param=True)
        expected.append(image)
        draws['top'].append(cropped['y_slice'].start)
        draws['left'].append(cropped['x_slice'].start)
        draws['x_flip'].append(flipped['x_flip'])
    np.testing.assert_array_equal(apply(Standard(), draws), expected)


@settings(deadline=None)
@given(st.sampled_from(sorted(AUGMENTATIONS)), st.integers(8, 20), st.integers(0, 2 ** 32 - 1))
def test_sources_say_where_each_pixel_comes_from(name, size, seed):
    random_state = np.random.RandomState(seed)
    shape = (size, size if name == 'blog' else size + 3)  # quarter turns want squares
    images = random_state.randint(1, 256, (40, 3, *shape)).astype(np.uint8)
    augmentation = AUGMENTATIONS[name]()
    draws = augmentation.draw(random_state, 40)
    expected = augmentation.apply(augmentation.prepare(images), np.arange(40), **draws)
    sources = augmentation.sources(40, *shape, **draws)
    assert sources.shape == (40, 2, 3) and sources.dtype.kind == 'i'
    pixels = np.stack([*np.indices(shape), np.ones(shape, int)])
    rows, columns = np.einsum('nij,jyx->inyx', sources, pixels)
    inside = (0 <= rows) & (rows < shape[0]) & (0 <= columns) & (columns < shape[1])
    found = images[np.arange(40)[:, None, None], :, rows * inside, columns * inside]
    np.testing.assert_array_equal(
        np.where(inside[..., None], found, 0).transpose(0, 3, 1, 2), expected)


def test_no_augmentation_changes_nothing_and_draws_nothing():
    random_state = np.random.RandomState(0)
    assert NoAugmentation().draw(random_state, 5) == {}
    assert random_state.randint(1 << 30) == np.random.RandomState(0).randint(1 << 30)
    np.testing.assert_array_equal(apply(NoAugmentation(), {}), IMAGES[INDICES])


@pytest.mark.parametrize('augmentation', AUGMENTATIONS.values())
def test_the_data_set_itself_is_left_alone(augmentation):
    augmentation, before = augmentation(), IMAGES.copy()
    images = apply(augmentation, augmentation.draw(np.random.RandomState(0), N))
    images[...] = 0
    np.testing.assert_array_equal(IMAGES, before)


@pytest.mark.parametrize('name', ['standard', 'none'])
def test_images_need_not_be_square_unless_they_are_turned(name):
    augmentation = AUGMENTATIONS[name]()
    images = IMAGES[:, :, :20]
    draws = augmentation.draw(np.random.RandomState(0), 7)
    out = augmentation.apply(augmentation.prepare(images), np.arange(7), **draws)
    assert out.shape == (7, 3, 20, 32) and out.dtype == np.uint8


# The draws

def test_every_quarter_turn_and_flip_occurs_equally_often():
    draws = Blog().draw(np.random.RandomState(0), 80000)
    outcome = draws['k'] * 4 + draws['y_flip'] * 2 + draws['x_flip']
    # 16 outcomes, each 5000 times with standard deviation 68.
    np.testing.assert_allclose(np.bincount(outcome, minlength=16), 5000, atol=5 * 68)


def test_every_one_of_the_81_crops_and_each_flip_occurs_equally_often():
    draws = Standard().draw(np.random.RandomState(0), 81 * 2 * 1000)
    outcome = (draws['top'] * 9 + draws['left']) * 2 + draws['x_flip']
    # 162 outcomes, each 1000 times with standard deviation 32.
    np.testing.assert_allclose(np.bincount(outcome, minlength=162), 1000, atol=5 * 32)


# Normalisation

def test_statistics_are_the_population_mean_and_deviation_of_each_channel():
    images = IMAGES[:, :, :, :9] // np.array([1, 2, 3], np.uint8)[:, None, None]
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)


def test_unit_normalisation_is_the_pixel_over_255():
    np.testing.assert_allclose(
        Normalization('unit')(IMAGES), IMAGES / 255., rtol=1e-6, atol=0)


def test_standard_normalisation_has_mean_0_and_deviation_1_on_the_training_set():
    x = Normalization('standard', IMAGES)(IMAGES)
    pixels = IMAGES / 255.
    mean = pixels.mean(axis=(0, 2, 3), keepdims=True)
    std = pixels.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(x, (pixels - mean) / std, atol=1e-6)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3), dtype=np.float64), 1, atol=1e-6)


def test_caffe_normalisation_is_what_chainer_feeds_its_imagenet_resnet():
    prepare = chainer.links.model.vision.resnet.prepare
    expected = np.stack([prepare(image, size=None) for image in IMAGES[:9]])
    np.testing.assert_array_equal(Normalization('caffe')(IMAGES[:9]), expected)


def test_a_channel_that_never_varies_gives_no_infinity():
    images = IMAGES.copy()
    images[:, 1] = 7
    x = Normalization('standard', images)(images)
    assert np.isfinite(x).all() and not x[:, 1].any()


@pytest.mark.parametrize('n', [0, 1, 7, 8, 9, 24])
def test_a_batch_of_any_size_is_normalised_alike(n):
    normalization = Normalization('standard', IMAGES)
    expected = IMAGES.astype(np.float32) * normalization.scale + normalization.shift
    np.testing.assert_array_equal(normalization(IMAGES[:n]), expected[:n])


# The converter

@pytest.mark.parametrize('name', NORMALIZATIONS)
def test_a_batch_is_float32_images_and_int32_labels(name):
    converter = BatchConverter(DATASET, Normalization(name, IMAGES))
    x, t = converter([5, 3, 3], chainer.get_device('@numpy'))
    assert x.dtype == np.float32 and x.shape == (3, 3, 32, 32) and x.flags.c_contiguous
    assert t.dtype == np.int32 and t.shape == (3,)
    np.testing.assert_array_equal(x, Normalization(name, IMAGES)(IMAGES[[5, 3, 3]]))
    np.testing.assert_array_equal(t, DATASET.labels[[5, 3, 3]])


@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_the_same_seed_gives_the_same_batches_and_a_saved_state_goes_on(name):
    def batches(converter, count):
        return [converter(range(start, start + 20))[0] for start in range(0, 20 * count, 20)]

    def new():
        return BatchConverter(DATASET, Normalization('unit'), AUGMENTATIONS[name](),
                              np.random.RandomState(1))

    expected = batches(new(), 4)
    converter, resumed = new(), new()
    np.testing.assert_array_equal(batches(converter, 2), expected[:2])
    resumed.random_state.set_state(converter.random_state.get_state())
    np.testing.assert_array_equal(
        [resumed(range(start, start + 20))[0] for start in (40, 60)], expected[2:])


def test_the_augmentation_alone_draws_from_its_random_state():
    converter = BatchConverter(DATASET, Normalization('unit'), Standard(),
                               np.random.RandomState(1))
    before = np.random.get_state()[1].tolist()
    x, _ = converter(INDICES)
    assert np.random.get_state()[1].tolist() == before
    draws = Standard().draw(np.random.RandomState(1), N)
    np.testing.assert_array_equal(x, Normalization('unit')(apply(Standard(), draws)))


def test_evaluation_sees_the_images_as_they_are():
    converter = BatchConverter(DATASET, Normalization('unit'))
    for _ in range(2):
        np.testing.assert_array_equal(
            converter(INDICES)[0], Normalization('unit')(IMAGES[INDICES]))


def test_the_converter_stands_where_concat_examples_does_in_updater_and_evaluator():
    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.fc = chainer.links.Linear(3072, 10)

        def forward(self, x, t):
            loss = chainer.functions.softmax_cross_entropy(self.fc(x), t)
            chainer.report({'loss': loss}, self)
            return loss

    model = Model()
    converter = BatchConverter(DATASET, Normalization('unit'))
    optimizer = chainer.optimizers.SGD().setup(model)
    iterator = chainer.iterators.SerialIterator(range(N), 32)
    chainer.training.StandardUpdater(
        iterator, optimizer, converter=converter, device='@numpy').update()
    evaluator = chainer.training.extensions.Evaluator(
        chainer.iterators.SerialIterator(range(N), 32, repeat=False, shuffle=False), model,
        converter=converter, device='@numpy')
    assert np.isfinite(evaluator()['main/loss'])


@pytest.mark.gpu
@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_the_gpu_makes_the_same_batches_as_the_cpu(name, normalization):
    def batches(device):
        random_state = np.random.RandomState(1)
        converter = BatchConverter(DATASET, Normalization(normalization, IMAGES),
                                   AUGMENTATIONS[name](), random_state)
        made = [converter(indices, chainer.get_device(device))
                for indices in (INDICES, [5], [-1, 7, 7])]
        return [array for batch in made for array in batch], random_state.randint(1 << 30)

    on_gpu, then = batches('@cupy:0')
    expected, expected_then = batches('@numpy')
    assert then == expected_then
    for one, other in zip(expected, on_gpu, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_array_equal(other.get(), one)


@pytest.mark.parametrize('device', ['@numpy', pytest.param('@cupy:0', marks=pytest.mark.gpu)])
def test_an_index_outside_the_set_is_an_error(device):
    with pytest.raises(IndexError):
        BatchConverter(DATASET, Normalization('unit'))([N], device)


@pytest.mark.slow
def test_the_benchmark_ends_in_one_line_of_json():
    run = subprocess.run(
        [sys.executable, '-m', 'benchmarks.augmentation', '--rounds', '1', '--images', '256'],
        cwd=ROOT, check=True, capture_output=True, text=True)
    results = json.loads(run.stdout.splitlines()[-1])['results']
    assert {(row['augmentation'], row['batchsize']) for row in results} == {
        (name, batchsize) for name in AUGMENTATIONS for batchsize in (128, 256)}
    assert all(row['images_per_second'] > 0 for row in results)
