"""Every operation of the engine, on a CPU and on a GPU, against stock Chainer in float64.

What only one of the two has is tested in test_engine.py and in test_gpu_engine.py.
"""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.links.model.vision import resnet
from hypothesis import given, settings, strategies as st

import engine
from engine.layout import is_channels_last, to_nchw, to_nhwc, with_layout_of
from mixup import mixup_data

CPU, GPU = '@numpy', '@cupy:0'
NAMES = {'d': 'float64', 'f': 'float32', 'e': 'float16'}
# The error of one operation on sums of up to some thousand terms, relative to the largest value.
ROUNDING = {'d': 1e-12, 'f': 2e-5, 'e': 2e-3}


def cases(*pairs):
    """Parametrize a test by the device and the dtype, those on a GPU marked as such."""
    return pytest.mark.parametrize('device, dtype', [
        pytest.param(device, dtype, id=f'{"cpu" if device == CPU else "gpu"}-{NAMES[dtype]}',
                     marks=[pytest.mark.gpu] if device == GPU else [])
        for device, dtype in pairs])


everywhere = cases((CPU, 'f'), (CPU, 'd'), (GPU, 'f'), (GPU, 'e'))


@pytest.fixture(autouse=True)
def exact_products():
    """Switch TF32 off, which keeps 10 bits."""
    with chainer.using_config('use_cudnn_tensor_core', 'never'):
        yield


def normal(*shape, seed=0, dtype='f'):
    return np.random.RandomState(seed).normal(size=shape).astype(dtype)


def channels_last(x):
    return to_nchw(to_nhwc(x))


def by_engine(device, compute, *arrays):
    """What ``compute`` returns for the arrays on a device with the engine on, as NumPy arrays."""
    device = chainer.get_device(device)
    device.use()
    if device.xp is not np:
        engine.backends.use_gpu()
    with engine.replaced():
        results = compute(*(device.send(a) for a in arrays))
    return [chainer.get_device('@numpy').send(r) for r in results]


def like(x, array):
    """A NumPy array on the device of ``x``, a variable or an array."""
    return chainer.backend.get_device_from_array(chainer.as_array(x)).send(array)


def outputs_and_gradients(function, *inputs):
    """y, and the gradients of a random projection of y for each of the inputs."""
    variables = [chainer.Variable(x) for x in inputs]
    y = function(*variables)
    # Rounded to float16, so that they are the same numbers in every dtype.
    weights = np.random.RandomState(1).normal(size=y.shape).astype(np.float16).astype(y.dtype)
    y.grad = with_layout_of(y.array, like(y, weights))  # or Chainer's own would take over
    y.backward()
    return [y.array, *(variable.grad for variable in variables)]


def assert_close(expected, found, dtypes, rounding):
    for one, other, dtype in zip(expected, found, dtypes, strict=True):
        assert one.shape == other.shape and other.dtype == dtype
        np.testing.assert_allclose(
            other, one, rtol=0, equal_nan=False,
            atol=rounding * max(1, np.abs(one[np.isfinite(one)]).max(initial=0)))


def assert_same(device, function, *inputs, layout=None, compute=outputs_and_gradients, rounding=1):
    """y and all gradients are those in float64, y in the dtype of the first input.

    Args:
        layout (callable): Gives the first input on its device another layout.
        rounding (float): How many times the error of one operation is allowed.
    """
    def computed(x, *others):
        return compute(function, layout(x) if layout else x, *others)
    expected = computed(*(x.astype(np.float64) for x in inputs))
    found = by_engine(device, computed, *inputs)
    dtypes = [inputs[0].dtype, *(x.dtype for x in inputs)]
    assert_close(expected, found, dtypes, rounding * ROUNDING[inputs[0].dtype.char])


