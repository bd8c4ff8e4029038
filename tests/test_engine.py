"""What only the engine on a CPU has, whole networks there, and the switch.

Operations that a GPU has too are tested in test_operations.py.
"""
import contextlib
import copy
import os
import subprocess
import sys

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import engine
from engine import environment
from engine.cpu import threads, winograd
from engine.layout import is_channels_last, lay_out_weights
from mixup import ManifoldMixupClassifier
from model import ResNet50
from tests.reference.cases import LAM, N_CLASS, batch
from tests.test_network_against_torch import arrays, difference, values
from tests.test_operations import ROUNDING, channels_last

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def both(compute):
    """What ``compute()`` returns, arrays, by stock Chainer and by the engine."""
    stock = compute()
    with engine.replaced():
        fast = compute()
    return stock, fast


def assert_same(stock, fast, dtype):
    assert len(stock) == len(fast)
    for one, other in zip(stock, fast):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(
            other, one, rtol=0, atol=ROUNDING[dtype] * max(1, np.abs(one).max(initial=0)),
            equal_nan=False)


def outputs_and_gradients(function, inputs, seed=0):
    """y, and the gradients of a random projection of y for each of the inputs."""
    variables = [chainer.Variable(x) for x in inputs]
    y = function(*variables)
    y.grad = np.random.RandomState(seed).normal(size=y.shape).astype(y.dtype)
    y.backward()
    return [y.array, *(variable.grad for variable in variables)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(32, 40), st.integers(32, 40),
       st.tuples(st.integers(2, 17), st.integers(2, 17)),
       st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from('fd'))
def test_convolution_by_winograds_algorithm(n, channels, out, size, pad, dtype):
    shapes = (n, channels, *size), (out, channels, 3, 3)
    assume(winograd.suits((n, *size, channels), (out, 3, 3, channels), (1, 1), pad))
    random = np.random.RandomState(0)
    inputs = [random.normal(size=shape).astype(dtype) for shape in shapes]
    assert_same(*both(lambda: outputs_and_gradients(
        lambda *arrays: F.convolution_2d(*arrays, pad=pad), inputs)), dtype)


def test_winograds_algorithm_is_used_where_it_saves_a_third_of_the_products():
    def suits(h, w, *, channels=64, out=64, kernel=3, stride=1, pad=1):
        return winograd.suits((8, h, w, channels), (out, kernel, kernel, channels),
                              (stride, stride), (pad, pad))
    assert suits(32, 32) and suits(4, 4) and suits(8, 6) and suits(31, 31)
    assert not suits(2, 2) and not suits(5, 5)  # most taps meet padding, tiles reach beyond y
    assert not suits(32, 32, stride=2) and not suits(32, 32, kernel=5) and not suits(32, 32, pad=3)
    assert not suits(32, 32, channels=3) and not suits(32, 32, out=10)


@pytest.mark.parametrize('shape', [(4, 64, 32, 32), (8, 256, 8, 8), (16, 512, 4, 4)])
def test_float32_errors_of_winograds_algorithm_are_at_most_ten_times_those_of_chainers(shape):
    random = np.random.RandomState(0)
    inputs = [np.maximum(random.normal(size=shape), 0),
              random.normal(size=(shape[1], shape[1], 3, 3))]

    def compute(dtype):
        return outputs_and_gradients(lambda *arrays: F.convolution_2d(*arrays, pad=1),
                                     [x.astype('f').astype(dtype) for x in inputs])
    exact = compute('d')
    for expected, one, other in zip(exact, *both(lambda: compute('f'))):
        error = np.linalg.norm(one - expected), np.linalg.norm(other - expected)
        assert error[1] <= 10 * error[0] and error[1] < 3e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize('n, channels, out, size, kernel, stride, pad', [
    (33, 64, 64, 16, 3, 1, 1),  # several chunks of images, the last one ragged
    (3, 256, 256, 4, 3, 1, 1),
    (33, 32, 48, 17, 3, 2, 1), (40, 32, 36, 16, 5, 1, 2), (3, 32, 300, 9, 5, 1, 2),
    (9, 3, 64, 32, 7, 2, 3), (70, 3, 64, 32, 3, 1, 1),
    (600, 64, 64, 4, 1, 1, 0), (3, 1024, 300, 1, 1, 1, 0), (3, 300, 1024, 1, 1, 1, 0),
    (130, 64, 32, 2, 3, 1, 1), (130, 64, 32, 1, 3, 1, 1)])
