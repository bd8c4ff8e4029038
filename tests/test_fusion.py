"""Batch normalization fused with what follows it, on a CPU and on a GPU, against stock Chainer."""
import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.utils.type_check import InvalidType

import engine
from engine.fusion import STATE, Deferred
from tests.test_operations import (
    CPU,
    GPU,
    ROUNDING,
    assert_close,
    bottleneck,
    by_engine,
    cases,
    channels_last,
    everywhere,
    like,
    normal,
    normalized,
    outputs_and_gradients,
    parameters,
    values_of,
)

both = pytest.mark.parametrize('device', [CPU, pytest.param(GPU, marks=pytest.mark.gpu)])


class Inside(chainer.Link):
    """A link that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def inside(function, *args):
    return Inside(function)(*args)


def nodes(y):
    """The functions behind a variable, by name."""
    found, todo = [], [y.creator_node]
    while todo:
        node = todo.pop()
        if node is not None:
            found.append(node.label)
            todo += [x.creator_node for x in node.inputs]
    return found


def fused(y):
    return nodes(y).count('RectifiedNormalization')


def used_twice(bn, x):
    h = bn(x)
    return F.relu(h) + h


def residual_used_twice(bn, x):
    h = bn(x)
    total = h + x
    return F.relu(total) * total + h


def looked_at(bn, x):
    h = bn(x)
    total = h + x
    assert h.shape == x.shape
    return F.relu(total)


def dropped(bn, x):
    bn(x * x)
    return F.relu(bn(x))


def out_of_order(bn, x):
    first, second = bn(x), bn(x * x)
    return F.relu(second) - F.relu(first)


PATTERNS = {  # what becomes of x and its batch normalization, and how many nodes are fused
    'relu': (lambda bn, x: F.relu(bn(x)), 1),
    'residual': (lambda bn, x: F.relu(bn(x) + x), 1),
    'residual first': (lambda bn, x: F.relu(x + bn(x)), 1),
    'F.add': (lambda bn, x: F.relu(F.add(bn(x), x)), 1),
    'two normalizations': (lambda bn, x: F.relu(bn(x) + bn(x * x)), 1),
    'one after the other': (lambda bn, x: F.relu(bn(F.relu(bn(x))) + x), 2),
    'used twice': (used_twice, 1),
    'residual used twice': (residual_used_twice, 1),
    'out of order': (out_of_order, 1),
    'dropped': (dropped, 1),
    'array': (lambda bn, x: F.relu(bn(x) + x.array), 0),  # it is cast to the dtype of the other
    'looked at': (looked_at, 0),
    'doubled': (lambda bn, x: F.relu(2 * bn(x)), 0),
    'added to itself': (lambda bn, x: (lambda h: F.relu(h + h))(bn(x)), 0),
    'broadcast': (lambda bn, x: F.relu(F.sum(x, axis=0, keepdims=True) + bn(x)), 0),
    'two residuals': (lambda bn, x: F.relu(bn(x) + x + x), 0),
    'no ReLU': (lambda bn, x: bn(x) + x, 0),
    'no residual': (lambda bn, x: bn(x), 0),
    'another activation': (lambda bn, x: F.sigmoid(bn(x)), 0)}


@everywhere
@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize('shape', [(5, 6, 4, 3), (30, 6, 8, 8), (16, 6)], ids=str)
def test_every_use_of_a_batch_normalization_is_chainers(device, dtype, pattern, shape):
    use, n_fused = PATTERNS[pattern]
    found = []

    def compute(x, gamma, beta):
        x = channels_last(x) if x.ndim == 4 else x

        def function(x, gamma, beta, **running):
            y = inside(use, lambda x: F.batch_normalization(x, gamma, beta, **running), x)
            found.append((type(y), fused(y)))
            return y
        return normalized(function, x, gamma, beta)
    arrays = normal(*shape, dtype=dtype), *parameters(shape[1], dtype)
    expected = compute(*(a.astype(np.float64) for a in arrays))
    results = by_engine(device, compute, *arrays)
    assert found == [(chainer.Variable, 0), (chainer.Variable, n_fused)]
    if device == CPU:
        assert_close(expected, results, [arrays[0].dtype] * 2 + [arrays[1].dtype] * 4,
                     10 * ROUNDING[dtype])
    else:  # a ReLU may have flipped
        for one, other in zip(expected, results, strict=True):
            error = np.linalg.norm(other.astype(np.float64) - one)
            assert error <= 10 * ROUNDING[dtype] * np.linalg.norm(one) + 1e-6


@everywhere
@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize('backprop', [False, True])
def test_every_use_of_fixed_statistics_is_chainers(device, dtype, pattern, backprop):
    mean, var = normal(6), 1 + normal(6) ** 2

    def compute(x, gamma, beta):
        mean_var = [like(x, a.astype(gamma.dtype)) for a in (mean, var)]
        with chainer.using_config('enable_backprop', backprop):
            y = inside(PATTERNS[pattern][0], lambda x: F.fixed_batch_normalization(
                x, gamma, beta, *mean_var), chainer.Variable(x))
        assert type(y) is chainer.Variable and not fused(y)
        return [y.array]
    arrays = normal(5, 6, 4, 3, dtype=dtype), *parameters(6, dtype)
    expected = compute(*(a.astype(np.float64) for a in arrays))
    assert_close(expected, by_engine(device, compute, *arrays), [dtype], 10 * ROUNDING[dtype])


@cases((CPU, 'd'))
@pytest.mark.parametrize('pattern', PATTERNS)
def test_gradients_of_the_gradients_of_fused_functions(device, dtype, pattern):
    def compute(*arrays):
        inputs = [*map(chainer.Variable, arrays)]
        y = inside(lambda x, gamma, beta: PATTERNS[pattern][0](
            lambda x: F.batch_normalization(x, gamma, beta), x), *inputs)
        first = chainer.grad([F.sum(y ** 2)], inputs, enable_double_backprop=True)
        first = [g for g in first if g is not None]
        second = chainer.grad([sum(F.sum(g ** 2) for g in first)], inputs)
        return [g.array for g in (*first, *second) if g is not None]
    arrays = normal(5, 6, 4, 3, dtype=dtype), *parameters(6, dtype)
    expected = compute(*arrays)
    assert_close(expected, by_engine(device, compute, *arrays), [dtype] * len(expected), 1e-10)


@both
@pytest.mark.parametrize('outside', [False, True])
def test_whether_gradients_are_wanted_is_decided_when_a_function_is_called(device, outside):
    def use(x, gamma, beta):
        with chainer.using_config('enable_backprop', outside):
            h = F.batch_normalization(x, gamma, beta)
        with chainer.using_config('enable_backprop', not outside):
            y = F.relu(h)
        return y, h

    def compute(*arrays):
        y, h = inside(use, *map(chainer.Variable, arrays))
        found.append((nodes(y), nodes(h)))
        return []
    found = []
    arrays = normal(5, 6, 4, 3), *parameters(6, 'f')
    compute(*arrays)
    by_engine(device, compute, *arrays)
    assert found[0] == found[1]


class Names(chainer.FunctionHook):

    name = 'Names'

    def __init__(self):
        self.names = []

    def forward_preprocess(self, function, in_data):
        self.names.append(function.label)


class Outputs(chainer.LinkHook):

    name = 'Outputs'

    def __init__(self):
        self.kinds = []

    def forward_postprocess(self, args):
        self.kinds.append(type(args.out))


@both
def test_a_function_hook_sees_chainers_functions(device):
    def compute(*arrays):
        with Names() as hook:
            y = inside(lambda *a: F.relu(F.batch_normalization(*a)), *map(chainer.Variable, arrays))
        assert hook.names == ['BatchNormalization', 'ReLU'] and not fused(y)
        with Names() as hook:
            y.grad = y.array
            y.backward()
        assert hook.names == ['ReLUGrad2', 'BatchNormalizationGrad']
        return []
    by_engine(device, compute, normal(5, 6, 4, 3), *parameters(6, 'f'))


def test_a_function_hook_that_begins_before_the_relu_sees_it():
    def use(*variables):
        h = F.batch_normalization(*variables)
        with Names() as hook:
            F.relu(h)
        return hook.names
    with engine.replaced():
        assert 'ReLU' in inside(use, normal(5, 6, 4, 3), *parameters(6, 'f'))


@pytest.mark.parametrize('local', [False, True])
def test_a_link_hook_sees_variables_that_have_been_computed(local):
    link = L.BatchNormalization(6)
    hook = Outputs()

    def use(x):
        return F.relu(link(x))
    with engine.replaced():
        x = normal(5, 6, 4, 3)
        if local:
            link.add_hook(hook)
            inside(use, x)
        else:
            with hook:
                inside(use, x)
    assert hook.kinds and set(hook.kinds) == {chainer.Variable}


def test_debug_mode_applies_functions_one_by_one():
    with engine.replaced(), chainer.using_config('debug', True):
        y = inside(lambda *a: F.relu(F.batch_normalization(*a)),
                   normal(5, 6, 4, 3), *parameters(6, 'f'))
    assert nodes(y) == ['ReLU', 'BatchNormalization']


@both
def test_wrong_types_are_an_error_where_the_function_is_called(device):
    def compute(x, gamma, beta):
        def use(x, gamma, beta):
            with pytest.raises(InvalidType):
                F.batch_normalization(x, gamma, beta)
        inside(use, x, gamma[:5], beta[:5])
        inside(use, x, gamma, beta[:5])
        return []
    by_engine(device, compute, normal(5, 6, 4, 3), *parameters(6, 'f'))


def test_other_dtypes_axes_and_a_batch_of_one_are_chainers():
    x, (gamma, beta) = normal(5, 6, 4, 3), parameters(6, 'f')

    def use(*args, **kwargs):
        def function():
            h = F.batch_normalization(*args, **kwargs)
            assert type(h) is chainer.Variable
            return h
        return inside(function)
    with engine.replaced():
        use(x.astype('e'), gamma, beta)
        use(x.transpose(0, 2, 3, 1), gamma, beta, axis=(0, 1, 2))
        use(x[..., 0], gamma, beta)
        with pytest.warns(UserWarning):
            use(x[:1, :, :1, :1], gamma, beta)


def test_outside_of_links_nothing_waits():
    with engine.replaced():
        h = F.batch_normalization(normal(5, 6, 4, 3), *parameters(6, 'f'))
        assert type(h) is chainer.Variable


@both
def test_what_a_link_returns_does_not_follow_later_changes_of_its_parameters(device):
    def compute(x):
        link = L.BatchNormalization(6)
        link.to_device(chainer.backend.get_device_from_array(x))
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            y = link(x)
            link.gamma.array += 1
            link.avg_mean += 1
        return [y.array]
    expected = compute(normal(5, 6, 4, 3))
    found = by_engine(device, compute, normal(5, 6, 4, 3))
    assert_close(expected, found, ['f'], ROUNDING['f'])


def test_after_an_error_in_a_link_nothing_waits():
    def fail(*args):
        F.batch_normalization(*args)
        raise KeyError
    with engine.replaced():
        with pytest.raises(KeyError):
            inside(fail, normal(5, 6, 4, 3), *parameters(6, 'f'))
    assert STATE.waiting is STATE.in_link is None


LOOKS = {
    'copy': copy.copy, 'deepcopy': copy.deepcopy, 'pickle': lambda h: pickle.loads(pickle.dumps(h)),
    'repr': repr, 'shape': lambda h: h.shape, 'grad': lambda h: h.grad, 'node': lambda h: h.node,
    'creator': lambda h: h.creator, 'indexing': lambda h: h[0],
    'backward': lambda h: F.sum(h).backward()}


@both
@pytest.mark.parametrize('look', LOOKS)
def test_a_variable_that_is_looked_at_is_an_ordinary_one(device, look):
    def compute(*arrays):
        def use(*variables):
            h = F.batch_normalization(*variables)
            h.mark = 'mine'
            assert type(h) is Deferred
            result = LOOKS[look](h)
            assert type(h) is chainer.Variable and h.node.get_variable() is h and h.mark == 'mine'
            if isinstance(result, chainer.Variable) and look != 'indexing':
                h = result
            assert type(h) is chainer.Variable
            return h
        return [inside(use, *map(chainer.Variable, arrays)).array]
    arrays = normal(5, 6, 4, 3), *parameters(6, 'f')
    expected = [F.batch_normalization(*arrays).array]
    assert_close(expected, by_engine(device, compute, *arrays), ['f'], ROUNDING['f'])


@both
def test_statistics_do_not_change_when_a_block_is_computed_again(device):
    def compute(x):
        block = bottleneck('B', np.dtype('f'))
        block.to_device(chainer.backend.get_device_from_array(x))
        y = F.forget(block, chainer.Variable(x))
        before = copy.deepcopy(values_of(block))
        F.sum(y).backward()
        return [*before.values(), *values_of(block).values()]
    found = by_engine(device, compute, normal(2, 6, 3, 3, seed=1))
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:], strict=True):
        np.testing.assert_array_equal(one, other)


@everywhere
def test_gradients_of_convolutions_are_added_to_those_of_other_functions(device, dtype):
    """The gradient of x is the sum of three, those of W and b of two."""
    def function(x, W, b):
        def convolve(x):
            return F.convolution_2d(x, W, b, pad=1)
        return convolve(x) + convolve(2 * x) + F.relu(x)
    arrays = [normal(*shape, dtype=dtype) for shape in ((4, 6, 5, 5), (6, 6, 3, 3), (6,))]
    expected = outputs_and_gradients(function, *(a.astype(np.float64) for a in arrays))
    found = by_engine(device, lambda *a: outputs_and_gradients(function, *a), *arrays)
    assert_close(expected, found, [dtype] * 4, 4 * ROUNDING[dtype])