@st.composite
def convolutions(draw):
    """(n, channels, out, size, kernel, stride, pad, bias) of a convolution with an output."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pad = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    size = [draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, pad)]
    return (draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6)), size, kernel,
            stride, pad, draw(st.booleans()))


@everywhere
@settings(max_examples=75, deadline=None)
@given(convolutions())
def test_convolution_and_its_gradients(device, dtype, case):
    n, channels, out, size, kernel, stride, pad, bias = case
    shapes = [(n, channels, *size), (out, channels, *kernel), (out,)][:2 + bias]
    assert_same(device, lambda *a: F.convolution_2d(*a, stride=stride, pad=pad),
                *(normal(*shape, dtype=dtype) for shape in shapes))


@cases((CPU, 'f'), (GPU, 'f'))
@pytest.mark.parametrize('layout', [np.copy, channels_last], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('n, channels, out, size, kernel, stride, pad', [
    (4, 3, 64, 32, 7, 2, 3), (4, 64, 64, 8, 3, 1, 1), (4, 256, 128, 8, 1, 2, 0),
    (4, 64, 256, 8, 1, 1, 0), (4, 512, 512, 1, 3, 1, 1)])
def test_convolutions_of_a_network_are_channels_last(
        device, dtype, layout, n, channels, out, size, kernel, stride, pad):
    x, W = normal(n, channels, size, size), normal(out, channels, kernel, kernel)

    def compute(function, x, W):
        results = outputs_and_gradients(function, x, W)
        if x.dtype.char == dtype:  # not the reference
            assert all(map(is_channels_last, results))
        return results
    assert_same(device, lambda *a: F.convolution_2d(*a, stride=stride, pad=pad), x, W,
                layout=channels_last if layout is channels_last else None, compute=compute)


def exactly_chainers(device, compute, *arrays):
    """Assert that with the engine on the results are, bit for bit, stock Chainer's."""
    found = by_engine(device, compute, *arrays)
    chosen = chainer.get_device(device)
    expected = [chainer.get_device('@numpy').send(r) for r in compute(*map(chosen.send, arrays))]
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(other, one)


@cases((CPU, 'f'), (GPU, 'f'))
@pytest.mark.parametrize('options', [{'dilate': 2}, {'groups': 2}, {'cover_all': True}], ids=str)
def test_dilated_grouped_and_covering_convolutions_are_chainers(device, dtype, options):
    exactly_chainers(
        device, lambda *a: [F.convolution_2d(*a, stride=2, pad=1, **options).array],
        normal(3, 4, 9, 9), normal(6, 4 // options.get('groups', 1), 3, 3))


@cases((CPU, 'e'), (GPU, 'd'))
def test_a_dtype_without_a_backend_is_chainers(device, dtype):
    exactly_chainers(
        device, lambda *a: outputs_and_gradients(lambda *a: F.relu(F.convolution_2d(*a)), *a),
        normal(2, 4, 5, 5, dtype=dtype), normal(3, 4, 3, 3, dtype=dtype))


@cases((CPU, 'f'), (GPU, 'f'))
def test_a_convolution_with_an_empty_output_raises_chainers_error(device, dtype):
    with pytest.raises(RuntimeError, match='should be positive'):
        by_engine(device, F.convolution_2d, np.ones((1, 1, 2, 2), dtype),
                  np.ones((1, 1, 3, 3), dtype))


@everywhere
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 20), st.booleans())
def test_linear_and_its_gradients(device, dtype, n, channels, out, bias):
    shapes = [(n, channels), (out, channels), (out,)][:2 + bias]
    assert_same(device, F.linear, *(normal(*shape, dtype=dtype) for shape in shapes))


@cases((CPU, 'f'), (CPU, 'd'), (GPU, 'f'))
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_gradients_of_the_gradients_of_linear(device, dtype, n, channels, out, bias):
    shapes = [(n, channels), (out, channels), (out,)][:2 + bias]

    def compute(function, *inputs):
        variables = [chainer.Variable(x) for x in inputs]
        y = function(*variables)
        gradients = chainer.grad([F.sum(y * y)], variables, enable_double_backprop=True)
        sum(F.sum(g * g) for g in gradients).backward()
        return [y.array, *(v.grad for v in variables)]
    assert_same(device, F.linear, *(normal(*shape, dtype=dtype) for shape in shapes),
                compute=compute, rounding=10)