def test_convolutions_divided_into_chunks_and_blocks(
        n, channels, out, size, kernel, stride, pad):
    random = np.random.RandomState(0)
    inputs = [random.normal(size=shape).astype('f') for shape in
              [(n, channels, size, size), (out, channels, kernel, kernel)]]
    for x in inputs[0], channels_last(inputs[0]):
        stock, fast = both(lambda: outputs_and_gradients(
            lambda *arrays: F.convolution_2d(*arrays, stride=stride, pad=pad), [x, inputs[1]]))
        assert_same(stock, fast, 'f')
        assert is_channels_last(fast[0]) and is_channels_last(fast[1])


def test_an_empty_batch_is_computed_by_chainer():
    x = np.zeros((0, 6, 4, 4), 'f')
    link = L.BatchNormalization(6)

    def compute():
        with np.errstate(invalid='ignore'):
            y = link(F.convolution_2d(x, np.ones((6, 6, 3, 3), 'f')))
            return [y.array, F.relu(x + x).array]
    with pytest.warns(RuntimeWarning):
        stock, fast = both(compute)
    assert_same(stock, fast, 'f')


def test_batch_normalization_of_many_rows_is_as_exact_as_chainers():
    x = (10 + np.random.RandomState(0).normal(size=(64, 24, 32, 32))).astype('f')
    link = L.BatchNormalization(24)
    with chainer.using_config('dtype', np.dtype('d')):
        exact = outputs_and_gradients(L.BatchNormalization(24), [x.astype('d')])
    stock, fast = both(lambda: outputs_and_gradients(link, [channels_last(x)]))
    for expected, one, other in zip(exact, stock, fast):
        error = np.linalg.norm(one - expected), np.linalg.norm(other - expected)
        assert error[1] <= 1.5 * error[0]


