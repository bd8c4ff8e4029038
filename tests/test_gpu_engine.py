"""The engine on a GPU against stock Chainer on the CPU, operation by operation and as a whole."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.links.model.vision import resnet
from hypothesis import assume, given, settings, strategies as st

import engine
from engine.layout import is_channels_last, to_nchw, to_nhwc
from mixup import ManifoldMixupClassifier
from model import ResNet50
from tests.test_engine import convolutions
from tests.test_gpu_graphs import Network

pytestmark = pytest.mark.gpu
DEVICE = '@cupy:0'
ROUNDING = {'f': 2e-5, 'e': 2e-3}  # of one operation, relative to the largest value
both = pytest.mark.parametrize('dtype', ROUNDING)


@pytest.fixture(autouse=True)
def exact_products():
    """Without TF32, which keeps 10 bits."""
    with chainer.using_config('use_cudnn_tensor_core', 'never'):
        yield


def on_gpu(compute, *arrays):
    """``compute`` of the arrays by the engine on the GPU, its results as NumPy arrays."""
    device = chainer.get_device(DEVICE)
    device.use()
    engine.backends.use_gpu()
    with engine.replaced():
        results = compute(*(device.send(a) for a in arrays))
    return [chainer.get_device('@numpy').send(r) for r in results]


def outputs_and_gradients(function, *inputs):
    """y, and the gradients of a projection of y for each of the inputs."""
    variables = [chainer.Variable(x) for x in inputs]
    y = function(*variables)
    weights = np.random.RandomState(1).normal(size=y.shape).astype(np.float32).astype(y.dtype)
    y.grad = chainer.get_device(y.device).send(weights)
    y.backward()
    return [y.array, *(variable.grad for variable in variables)]


def assert_same(function, *inputs):
    """The same as in float64, and each result of the dtype of its input, y of the first."""
    expected = outputs_and_gradients(function, *(x.astype(np.float64) if x.dtype.kind == 'f' else x
                                                 for x in inputs))
    found = on_gpu(lambda *arrays: outputs_and_gradients(function, *arrays), *inputs)
    for one, other, model in zip(expected, found, [inputs[0], *inputs], strict=True):
        assert one.shape == other.shape and other.dtype == model.dtype
        np.testing.assert_allclose(
            other, one, rtol=0, equal_nan=False,
            atol=ROUNDING[inputs[0].dtype.char] * max(1, np.abs(one[np.isfinite(one)]).max()))


def normal(*shape, seed=0, dtype='f'):
    return np.random.RandomState(seed).normal(size=shape).astype(dtype)


@both
@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolution_and_its_gradients(dtype, case):
    n, channels, out, size, kernel, stride, pad, bias, _ = case
    shapes = [(n, channels, *size), (out, channels, *kernel), (out,)][:2 + bias]
    inputs = [normal(*shape, dtype=dtype) for shape in shapes]
    assert_same(lambda *a: F.convolution_2d(*a, stride=stride, pad=pad), *inputs)


@pytest.mark.parametrize('n, channels, out, size, kernel, stride, pad', [
    (4, 3, 64, 32, 7, 2, 3), (4, 64, 64, 8, 3, 1, 1), (4, 256, 128, 8, 1, 2, 0),
    (4, 64, 256, 8, 1, 1, 0), (4, 512, 512, 1, 3, 1, 1)])
def test_convolutions_of_a_network(n, channels, out, size, kernel, stride, pad):
    assert_same(lambda *a: F.convolution_2d(*a, stride=stride, pad=pad),
                normal(n, channels, size, size), normal(out, channels, kernel, kernel))


@both
def test_convolutions_by_the_fastest_plans(dtype):
    with chainer.using_config('autotune', True):
        assert_same(lambda *a: F.convolution_2d(*a, stride=2, pad=1),
                    normal(4, 8, 9, 9, dtype=dtype), normal(16, 8, 3, 3, dtype=dtype))


@both
@pytest.mark.parametrize('kernel, pad, stride', [
    ((3, 3), (1, 1), (1, 1)), ((3, 3), (1, 1), (2, 2)), ((2, 3), (1, 1), (2, 1)),
    ((3, 1), (1, 0), (1, 1)), ((1, 1), (1, 0), (3, 1)), ((5, 3), (2, 1), (1, 1))])
def test_on_maps_of_one_pixel_only_the_tap_that_meets_it_is_multiplied(
        kernel, pad, stride, dtype, monkeypatch):
    on_gpu(lambda: [])  # the engine's modules are imported
    from engine.gpu import plans
    run, filters = plans.run, {}

    def watched(kind, x, W, *rest):
        filters[kind] = W.shape[1:3]
        run(kind, x, W, *rest)
    monkeypatch.setattr(plans, 'run', watched)
    assert_same(lambda *a: F.convolution_2d(*a, stride=stride, pad=pad),
                normal(4, 5, 1, 1, dtype=dtype), normal(6, 5, *kernel, dtype=dtype))
    assert filters == {'fprop': (1, 1), 'dgrad': (1, 1), 'wgrad': kernel}


@both
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 20), st.booleans())
def test_linear(dtype, n, channels, out, bias):
    shapes = [(n, channels), (out, channels), (out,)][:2 + bias]
    assert_same(F.linear, *(normal(*shape, dtype=dtype) for shape in shapes))


@both
@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9),
       st.sampled_from([0, 100]))
def test_batch_normalization_and_its_running_statistics(dtype, n, channels, h, w, mean):
    assume(n * h * w > 8)  # of fewer some may lie so near to each other that a mean is too coarse
    x = (mean + normal(n, channels, h, w)).astype(dtype)

    def compute(x, gamma, beta):
        running = [chainer.get_device(chainer.backend.get_device_from_array(x)).send(a)
                   for a in (normal(channels), 1 + normal(channels) ** 2)]
        y = outputs_and_gradients(
            lambda *a: F.batch_normalization(*a, running_mean=running[0], running_var=running[1]),
            x, gamma, beta)
        return [*y, *running]
    expected = compute(*(a.astype(np.float64) for a in (x, normal(channels), normal(channels))))
    found = on_gpu(compute, x, normal(channels), normal(channels))
    for one, other in zip(expected, found):
        np.testing.assert_allclose(other, one, rtol=0, equal_nan=False,
                                   atol=(1 + mean) * ROUNDING[dtype] * max(1, np.abs(one).max()))


@both
@pytest.mark.parametrize('n, h, w', [(2, 16, 16), (3, 19, 9), (64, 16, 16)])
def test_batch_normalization_of_many_rows(n, h, w, dtype):
    """As many as one block holds, one more, and so many that several blocks share them."""
    assert_same(F.batch_normalization, 5 + normal(n, 65, h, w, dtype=dtype), normal(65),
                normal(65))


@pytest.mark.parametrize('resident', [1, 2, 3])
def test_many_rows_are_shared_by_as_many_blocks_as_run_at_once(monkeypatch, resident):
    cupy = pytest.importorskip('cupy')
    if not hasattr(cupy, 'LOG'):
        pytest.skip('says how many blocks a multiprocessor of a simulated GPU holds')
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


@both
def test_batch_normalization_with_fixed_statistics(dtype):
    x, mean, var = normal(4, 8, 5, 5, dtype=dtype), normal(8), 1 + normal(8) ** 2

    def function(x, gamma, beta):
        send = chainer.get_device(x.device).send
        return F.fixed_batch_normalization(x, gamma, beta, send(mean), send(var))
    with chainer.no_backprop_mode():
        expected = function(*map(chainer.Variable, (x.astype('f'), normal(8), normal(8))))
        found, = on_gpu(lambda *a: [function(*map(chainer.Variable, a)).array],
                        x, normal(8), normal(8))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected.array, atol=4 * ROUNDING[dtype])


@both
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(3, 9), st.integers(3, 9),
       st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_max_pooling(dtype, n, channels, h, w, kernel, stride, cover_all):
    x = to_nchw(to_nhwc(normal(n, channels, h, w, dtype=dtype)))
    assert_same(lambda x: F.max_pooling_2d(x, kernel, stride, cover_all=cover_all), x)


def test_of_equal_maxima_the_first_counts():
    x = to_nchw(np.zeros((2, 6, 6, 3), np.float32))
    assert_same(lambda x: F.max_pooling_2d(x, 3, 2), x)


@both
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_global_average_pooling(dtype, n, channels, h, w):
    assert_same(lambda x: F.average_pooling_2d(x, (h, w)), normal(n, channels, h, w, dtype=dtype))


@both
@pytest.mark.parametrize('last', [False, True])
def test_elementwise_functions_keep_the_layout(last, dtype):
    x, y = normal(4, 5, 6, 7, dtype=dtype), normal(4, 5, 6, 7, seed=1, dtype=dtype)
    index = np.array([2, 0, 3, 1])

    def function(x, y):
        send = chainer.get_device(x.device).send
        return .3 * F.relu(x + y) + (1 - .3) * F.permutate(x, send(index))
    assert_same(function, x, y)

    def lies(x, y):
        if last:
            x, y = (to_nchw(to_nhwc(a)) for a in (x, y))
        h = function(*map(chainer.Variable, (x, y))).array
        assert is_channels_last(h) == last and h.flags.c_contiguous != last
        return h,
    on_gpu(lies, x, y)


@pytest.mark.parametrize('dtype', [np.dtype('f'), chainer.mixed16], ids=repr)
@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('block', [lambda: resnet.BottleneckA(8, 4, 16, 2),
                                   lambda: resnet.BottleneckB(16, 4)])
def test_bottlenecks(block, train, dtype):
    np.random.seed(0)
    with chainer.using_config('dtype', dtype):
        block = block()
    dtype = block.conv1.W.dtype
    x = normal(6, block.conv1.W.shape[1], 5, 5, dtype=dtype)

    def compute(device, x):
        block.to_device(device)
        block.cleargrads()
        x = chainer.Variable(block.device.send(x))
        with chainer.using_config('train', train), chainer.using_config('enable_backprop', train):
            y = block(x)
        if train:
            y.grad = block.device.send(normal(*y.shape, seed=1, dtype=dtype))
            y.backward()
        arrays = [y.array, *([x.grad] if train else [])]
        arrays += [p.grad for _, p in sorted(block.namedparams()) if train]
        return arrays + [link.avg_var for link in block.links() if hasattr(link, 'avg_var')]
    start = {path: a.copy() for path, a in persistent(block)}
    expected = [np.array(a) for a in compute('@numpy', x)]
    for path, a in persistent(block):
        a[...] = start[path]
    found = on_gpu(lambda: compute(DEVICE, x))
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == one.dtype
        one, other = (a.astype(np.float64) for a in (one, other))  # a ReLU may have flipped
        assert np.linalg.norm(other - one) <= 10 * ROUNDING[dtype.char] * np.linalg.norm(one)


def persistent(link):
    return [((path, name), getattr(l, name)) for path, l in link.namedlinks()
            for name in ('avg_mean', 'avg_var') if hasattr(l, name)]


@both
@pytest.mark.parametrize('n, classes', [(5, 3), (300, 10)])
def test_softmax_cross_entropy(n, classes, dtype):
    t = np.random.RandomState(0).randint(-1, classes, n).astype(np.int32)  # -1 does not count
    assert_same(lambda x: F.softmax_cross_entropy(x, chainer.get_device(x.device).send(t)),
                3 * normal(n, classes, dtype=dtype))


def test_what_is_almost_certain_has_a_gradient_in_float16():
    """Stock Chainer rounds a softmax of 0.9999 to 1."""
    x = np.array([[9.21, 0]], np.float16)
    t = np.array([0], np.int32)
    gradient, = on_gpu(lambda x, t: outputs_and_gradients(
        lambda x: 1000 * F.softmax_cross_entropy(x, t), x)[1:], x, t)
    weight = np.random.RandomState(1).normal(size=())
    expected = -1000 * weight / (1 + np.exp(9.21))
    np.testing.assert_allclose(gradient, [[expected, -expected]], rtol=.01)


OPTIMIZERS = {
    'adam': lambda: chainer.optimizers.Adam(.01),
    'adamw': lambda: chainer.optimizers.AdamW(.01, eta=.5, weight_decay_rate=.1),
    'momentum': lambda: chainer.optimizers.MomentumSGD(.1),
    'nesterov': lambda: chainer.optimizers.NesterovAG(.1),
    'amsgrad': lambda: chainer.optimizers.AMSGrad(.01),  # not the engine's
    'sgd': lambda: chainer.optimizers.SGD(.1)}


@pytest.mark.parametrize('dtype', [np.dtype('f'), chainer.mixed16], ids=repr)
@pytest.mark.parametrize('hook', ['no', 'decay', 'all', 'two'])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_updates(name, hook, dtype):
    def compute(device):
        with chainer.using_config('dtype', dtype):
            np.random.seed(0)
            model = chainer.Sequential(L.Linear(3, 4), L.Linear(4, 7000), L.Convolution2D(5, 6, 3),
                                       L.BatchNormalization(9))
        model.to_device(device)
        optimizer = OPTIMIZERS[name]().setup(model)
        if dtype == chainer.mixed16:
            optimizer.use_fp32_update()
            optimizer.loss_scaling(scale=8)
        for parameter in model.params():
            if hook in ('decay', 'two') and parameter.ndim > 1:
                parameter.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(.1))
            if hook == 'two':
                parameter.update_rule.add_hook(chainer.optimizer_hooks.Lasso(.01))
        if hook == 'all':
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(.125))
        for i in range(3):
            for parameter in model.params():
                parameter.grad = model.device.send(
                    normal(*parameter.shape, seed=i).astype(parameter.dtype))
                parameter._loss_scale = optimizer._loss_scale  # as after a backward pass
            if name != 'adamw':
                setattr(optimizer, 'alpha' if 'a' in name else 'lr', .01 / (1 + i))
            optimizer.update()
        return [a for p in model.params() for a in (
            p.array, getattr(p.update_rule._fp32_param, 'array', np.zeros(1)),
            *(p.update_rule.state or {}).values())]
    expected = compute('@numpy')
    rounding = 1e-2 if hook == 'all' and dtype == chainer.mixed16 else 1e-3  # of one of float16
    for one, other in zip(expected, on_gpu(lambda: compute(DEVICE)), strict=True):
        assert one.dtype == other.dtype
        exact = one.dtype == np.float32 and (hook != 'all' or dtype == np.float32)
        np.testing.assert_allclose(
            other, one, rtol=1e-5 if exact else rounding, atol=1e-6 if exact else rounding)


def errors_of_gradients(network, n, dtype):
    """Distance to float64 of all gradients and of the loss: of stock Chainer, and of the engine."""
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
    exact = gradients('@numpy', True)
    return [(abs(found[0] - exact[0]) / abs(exact[0]),
             sum(np.square(a.astype(np.float64) - e).sum()
                 for a, e in zip(found[1:], exact[1:], strict=True)) ** .5)
            for found in (gradients('@numpy'), on_gpu(lambda: gradients(DEVICE)))]


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
    """Of a few layers: gradients of ResNet-50 on a few images are noise in float16."""
    # Rounding to float16, which is in the same places, hides in which order float32 is added.
    assert_as_near_to_float64(Network, 16, chainer.mixed16, 1e-3, 1.5)


def test_float64_is_chainers():
    x, W = (normal(*shape).astype(np.float64) for shape in ((2, 3, 5, 5), (4, 3, 3, 3)))
    expected = F.convolution_2d(x, W).array
    found, = on_gpu(lambda x, W: [F.convolution_2d(x, W).array], x, W)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_float32_weights_lie_as_the_weights_even_if_stock_chainer_made_them():
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
    expected = compute('@numpy', None)
    found = compute(DEVICE, 1)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(chainer.get_device('@numpy').send(other), one, rtol=2e-3,
                                   atol=2e-3)