@everywhere
def test_sums_over_all_axes_but_the_channels(device, dtype):
    assert_same(device, lambda x: F.sum(x, axis=(0, 2, 3)), normal(40, 70, 9, 8, dtype=dtype),
                layout=channels_last)


def normalized(function, x, gamma, beta):
    """y, its gradients, and the running statistics that have been updated."""
    channels = x.shape[1]
    running = [like(x, a.astype(gamma.dtype))
               for a in (normal(channels), 1 + normal(channels) ** 2)]
    y = outputs_and_gradients(lambda *a: function(
        *a, running_mean=running[0], running_var=running[1]), x, gamma, beta)
    return [*y, *running]


def parameters(channels, dtype):
    """gamma and beta: float32 where feature maps are float16, as in Chainer's mixed16."""
    return normal(2, channels, seed=3, dtype='f' if dtype == 'e' else dtype)


@everywhere
@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 70), st.integers(0, 9), st.integers(1, 9),
       st.booleans(), st.sampled_from([0, 3, 100]))
def test_batch_normalization_its_gradients_and_running_statistics(
        device, dtype, n, channels, h, w, last, mean):
    shape = (n, channels, h, w) if h else (n, channels)
    x, (gamma, beta) = (mean + normal(*shape)).astype(dtype), parameters(channels, dtype)

    def compute(x, gamma, beta):
        if h and last:
            x = channels_last(x)
        return normalized(F.batch_normalization, x, gamma, beta)
    expected = compute(*(a.astype(np.float64) for a in (x, gamma, beta)))
    found = by_engine(device, compute, x, gamma, beta)
    dtypes = [x.dtype] * 2 + [gamma.dtype] * 4
    rounding = (1 + mean) * ROUNDING[dtype]
    # A gradient through few examples is a small difference of large numbers.
    start = 0 if n * (h * w if h else 1) > 8 or dtype == 'd' else 4
    assert_close(expected[start:], found[start:], dtypes[start:], rounding)


@everywhere
@pytest.mark.parametrize('n, h, w', [(2, 16, 16), (3, 19, 9), (64, 16, 16)])
def test_batch_normalization_of_many_rows(device, dtype, n, h, w):
    """Numbers of rows: what one block on a GPU holds, one more, and what several blocks share."""
    assert_same(device, F.batch_normalization, 5 + normal(n, 65, h, w, dtype=dtype),
                *parameters(65, dtype))


@everywhere
@pytest.mark.parametrize('shape', [(4, 8, 5, 5), (2, 1, 5, 5), (9, 70, 1, 1), (6, 8)], ids=str)
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels-last'])
def test_batch_normalization_with_fixed_statistics(device, dtype, shape, last):
    channels = shape[1]
    mean, var = normal(channels), 1 + normal(channels) ** 2

    def function(x, gamma, beta):
        return F.fixed_batch_normalization(
            x, gamma, beta, *(like(x, a.astype(gamma.dtype)) for a in (mean, var)))
    assert_same(device, function, normal(*shape, dtype=dtype), *parameters(channels, dtype),
                layout=channels_last if last and len(shape) == 4 else None,
                rounding=1 if device == CPU else 4)


@everywhere
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(3, 9), st.integers(3, 9),
       st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans())
def test_max_pooling_and_its_gradient(
        device, dtype, n, channels, h, w, kernel, stride, cover_all, ties):
    x = normal(n, channels, h, w)
    x = (x.round() if ties else x).astype(dtype)
    assert_same(device, lambda x: F.max_pooling_2d(x, kernel, stride, cover_all=cover_all), x,
                layout=channels_last)


@everywhere
def test_max_pooling_takes_the_first_of_equal_maxima(device, dtype):
    assert_same(device, lambda x: F.max_pooling_2d(x, 3, 2), np.zeros((2, 3, 6, 6), dtype),
                layout=channels_last)


@cases((CPU, 'f'), (GPU, 'f'))
def test_max_pooling_with_padding_is_chainers(device, dtype):
    exactly_chainers(
        device, lambda x: [F.max_pooling_2d(channels_last(x), 3, 2, pad=1).array],
        normal(2, 3, 6, 6, dtype=dtype))