def test_arrays_of_many_blocks_on_several_threads_are_bit_identical_to_one(monkeypatch):
    random = np.random.RandomState(0)
    x = channels_last(random.normal(size=(40, 96, 24, 24)).astype('f'))  # 9 blocks
    link = L.BatchNormalization(96)
    kernels = [random.normal(size=shape).astype('f') for shape in
               [(96, 96, 3, 3), (96, 96, 1, 1), (32, 96, 5, 5)]]

    def compute():
        def function(x, *kernels):
            h = F.relu(link(x) + x)
            for W in kernels:
                h = F.convolution_2d(h, W, pad=W.shape[2] // 2)
            return h
        with engine.replaced():
            return outputs_and_gradients(function, [x, *kernels])
    found = []
    for count in 1, 2, 3:
        monkeypatch.setattr(threads, 'threads', lambda: count)
        found.append(compute())
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(threads, 'threads', lambda: 2)

    def fail(part):
        if part.start:
            raise ValueError('here')
    with pytest.raises(ValueError, match='here'):
        threads.parallel_for(fail, 10, 1, threads.WORTHWHILE)


def test_a_forked_process_has_threads_of_its_own():
    print_status = in_process('''if True:
        import os, engine
        from engine.cpu.threads import WORTHWHILE, parallel_for
        assert parallel_for(lambda block: block.start, 4, 1, WORTHWHILE) == [0, 1, 2, 3]
        child = os.fork()
        assert parallel_for(lambda block: block.start, 4, 1, WORTHWHILE) == [0, 1, 2, 3]
        if child == 0:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ''', OMP_NUM_THREADS='2')
    assert print_status == '7'


def test_blas_keeps_to_one_thread_while_the_engine_is_on():
    def counts():
        return [blas['num_threads'] for blas in threadpool_info() if blas['user_api'] == 'blas']
    with threadpool_limits(2, user_api='blas'):
        before = counts()
        assert set(before) == {2}
        with engine.replaced():
            assert set(counts()) == {1}
            engine.switch(True)  # once more, which changes nothing
        assert counts() == before


# Optimizers

@pytest.mark.parametrize('make', [
    chainer.optimizers.Adam, lambda: chainer.optimizers.Adam(weight_decay_rate=0.1, eta=0.5),
    lambda: chainer.optimizers.Adam(amsgrad=True), lambda: chainer.optimizers.Adam(adabound=True),
    chainer.optimizers.MomentumSGD, chainer.optimizers.NesterovAG],
    ids=['adam', 'decay', 'amsgrad', 'adabound', 'momentum', 'nesterov'])
@pytest.mark.parametrize('dtype', 'fd')
def test_twenty_updates_of_a_parameter_of_many_blocks(make, dtype):
    random = np.random.RandomState(0)
    start = random.normal(size=(40, 30, 3, 200)).astype(dtype)  # 11 blocks
    gradients = random.normal(size=(20, 40, 1, 3, 1)).astype(dtype)

    def compute():
        link = chainer.Link()
        with link.init_scope():
            link.W = chainer.Parameter(channels_last(start))
        optimizer = make().setup(link)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
        for gradient in gradients:
            link.W.grad = channels_last(gradient * link.W.array)
            optimizer.update()
        return [link.W.array, *link.W.update_rule.state.values()]
    assert_same(*both(compute), dtype)


def test_an_update_does_not_depend_on_the_layout_of_states_and_gradients():
    random = np.random.RandomState(0)
    start, gradient, m, v = random.uniform(size=(4, 4, 5, 3, 3)).astype('f')

    def updated(layout):
        link = L.Convolution2D(5, 4, 3, initialW=start)
        lay_out_weights(link)
        rule = chainer.optimizers.Adam().setup(link) and link.W.update_rule
        link.W.grad = layout(gradient)
        with engine.replaced():
            rule.update(link.W)
            rule.state.update(m=layout(m), v=layout(v))
            rule.update(link.W)
        return link.W.array, rule.state['m'], rule.state['v']
    for one, other in zip(updated(np.array), updated(channels_last)):
        np.testing.assert_array_equal(one, other)
        assert is_channels_last(one)


@pytest.mark.parametrize('make', [
    chainer.optimizers.Adam, chainer.optimizers.MomentumSGD, chainer.optimizers.NesterovAG])
def test_an_update_in_float16_is_chainers(make):
    def compute():
        parameter = chainer.Parameter(np.linspace(-1, 1, 12, dtype='e').reshape(3, 4))
        link = chainer.Link()
        with link.init_scope():
            link.W = parameter
        optimizer = make().setup(link)
        for i in range(3):
            link.W.grad = (i + link.W.array).astype('e')
            optimizer.update()
        return [link.W.array]
    stock, fast = both(compute)
    np.testing.assert_array_equal(*stock, *fast)


# Whole networks

def classifier(dtype):
    with chainer.using_config('dtype', np.dtype(dtype)):
        network = ResNet50(N_CLASS)
    for name, array in arrays(network).items():
        array[...] = values('resnet50', 'imagenet')[name]
    return ManifoldMixupClassifier(network)


def train(name, dtype, seed=1, optimizer=None, steps=1):
    """Loss, gradients and values of parameters and statistics after some steps."""
    model = classifier(dtype)
    engine.use(name, model)
    if optimizer:
        optimizer.setup(model)
    x, t, index = batch(16, seed=seed)
    for _ in range(steps):
        loss = model(x.astype(dtype), t, LAM, 2, index)
        model.cleargrads()
        loss.backward()
        if optimizer:
            optimizer.update()
    engine.switch(False)
    network = model.predictor
    gradients = {key.lstrip('/'): parameter.grad for key, parameter in network.namedparams()}
    return float(loss.array), gradients, arrays(network)


@pytest.mark.slow
@pytest.mark.parametrize('make', [
    lambda: chainer.optimizers.Adam(1e-4), lambda: chainer.optimizers.NesterovAG(1e-3)],
    ids=['adam', 'nesterov'])
def test_twenty_steps_of_a_network_in_float64(make):
    stock, fast = (train(name, 'd', 1, make(), 20) for name in ('stock', 'fast'))
    assert abs(fast[0] - stock[0]) <= 1e-8 * stock[0]
    for name, expected in stock[2].items():
        if name != 'base/conv1/b':  # its gradient is rounding alone, which Adam makes a step of
            assert difference(name, fast[2][name], expected) <= 1e-8, name


@pytest.mark.slow
def test_a_network_in_float32_errs_no_more_than_stock():
    """The best of four batches counts: in the others a rounding may flip a ReLU."""
    errors = {'stock': [], 'fast': []}
    for seed in range(4):
        exact = train('stock', 'd', seed)[1]
        for name in errors:
            gradients = train(name, 'f', seed)[1]
            assert all(gradient.dtype == np.float32 for gradient in gradients.values())
            errors[name].append(np.median([
                difference(key, gradients[key], exact[key]) for key in exact]))
    assert min(errors['fast']) <= 1.5 * min(errors['stock']) < 1e-4


@pytest.mark.slow
def test_the_models_that_both_engines_save_are_the_same_files(tmp_path):
    model = classifier('f')
    lay_out_weights(model)
    chainer.serializers.save_npz(str(tmp_path / 'fast.npz'), model)
    other = classifier('f')
    for parameter in other.params():
        parameter.array[...] = 0
    chainer.serializers.load_npz(str(tmp_path / 'fast.npz'), other)
    for (name, one), (_, two) in zip(sorted(model.namedparams()), sorted(other.namedparams())):
        np.testing.assert_array_equal(one.array, two.array, err_msg=name)
    with np.load(tmp_path / 'fast.npz') as npz:
        assert all(array.flags.c_contiguous for array in npz.values())


def test_weights_are_channels_last_and_stay_so_when_loaded_and_copied(tmp_path):
    model = classifier('f')
    engine.use('fast', model)
    chainer.serializers.save_npz(str(tmp_path / 'a.npz'), model)
    chainer.serializers.load_npz(str(tmp_path / 'a.npz'), model)
    for network in model, copy.deepcopy(model):
        assert is_channels_last(network.predictor.base.res5.b1.conv2.W.array)


# The switch and the process

@pytest.fixture
def owner(monkeypatch):
    """A class with a method to replace, which then is the only one that is replaced."""
    class Owner:
        def method(self, *args, **kwargs):
            return 'stock', args, kwargs
    monkeypatch.setattr(engine.seam, 'REPLACEMENTS', [])
    return Owner


def test_a_case_that_is_not_covered_is_chainers_with_the_same_arguments(owner):
    @engine.seam.replaces(owner, 'method')
    def method(self, x, **options):
        return NotImplemented if options else ('ours', x)
    with engine.replaced():
        assert owner().method(1) == ('ours', 1)
        assert owner().method(1, stock=2) == ('stock', (1,), {'stock': 2})
    assert owner().method(1) == ('stock', (1,), {})


def test_a_function_that_wraps_chainers_is_handed_it(owner):
    @engine.seam.wraps_stock(owner, 'method')
    def method(stock, self, x):
        return 'around', stock(self, x + 1)
    with engine.replaced():
        assert owner().method(1) == ('around', ('stock', (2,), {}))
    assert owner().method(1) == ('stock', (1,), {})


def test_nothing_of_the_gpu_is_imported_before_one_is_used():
    found = in_process('''if True:
        import sys, chainer, engine
        engine.use('fast', chainer.links.Linear(2, 3), graph=True)
        print([name for name in sys.modules if name.startswith('engine.gpu')])
        ''')
    assert found == '[]'


def test_switching_off_leaves_chainer_as_it_was():
    functions = [getattr(owner, name) for owner, name, _, _ in engine.seam.REPLACEMENTS]
    with engine.replaced():
        assert all(getattr(owner, name) is ours
                   for owner, name, _, ours in engine.seam.REPLACEMENTS)
    assert [getattr(owner, name) for owner, name, _, _ in engine.seam.REPLACEMENTS] == functions
    assert all(stock is function for function, (_, _, stock, _)
               in zip(functions, engine.seam.REPLACEMENTS))


def test_an_error_while_the_engine_is_on_switches_it_off():
    owner, name, stock, _ = engine.seam.REPLACEMENTS[0]
    with pytest.raises(KeyError), engine.replaced():
        raise KeyError
    assert getattr(owner, name) is stock


def test_an_unknown_engine_is_an_error_that_names_the_engines():
    with pytest.raises(ValueError, match='fast, stock'):
        engine.use('warp', chainer.Chain())


AVX512 = {'avx512f', 'avx512dq', 'avx512bw', 'avx512vl'}


@pytest.mark.parametrize('flags, kernels', [
    (AVX512, 'SkylakeX'), (AVX512 - {'avx512vl'}, None), ({'avx2'}, None), (set(), None)])
def test_blas_kernels_follow_the_processor(flags, kernels):
    assert environment.wanted(flags).get('OPENBLAS_CORETYPE') == kernels


def test_the_processors_flags_are_read():
    flags = environment.cpu_flags()
    assert not os.path.exists('/proc/cpuinfo') or flags or os.uname().machine != 'x86_64'


@contextlib.contextmanager
def variables(monkeypatch, **values):
    with monkeypatch.context() as patch:
        for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
            patch.delenv(name, raising=False)
        for name, value in values.items():
            patch.setenv(name, value)
        environment.threads.cache_clear()
        yield
    environment.threads.cache_clear()


@pytest.mark.parametrize('values, expected', [
    ({'OMP_NUM_THREADS': '1'}, 1), ({'OPENBLAS_NUM_THREADS': '3', 'OMP_NUM_THREADS': '1'}, 3),
    ({'OMP_NUM_THREADS': '64'}, environment.MOST_THREADS)])
def test_threads_are_as_many_as_the_user_has_asked_of_blas(monkeypatch, values, expected):
    with variables(monkeypatch, **values):
        assert environment.threads() == expected


def in_process(code, **values):
    surroundings = {name: value for name, value in os.environ.items()
                    if not name.startswith('OPENBLAS')}
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, env={**surroundings, **values},
                          capture_output=True, text=True, check=True, timeout=300).stdout.strip()


def test_the_environment_is_prepared_before_numpy_and_the_users_stays(monkeypatch):
    monkeypatch.setattr(environment, 'cpu_flags', lambda: AVX512)
    monkeypatch.setattr(os, 'environ', {})
    assert environment.prepare() == {}  # too late
    monkeypatch.delitem(sys.modules, 'numpy')
    assert environment.prepare() == {'OPENBLAS_CORETYPE': 'SkylakeX'} == os.environ
    monkeypatch.setattr(os, 'environ', {'OPENBLAS_CORETYPE': 'Zen'})
    assert environment.prepare() == {} and os.environ == {'OPENBLAS_CORETYPE': 'Zen'}
    assert environment.in_effect() == {'OPENBLAS_CORETYPE': 'Zen'}


@pytest.mark.parametrize('script', ['train_baseline', 'train_manifoldmixup'])
def test_the_scripts_import_the_engine_before_numpy(script):
    order = in_process(f'import sys, {script}; print(*sys.modules)').split()
    assert order.index('engine.environment') < order.index('numpy')
