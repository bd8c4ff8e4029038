"""What only the engine on a GPU has, and whole training steps there against stock Chainer's.

Operations that a CPU has too are tested in test_operations.py.
"""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import engine
from mixup import ManifoldMixupClassifier
from model import ResNet50
from tests.test_gpu_graphs import Network
from tests.test_operations import (
    CPU,
    GPU,
    assert_same,
    by_engine,
    exact_products,
    normal,
    outputs_and_gradients,
)

__all__ = ['exact_products']  # a fixture that all tests here use
pytestmark = pytest.mark.gpu
both = pytest.mark.parametrize('dtype', 'fe')


@both
def test_convolutions_by_the_fastest_of_cudnns_plans(dtype):
    with chainer.using_config('autotune', True):
        assert_same(GPU, lambda *a: F.convolution_2d(*a, stride=2, pad=1),
                    normal(4, 8, 9, 9, dtype=dtype), normal(16, 8, 3, 3, dtype=dtype))


@both
@pytest.mark.parametrize('kernel, pad, stride', [
    ((3, 3), (1, 1), (1, 1)), ((3, 3), (1, 1), (2, 2)), ((2, 3), (1, 1), (2, 1)),
    ((3, 1), (1, 0), (1, 1)), ((1, 1), (1, 0), (3, 1)), ((5, 3), (2, 1), (1, 1))])
def test_on_images_of_one_pixel_only_the_tap_over_it_is_multiplied(
        kernel, pad, stride, dtype, monkeypatch):
    by_engine(GPU, lambda: [])  # imports the engine's modules
    from engine.gpu import plans
    run, filters = plans.run, {}

    def watched(kind, x, W, *rest):
        filters[kind] = W.shape[1:3]
        run(kind, x, W, *rest)
    monkeypatch.setattr(plans, 'run', watched)
    assert_same(GPU, lambda *a: F.convolution_2d(*a, stride=stride, pad=pad),
                normal(4, 5, 1, 1, dtype=dtype), normal(6, 5, *kernel, dtype=dtype))
    assert filters == {'fprop': (1, 1), 'dgrad': (1, 1), 'wgrad': kernel}