@everywhere
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_global_average_pooling_and_its_gradient(device, dtype, n, channels, h, w):
    assert_same(device, lambda x: F.average_pooling_2d(x, (h, w)),
                normal(n, channels, h, w, dtype=dtype))


def reversed_partners(x):
    return like(x, np.arange(len(x))[::-1].copy())


FUNCTIONS = {
    'average': lambda x: F.average_pooling_2d(x, x.shape[2:]),
    'relu': F.relu,
    'add': lambda x: x + x,
    'multiply': lambda x: .3 * x,
    'permutate': lambda x: F.permutate(x, reversed_partners(x)),
    'mixup_data': lambda x: mixup_data(x, like(x, np.zeros(len(x), 'i')), .3,
                                       like(x, np.roll(np.arange(len(x)), 1)))[0]}
LAYOUTS = {'contiguous': None, 'channels-last': channels_last, 'reversed': lambda x: x[:, ::-1]}


@everywhere
@pytest.mark.parametrize('shape', [(4, 5, 3, 2), (3, 7, 1, 1), (2, 6, 8, 8)], ids=str)
@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_other_functions_and_their_gradients(device, dtype, function, shape, layout):
    assert_same(device, FUNCTIONS[function], normal(*shape, dtype=dtype), layout=LAYOUTS[layout])


FACTORS = {'one': (), 'one of as many axes': (1, 1, 1, 1), 'one for each example': (4, 1, 1, 1)}


@everywhere
@pytest.mark.parametrize('shape', FACTORS.values(), ids=list(FACTORS))
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels-last'])
def test_elementwise_functions_keep_the_layout(device, dtype, last, shape):
    x, y = normal(4, 5, 6, 7, dtype=dtype), normal(4, 5, 6, 7, seed=1, dtype=dtype)
    factors = np.random.RandomState(0).uniform(size=shape).astype(dtype)

    def function(x, y):
        lam = chainer.Variable(like(x, factors).astype(x.dtype), requires_grad=False)
        return lam * F.relu(x + y) + F.permutate(x, like(x, np.array([2, 0, 3, 1]))) * (1 - lam)
    assert_same(device, function, x, y)

    def compute(x, y):
        if last:
            x, y = map(channels_last, (x, y))
        h = function(*map(chainer.Variable, (x, y))).array
        assert is_channels_last(h) == last and h.flags.c_contiguous != last
        return h,
    by_engine(device, compute, x, y)


SHAPES = [((4, 5), (4, 5)), ((4, 5), (5,)), ((4, 5), (1, 5)), ((4, 1), (4, 5)), ((4,), (4,)),
          ((1, 5), (4, 1)), ((), (3, 2)), ((), ()), ((3, 4, 1), (4, 1)), ((1,), ()), ((3,), (1, 1))]


@everywhere
@pytest.mark.parametrize('shapes', SHAPES, ids=str)
def test_products_that_broadcast_and_both_of_their_gradients(device, dtype, shapes):
    def function(x, y):
        return F.broadcast_to(x * y, np.broadcast_shapes(*shapes))
    assert_same(device, function,
                *(normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)))


@cases((CPU, 'f'), (GPU, 'f'))
def test_relu_of_zeros_infinities_and_nan_is_chainers(device, dtype):
    x = [-0., 0., np.nan, -np.nan, np.inf, -np.inf]
    if device == CPU:  # a GPU takes numbers as small as these as zero
        x += [1e-45, -1e-45]
    with np.errstate(invalid='ignore'):
        exactly_chainers(device, lambda x: outputs_and_gradients(F.relu, x), np.array(x, dtype))


@everywhere
@pytest.mark.parametrize('reduce', ['mean', 'no'])
@pytest.mark.parametrize('n, classes', [(5, 3), (300, 10)])
def test_softmax_cross_entropy_and_its_gradient(device, dtype, n, classes, reduce):
    t = np.random.RandomState(0).randint(-1, classes, n).astype(np.int32)  # -1 does not count
    assert_same(device, lambda x: F.softmax_cross_entropy(x, like(x, t), reduce=reduce),
                3 * normal(n, classes, dtype=dtype))


@cases((CPU, 'f'), (GPU, 'f'))
def test_the_mean_of_cross_entropies_has_the_gradients_of_their_mean(device, dtype):
    """Its own gradient repeats one number in memory."""
    t = np.random.RandomState(0).randint(0, 10, 300).astype(np.int32)
    assert_same(device, lambda x: F.mean(F.softmax_cross_entropy(x, like(x, t), reduce='no')),
                normal(300, 10))


def bottleneck(kind, dtype):
    """A block of Chainer's with values that tell its parameters apart.

    Args:
        dtype: A NumPy dtype, or chainer.mixed16.
    """
    with chainer.using_config('dtype', dtype):
        block = {'A': lambda: resnet.BottleneckA(6, 4, 8, 2),
                 'A of Facebook': lambda: resnet.BottleneckA(6, 4, 8, 2, downsample_fb=True),
                 'B': lambda: resnet.BottleneckB(6, 4),
                 'B of 3x3': lambda: resnet.BottleneckB(6, 4)}[kind]()
        if kind == 'B of 3x3':
            del block.conv1
            with block.init_scope():
                block.conv1 = L.Convolution2D(6, 4, 3, pad=1, nobias=True)
    random = np.random.RandomState(0)
    for array in values_of(block).values():
        array[...] = random.uniform(.5, 1.5, size=array.shape)
    block.cleargrads()  # which Chainer begins as NaN
    return block


def values_of(link):
    """All parameters and statistics of a link, by name."""
    holder = {path: parameter.array for path, parameter in sorted(link.namedparams())}
    for path, part in sorted(link.namedlinks()):
        holder.update((f'{path}/{name}', getattr(part, name))
                      for name in ('avg_mean', 'avg_var') if name in part._persistent)
    return holder


@everywhere
@pytest.mark.parametrize('kind', ['A', 'A of Facebook', 'B', 'B of 3x3'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'test'])
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels-last'])
def test_bottlenecks_their_gradients_and_statistics(device, dtype, kind, train, last):
    x = normal(5, 6, 7, 7, seed=1, dtype=dtype)
    has_gradient = train or device == CPU  # on a GPU there is none through fixed statistics

    def compute(x):
        block = bottleneck(kind, chainer.mixed16 if x.dtype.char == 'e' else x.dtype)
        if x.dtype.char == 'd':  # the same weights as in the other dtype
            for array in values_of(block).values():
                array[...] = array.astype(dtype)
        block.to_device(chainer.backend.get_device_from_array(x))
        with chainer.using_config('train', train):
            x = channels_last(x) if last else x
            found = outputs_and_gradients(block, x) if has_gradient else []
            with chainer.no_backprop_mode():
                found.append(block(x).array)
        if has_gradient:
            found += [p.grad for _, p in sorted(block.namedparams())]
        return [*found, *values_of(block).values()]
    expected, stock = compute(x.astype(np.float64)), compute(x)
    found = by_engine(device, compute, x)
    for one, same, other in zip(expected, stock, found, strict=True):
        assert other.shape == same.shape and other.dtype == same.dtype
        if device == CPU:
            np.testing.assert_allclose(other, one, rtol=0, equal_nan=False, atol=ROUNDING[
                dtype] * max(1, np.abs(one).max()))
        else:  # a ReLU may have flipped
            error = np.linalg.norm(other.astype(np.float64) - one)
            assert error <= 10 * ROUNDING[dtype] * np.linalg.norm(one)


OPTIMIZERS = {
    'adam': lambda: chainer.optimizers.Adam(.01),
    'adamw': lambda: chainer.optimizers.AdamW(.01, eta=.5, weight_decay_rate=.1),
    'momentum': lambda: chainer.optimizers.MomentumSGD(.1),
    'nesterov': lambda: chainer.optimizers.NesterovAG(.1),
    # Those that follow are Chainer's own.
    'amsgrad': lambda: chainer.optimizers.AMSGrad(.01),
    'sgd': lambda: chainer.optimizers.SGD(.1)}