@pytest.mark.parametrize('resident', [1, 2, 3])
def test_as_many_blocks_share_the_rows_of_a_matrix_as_a_gpu_runs_at_once(monkeypatch, resident):
    cupy = pytest.importorskip('cupy')
    if not hasattr(cupy, 'LOG'):
        pytest.skip('sets how many blocks a multiprocessor of a simulated GPU runs')
    engine.backends.use_gpu()
    from engine.gpu import kernels, normalization
    monkeypatch.setattr(cupy.cuda.driver, 'occupancyMaxActiveBlocksPerMultiprocessor',
                        lambda function, threads, shared: resident * (threads == 512))
    kernels.resident.cache_clear()
    multiprocessors = cupy.cuda.Device(0).attributes['MultiProcessorCount']
    for channels, tiles in (20, 1), (65, 3):
        x = cupy.empty((2 ** 16, channels), np.float32)
        for name in 'normalize', 'channel_sums':
            assert normalization.grid(name, x) == (tiles, resident * multiprocessors // tiles)
    few = cupy.empty((129, 20), np.float32)
    assert normalization.grid('normalize', few) == (1, min(2, resident * multiprocessors))
    kernels.resident.cache_clear()


def test_an_almost_certain_class_has_a_gradient_in_float16():
    """Stock Chainer rounds a softmax of 0.9999 to 1."""
    x = np.array([[9.21, 0]], np.float16)
    t = np.array([0], np.int32)
    gradient, = by_engine(GPU, lambda x, t: outputs_and_gradients(
        lambda x: 1000 * F.softmax_cross_entropy(x, t), x)[1:], x, t)
    weight = np.random.RandomState(1).normal(size=())
    expected = -1000 * weight / (1 + np.exp(9.21))
    np.testing.assert_allclose(gradient, [[expected, -expected]], rtol=.01)


def errors_of_gradients(network, n, dtype):
    """Errors of the loss and of all gradients against float64: stock Chainer's, the engine's."""
    x = np.random.RandomState(2).uniform(size=(n, 3, 32, 32)).astype(np.dtype(dtype))
    t = np.resize(np.array([1, 0, 3, 1], np.int32), n)

    def gradients(device, exact=False):
        with chainer.using_config('dtype', dtype):
            np.random.seed(0)
            model = ManifoldMixupClassifier(network())
        if exact:
            for parameter in model.params():
                parameter.array = parameter.array.astype(np.float64)
        model.to_device(device)
        send = model.device.send
        loss = model(send(x.astype(np.float64) if exact else x), send(t), .3, 2,
                     send(np.roll(np.arange(n), -1)))
        model.cleargrads()
        loss.backward()
        return [loss.array, *(p.grad for _, p in sorted(model.namedparams()))]
    exact = gradients(CPU, True)
    return [(abs(found[0] - exact[0]) / abs(exact[0]),
             sum(np.square(a.astype(np.float64) - e).sum()
                 for a, e in zip(found[1:], exact[1:], strict=True)) ** .5)
            for found in (gradients(CPU), by_engine(GPU, lambda: gradients(GPU)))]


def assert_as_near_to_float64(network, n, dtype, loss, gradients):
    """The engine is as near to float64 as stock Chainer on a CPU, but for these bounds.

    Args:
        loss (float): What its relative error may be beside one and a half of stock's.
        gradients (float): How many times that of stock's the distance of its gradients may be.
    """
    stock, fast = errors_of_gradients(network, n, dtype)
    found = (f'relative error of the loss {fast[0]:.2e}, of stock Chainer {stock[0]:.2e}; '
             f'distance of the gradients {fast[1]:.3e}, of stock Chainer {stock[1]:.3e}: '
             f'{fast[1] / stock[1]:.2f} times')
    print(found)
    assert fast[0] < loss + 1.5 * stock[0] and 0 < fast[1] <= gradients * stock[1], found


@pytest.mark.parametrize('stem, n', [('imagenet', 16), ('cifar', 4)])
def test_a_float32_step_of_resnet50_is_as_near_to_float64_as_stock_chainers(stem, n):
    # The error of a sum of K products grows with the square root of the numbers that are added one
    # after another: K of them in a kernel, K / 16 in each of the 16 partial sums of a CPU's BLAS.
    assert_as_near_to_float64(lambda: ResNet50(5, stem), n, np.dtype('f'), 1e-4, 16 ** .5)


def test_a_mixed16_step_is_as_near_to_float64_as_stock_chainers():
    """A network of a few layers: gradients of ResNet-50 on a few images are noise in float16."""
    # Rounding to float16, which is in the same places, hides in which order float32 is added.
    assert_as_near_to_float64(Network, 16, chainer.mixed16, 1e-3, 1.5)


def test_master_weights_get_the_layout_of_the_weights_even_if_stock_chainer_made_them():
    def compute(device, engine_after):
        np.random.seed(0)
        with chainer.using_config('dtype', chainer.mixed16):
            model = chainer.Sequential(L.Convolution2D(3, 4, 3))
        model.to_device(device)
        optimizer = chainer.optimizers.MomentumSGD(.1).setup(model)
        optimizer.use_fp32_update()
        for i in range(3):
            if i == engine_after:
                engine.use('fast', model)
            for parameter in model.params():
                parameter.grad = model.device.send(normal(*parameter.shape, seed=i, dtype='e'))
            optimizer.update()
        return [a for p in model.params() for a in (p.array, p.update_rule._fp32_param.array)]
    expected = compute(CPU, None)
    found = compute(GPU, 1)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(chainer.get_device(CPU).send(other), one, rtol=2e-3,
                                   atol=2e-3)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of use_cleargrads
@pytest.mark.parametrize('use_cleargrads', [True, False])
@pytest.mark.parametrize('scaling', [None, {'scale': 8.}, {'interval': 2}], ids=str)
def test_an_update_with_a_loss_function_is_chainers(use_cleargrads, scaling):
    """Its arguments, the order of backward pass and hooks, a frozen parameter, all counts."""
    def compute(device):
        np.random.seed(0)
        with chainer.using_config('dtype', chainer.mixed16 if scaling else np.dtype('f')):
            model = chainer.Sequential(L.Linear(6, 5), F.relu, L.Linear(5, 4))
        model.to_device(device)
        optimizer = chainer.optimizers.Adam(.01).setup(model)
        optimizer.use_cleargrads(use_cleargrads)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(.01))
        model[0].b.update_rule.enabled = False
        if scaling:
            optimizer.use_fp32_update()
            optimizer.loss_scaling(**scaling)
        seen = []

        def loss(x, *, t, method):
            seen.append((method, optimizer.t))
            return F.sum((model(x) - t) ** 2)
        x, t = (model.device.send(normal(3, n, dtype='e' if scaling else 'f')) for n in (6, 4))
        for i in range(4):
            if use_cleargrads or i % 2 == 0:
                optimizer.update(loss, x, t=t, method=i)
            else:  # the gradients are there already
                model.cleargrads()
                loss(x, t=t, method=i).backward(loss_scale=optimizer._loss_scale)
                optimizer.update()
        counts = [p.update_rule.t for p in model.params()]
        counts = [*sum(seen, ()), optimizer.t, *counts, optimizer._loss_scale or 0]
        return [*(p.array for p in model.params()), np.array(counts)]
    expected = compute(CPU)
    for one, other in zip(expected, by_engine(GPU, lambda: compute(GPU)), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-3 if scaling else 1e-5,
                                   atol=2e-3 if scaling else 1e-5)


def test_gradients_that_are_not_finite_change_nothing_and_halve_the_loss_scale():
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Linear(3, 2)
    model.to_device(GPU)
    optimizer = chainer.optimizers.MomentumSGD(.1).setup(model)
    optimizer.use_fp32_update()
    optimizer.loss_scaling()
    optimizer._loss_scale = 64.
    engine.use('fast', model)
    before = [p.array.get() for p in model.params()]
    for value, scale in (np.inf, 32), (np.nan, 16):
        for parameter in model.params():
            parameter.grad = model.device.send(np.full(parameter.shape, value, np.float16))
        optimizer.update()
        assert optimizer._loss_scale == scale and not optimizer.is_safe_to_update()
    assert optimizer.t == 2 and model.W.update_rule.t == 0
    for parameter, array in zip(model.params(), before):
        np.testing.assert_array_equal(parameter.array.get(), array)