@everywhere
@pytest.mark.parametrize('hook', ['no', 'decay', 'all', 'two'])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_three_updates(device, dtype, name, hook):
    """Against stock Chainer in the same dtype, mixed16 on a GPU."""
    half = dtype == 'e'

    def compute(device):
        with chainer.using_config('dtype', chainer.mixed16 if half else np.dtype(dtype)):
            np.random.seed(0)
            model = chainer.Sequential(L.Linear(3, 4), L.Linear(4, 7000), L.Convolution2D(5, 6, 3),
                                       L.BatchNormalization(9))
        model.to_device(device)
        optimizer = OPTIMIZERS[name]().setup(model)
        if half:
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
                g = normal(*parameter.shape, seed=i)
                # Far from 0, also with decay: Adam divides by it, so the rounding of a sum that
                # cancels, in which a GPU fuses the product, would show in full.
                g += np.copysign(4, g)
                parameter.grad = model.device.send(g.astype(parameter.dtype))
                parameter._loss_scale = optimizer._loss_scale  # as after a backward pass
            if name != 'adamw':
                setattr(optimizer, 'alpha' if 'a' in name else 'lr', .01 / (1 + i))
            optimizer.update()
        return [a for p in model.params() for a in (
            p.array, getattr(p.update_rule._fp32_param, 'array', np.zeros(1)),
            *(p.update_rule.state or {}).values())]
    expected = compute(CPU)
    rounding = 1e-2 if hook == 'all' and half else 1e-3  # of one of float16
    for one, other in zip(expected, by_engine(device, lambda: compute(device)), strict=True):
        assert one.dtype == other.dtype
        exact = one.dtype != np.float16 and (hook != 'all' or not half)
        np.testing.assert_allclose(
            other, one, rtol=1e-5 if exact else rounding, atol=1e-6 if exact else rounding)


@cases((CPU, 'd'))
def test_gradients_of_gradients(device, dtype):
    def compute(*inputs):
        inputs = [chainer.Variable(channels_last(x) if i == 0 else x)
                  for i, x in enumerate(inputs)]
        h = F.convolution_2d(inputs[0], inputs[1], stride=1, pad=1)
        h = F.relu(F.batch_normalization(h, *inputs[2:]))
        h = F.max_pooling_2d(h, 3, 2)
        y = F.sum(F.average_pooling_2d(h, h.shape[2:]) ** 2)
        first = chainer.grad([y], inputs, enable_double_backprop=True)
        second = chainer.grad([sum(F.sum(g ** 2) for g in first)], inputs)
        return [g.array for g in (*first, *second)]
    inputs = [normal(4, 3, 8, 8, dtype=dtype), normal(6, 3, 3, 3, dtype=dtype),
              *parameters(6, dtype)]
    expected = compute(*(x.astype(np.float64) for x in inputs))
    found = by_engine(device, compute, *inputs)
    assert_close(expected, found, [dtype] * 8, ROUNDING[dtype])


@cases((CPU, 'd'))
@pytest.mark.parametrize('kind', 'AB')
def test_gradients_of_the_gradients_of_a_bottleneck(device, dtype, kind):
    def compute(x):
        block = bottleneck(kind, np.dtype(dtype))
        block.to_device(chainer.backend.get_device_from_array(x))
        inputs = [chainer.Variable(x), *(p for _, p in sorted(block.namedparams()))]
        y = F.sum(block(inputs[0]) ** 2)
        first = chainer.grad([y], inputs, enable_double_backprop=True)
        second = chainer.grad([sum(F.sum(g ** 2) for g in first)], inputs)
        return [g.array for g in (*first, *second)]
    x = normal(3, 6, 5, 5, seed=1, dtype=dtype)
    expected = compute(x)
    assert_close(expected, by_engine(device, compute, x), [dtype] * len(expected), ROUNDING[dtype])
