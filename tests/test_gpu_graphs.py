"""Steps replayed from CUDA graphs: bit for bit the eager ones."""
import collections
import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import training
from chainer.training import extensions

import engine
import mixup
from engine.gpu import capture, cudnn_interface, graphs
from engine.gpu.evaluation import GraphedEvaluation
from engine.gpu.graphs import GraphedStep
from mixup import LOSSES, ManifoldMixupClassifier, ManifoldMixupNetwork
from model import ResNet50

pytestmark = pytest.mark.gpu


class Network(ManifoldMixupNetwork):
    """A small network with all that ResNet-50 has, mixed at one of three layers."""

    layers = range(3)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 8, 3, 1, 1)
            self.bn1 = L.BatchNormalization(8)
            self.block = chainer.links.model.vision.resnet.BuildingBlock(2, 8, 4, 16, 2)
            self.fc = L.Linear(16, 4)

    @property
    def stages(self):
        return F.identity, self.stem, self.block

    def stem(self, x):
        return F.max_pooling_2d(F.relu(self.bn1(self.conv1(x))), 3, 2)

    def head(self, h):
        return self.fc(F.average_pooling_2d(h, h.shape[2:]))


def batches(n_batch, n=6, size=9, dtype='f'):
    random = np.random.RandomState(0)
    device = chainer.get_device('@cupy:0')
    return [(device.send(random.uniform(size=(n, 3, size, size)).astype(dtype)),
             device.send(random.randint(0, 4, n).astype(np.int32))) for _ in range(n_batch)]


OPTIMIZERS = {'alpha': chainer.optimizers.Adam, 'lr': chainer.optimizers.NesterovAG}


class Loud(ManifoldMixupClassifier):
    """A classifier whose gradients overflow at loss scales that float16 can hold."""

    def forward(self, *args):
        return 64 * super().forward(*args)


def train(graph, n_step, rate='alpha', mixup_hidden=True, network=Network, n=6, size=9,
          scaling=None, **mixup_options):
    """Losses, and all numbers that the model and the optimizer hold in the end.

    In mixed16 with loss scaling, if it is given.
    """
    np.random.seed(0)
    with chainer.using_config('dtype', np.float32 if scaling is None else chainer.mixed16):
        model = (ManifoldMixupClassifier if scaling is None else Loud)(
            network(), mixup_hidden, **mixup_options)
    model.to_device('@cupy:0')
    engine.use('fast', model)
    optimizer = OPTIMIZERS[rate]().setup(model)
    if scaling is not None:
        optimizer.use_fp32_update()
        optimizer.loss_scaling(**scaling)
    for parameter in model.params():
        if parameter.ndim > 1:
            parameter.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    step = GraphedStep(optimizer)
    losses = []
    with chainer.using_config('cudnn_deterministic', True):
        for i, (x, t) in enumerate(batches(n_step, n, size, 'f' if scaling is None else 'e')):
            setattr(optimizer, rate, .01 / (1 + i))
            if graph:
                losses.append(float(step(x, t)))
            else:
                optimizer.update(lambda *args: losses.append(model(*args)) or losses[-1], x, t)
    if not graph:
        losses = [float(loss.array) for loss in losses]
    assert step.n_replayed == (n_step - len(step.recorded) if graph else 0)
    return losses, state(optimizer), np.random.randint(1 << 30)


def state(optimizer):
    holder = {}
    chainer.serializers.DictionarySerializer(holder).save(optimizer.target)
    chainer.serializers.DictionarySerializer(holder)['optimizer'].save(optimizer)
    holder['loss_scale'] = optimizer._loss_scale
    for name, parameter in optimizer.target.namedparams():
        if parameter.dtype == np.float16:
            holder[name + '/float32'] = parameter.update_rule._fp32_param.array.get()
    return {name: np.asarray(value) for name, value in holder.items()}


def assert_equal(one, other):
    assert one[0] == other[0] and one[1].keys() == other[1].keys() and one[2] == other[2]
    for name, value in one[1].items():
        np.testing.assert_array_equal(value, other[1][name], name)


@pytest.mark.parametrize('rate', OPTIMIZERS)
@pytest.mark.parametrize('mixup_hidden', [True, False])
def test_a_hundred_replayed_steps_are_bit_for_bit_the_eager_ones(rate, mixup_hidden):
    eager, replayed = (train(graph, 100, rate, mixup_hidden) for graph in (False, True))
    assert len(set(eager[0])) == 100 and all(np.isfinite(eager[0]))
    assert_equal(eager, replayed)


@pytest.mark.parametrize('rate', OPTIMIZERS)
@pytest.mark.parametrize('scaling', [{'interval': 10}, {'scale': 128.}], ids=['dynamic', 'static'])
def test_replayed_steps_in_mixed16_are_bit_for_bit_the_eager_ones(rate, scaling):
    eager, replayed = (train(graph, 60, rate, scaling=scaling) for graph in (False, True))
    assert len(set(eager[0])) > 50 and all(np.isfinite(eager[0]))
    assert_equal(eager, replayed)
    updates, calls = (eager[1][f'optimizer/{name}t'] for name in ('predictor/fc/W/', ''))
    assert updates < calls == 60 if 'interval' in scaling else updates == calls == 60


@pytest.mark.parametrize('lam_per', ['batch', 'example'])
@pytest.mark.parametrize('scaling', [None, {'scale': 128.}], ids=['float32', 'mixed16'])
def test_replayed_steps_use_the_lams_that_are_drawn(lam_per, scaling):
    eager, replayed = (train(graph, 40, scaling=scaling, lam_per=lam_per, mixup_alpha=1)
                       for graph in (False, True))
    assert len(set(eager[0])) > 30
    assert_equal(eager, replayed)


@pytest.mark.parametrize('mixup_hidden', [True, False])
@pytest.mark.parametrize('scaling', [None, {'interval': 10}], ids=['float32', 'mixed16'])
def test_replayed_steps_with_bce_are_bit_for_bit_the_eager_ones(mixup_hidden, scaling):
    eager, replayed = (train(graph, 40, 'lr', mixup_hidden, scaling=scaling,
                             criterion=LOSSES['bce']) for graph in (False, True))
    assert len(set(eager[0])) > 30 and all(np.isfinite(eager[0]))
    assert_equal(eager, replayed)


def mixup_data_by_roots(x, t, lam, index=None):
    """A modified method, whose weights are the roots of lam and 1 - lam."""
    index = chainer.backend.get_array_module(x).asarray(index)
    lam = mixup.as_weights(lam, x)
    return lam ** 0.5 * x + F.sqrt(1 - lam) * F.permutate(x, index), t, t[index]


@pytest.mark.parametrize('lam_per', ['batch', 'example'])
def test_a_modified_method_is_replayed_bit_for_bit(lam_per, monkeypatch):
    plain = train(False, 1, lam_per=lam_per)
    monkeypatch.setattr(mixup, 'mixup_data', mixup_data_by_roots)
    eager, replayed = (train(graph, 40, lam_per=lam_per) for graph in (False, True))
    assert eager[0][0] != plain[0][0] and len(set(eager[0])) == 40
    assert_equal(eager, replayed)


class Drawing(chainer.Chain):
    """A classifier that draws an int, None or an int, a float, and arrays of floats and ints."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(3, 4)

    def draw(self, n):
        return (np.random.choice([2, 3]), [None, 1][np.random.randint(2)], np.random.random(),
                np.random.random(n), np.random.permutation(n))

    def forward(self, x, t, multiple, shift, factor, factors, index):
        xp = self.xp
        y = int(multiple) * self.fc(F.mean(F.permutate(x, xp.asarray(index)), (2, 3)))
        y *= F.broadcast_to(xp.asarray(factors, 'f')[:, None], y.shape)
        y = y if shift is None else y + xp.arange(4, dtype='f')
        return F.softmax_cross_entropy(y, t) * chainer.Variable(xp.asarray(factor, 'f'))


def test_integers_and_none_select_a_graph_and_other_draws_are_its_inputs():
    losses = []
    for graph in False, True:
        np.random.seed(0)
        model = Drawing()
        model.to_device('@cupy:0')
        engine.use('fast', model)
        optimizer = chainer.optimizers.Adam(.01).setup(model)
        step, found = GraphedStep(optimizer), []
        for x, t in batches(40):
            if graph:
                found.append(float(step(x, t)))
            else:
                optimizer.update(lambda *args: found.append(model(*args)) or found[-1],
                                 x, t, *model.draw(len(x)))
        losses.append([float(chainer.as_array(loss)) for loss in found])
    assert losses[0] == losses[1] and len(set(losses[0])) == 40
    assert len(step.recorded) == 4 and step.n_replayed == 36


def test_steps_of_resnet50():
    eager, replayed = (train(graph, 12, network=lambda: ResNet50(4), n=2, size=32)
                       for graph in (False, True))
    assert_equal(eager, replayed)


@pytest.mark.parametrize('optimizer, change', [
    (chainer.optimizers.SGD, None), (chainer.optimizers.AMSGrad, None),
    (chainer.optimizers.NesterovAG, lambda rule: setattr(rule.hyperparam, 'lr', 1.)),
    (chainer.optimizers.NesterovAG, lambda rule: rule.add_hook(
        chainer.optimizer_hooks.WeightDecay(.1), timing='post'))])
def test_no_step_is_recorded_that_would_keep_its_learning_rate(optimizer, change):
    model = ManifoldMixupClassifier(Network(), False)
    model.to_device('@cupy:0')
    engine.use('fast', model)
    optimizer = optimizer(.01).setup(model)
    if change:
        change(model.predictor.fc.W.update_rule)
    step = GraphedStep(optimizer)
    losses = [float(step(*batches(1)[0])) for _ in range(3)]
    assert not step.recorded and len(set(losses)) == 3


def test_another_shape_is_recorded_anew_and_so_are_arrays_that_moved():
    model = ManifoldMixupClassifier(Network(), False)
    model.to_device('@cupy:0')
    engine.use('fast', model)
    step = GraphedStep(chainer.optimizers.Adam().setup(model))
    for n, recorded, replayed in (4, 1, 0), (4, 1, 1), (3, 2, 1), (4, 2, 2), (3, 2, 3):
        step(*batches(1, n)[0])
        assert (len(step.recorded), step.n_replayed) == (recorded, replayed)
    model.predictor.fc.W.array = model.predictor.fc.W.array.copy()
    step(*batches(1, 4)[0])
    assert step.n_replayed == 3
    step(*batches(1, 4)[0])
    assert step.n_replayed == 4
    assert all(p.grad is None for p in model.params())


def launched(function):
    """What a simulated GPU is asked for, by kind: a Counter; names of synchronizations."""
    log = pytest.importorskip('cupy').LOG if is_simulated() else pytest.skip(
        'counts what a simulated GPU is asked for')
    del log[:]
    function()
    return collections.Counter(kind for kind, _ in log), \
        [name for kind, name in log if kind in ('d2h', 'sync', 'gemm')]


def is_simulated():
    import cupy
    return hasattr(cupy, 'LOG')


@pytest.mark.parametrize('loss, dtype', [
    ('ce', np.dtype('f')), ('ce', chainer.mixed16), ('bce', np.dtype('f'))], ids=repr)
def test_neither_eager_steps_nor_replays_wait_for_the_gpu(loss, dtype):
    np.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = ManifoldMixupClassifier(ResNet50(4), layer_mix=3, criterion=LOSSES[loss])
    model.to_device('@cupy:0')
    engine.use('fast', model)
    optimizer = chainer.optimizers.Adam().setup(model)
    if dtype == chainer.mixed16:
        optimizer.use_fp32_update()
        optimizer.loss_scaling(scale=1.)
    step = GraphedStep(optimizer)
    (x, t), = batches(1, 2, 32, np.dtype(dtype))
    optimizer.update(model, x, t)
    eager, waits = launched(lambda: optimizer.update(model, x, t))
    assert not waits
    assert eager['cudnn'] == 53 + 53 + 52 + 3  # no gradient of the images
    assert eager['kernel'] + eager['ufunc'] < 300
    step(x, t)
    replayed, waits = launched(lambda: step(x, t))
    assert not waits
    assert replayed['graph'] == replayed['h2d'] == 1 and replayed.total() <= 8


def evaluations(evaluate, sizes, device='@cupy:0'):
    """What is reported of batches of these sizes."""
    reporter, found = chainer.Reporter(), []
    reporter.add_observer('main', getattr(evaluate, 'classifier', evaluate))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for n in sizes:
            (x, t), = batches(1, n)
            with reporter.scope({}):
                evaluate(x, t)
                found.append({name: float(chainer.as_array(value))
                              for name, value in reporter.observation.items()})
    return found


def test_replayed_evaluations_are_bit_for_bit_the_eager_ones():
    np.random.seed(0)
    model = ManifoldMixupClassifier(Network())
    model.to_device('@cupy:0')
    engine.use('fast', model)
    recorded = GraphedEvaluation(model)
    sizes = 6, 6, 4, 6, 4
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        recorded(*batches(1, 6)[0])  # nobody listens to the one that is recorded
    expected = evaluations(model, sizes)
    assert evaluations(recorded, sizes) == expected and len(set(map(str, expected))) == 2
    assert recorded.n_replayed == 4 and expected[0].keys() == {'main/loss', 'main/accuracy'}

    # Other weights and statistics in the same place, then in another
    model.predictor.bn1.avg_mean[...] += 1
    model.predictor.fc.W.array[...] *= 2
    changed = evaluations(model, sizes)
    assert evaluations(recorded, sizes) == changed != expected and recorded.n_replayed == 9
    model.predictor.fc.W.array = model.predictor.fc.W.array * 2
    assert evaluations(recorded, sizes) == evaluations(model, sizes) != changed
    assert recorded.n_replayed == 12
    with pytest.raises(RuntimeError, match='no_backprop_mode'):
        recorded(*batches(1)[0])


def test_the_first_evaluation_shows_cudnn_the_stream_that_is_recorded_next():
    """What it reports also lies elsewhere than what the next evaluations compute."""
    np.random.seed(0)
    model = ManifoldMixupClassifier(Network())
    model.to_device('@cupy:0')
    engine.use('fast', model)
    recorded = GraphedEvaluation(model)
    if is_simulated():
        cudnn_interface.load().known_pairs.clear()
    first, second = batches(2)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        losses = [recorded(*batch) for batch in (first, second, first)]
        assert recorded.n_replayed == 2
        assert float(losses[0]) == float(losses[2]) != float(losses[1])


def test_where_memory_is_short_others_give_theirs_back_but_not_graphs(monkeypatch):
    import cupy
    given = cupy.cuda.Memory
    failures = []

    def scarce(size):
        if len(failures) < 1:
            failures.append(size)
            raise cupy.cuda.runtime.CUDARuntimeError(2)
        return given(size)
    monkeypatch.setattr(cupy.cuda, 'Memory', scarce)
    assert capture.allocate(512) and failures == [512]
    monkeypatch.setattr(cupy.cuda, 'Memory', lambda size: failures.clear() or scarce(size))
    with pytest.raises(MemoryError, match='512 bytes left to record a step .*; a smaller batch'):
        capture.allocate(512)


class Data(chainer.dataset.Converter):

    def __init__(self, n):
        random = np.random.RandomState(1)
        self.x = random.uniform(size=(n, 3, 9, 9)).astype(np.float32)
        self.t = random.randint(0, 4, n).astype(np.int32)

    def __call__(self, indices, device):
        return device.send(self.x[indices]), device.send(self.t[indices])


def trainer(out, graph, epochs=3, order=None):
    np.random.seed(0)
    model = ManifoldMixupClassifier(Network())
    optimizer = chainer.optimizers.Adam(.01).setup(model)
    data, device = Data(24), chainer.get_device('@cupy:0')
    iterator = chainer.iterators.SerialIterator(
        range(24), 6, order_sampler=chainer.iterators.ShuffleOrderSampler(
            order or np.random.RandomState(0)))
    test = chainer.iterators.SerialIterator(range(20), 6, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(iterator, optimizer, data, device)
    trainer = training.Trainer(updater, (epochs, 'epoch'), out=str(out))
    trainer.extend(extensions.Evaluator(test, model, data, device))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.snapshot(filename='snapshot_{.updater.epoch}'))
    engine.use('fast', model, graph)
    if graph:
        trainer.get_extension('validation').eval_func = GraphedEvaluation(model)
    return trainer


def log(out):
    with open(out / 'log') as file:
        return [{k: v for k, v in entry.items() if k != 'elapsed_time'}
                for entry in json.load(file)]


def test_logs_evaluations_and_resumed_runs_are_those_of_eager_steps(tmp_path):
    with chainer.using_config('cudnn_deterministic', True):
        for name in 'eager', 'graph':
            trainer(tmp_path / name, name == 'graph').run()
        assert log(tmp_path / 'graph') == log(tmp_path / 'eager')
        assert 'main/accuracy' in log(tmp_path / 'graph')[0]

        order = np.random.RandomState(0)
        trainer(tmp_path / 'resumed', True, 1, order).run()
        random, order_then = np.random.get_state(), order.get_state()
        resumed = trainer(tmp_path / 'resumed', True, order=order)
        chainer.serializers.load_npz(tmp_path / 'resumed' / 'snapshot_1', resumed)
        np.random.set_state(random)
        order.set_state(order_then)
        resumed.run()
    assert log(tmp_path / 'resumed')[1:] == log(tmp_path / 'eager')[1:]
    with np.load(tmp_path / 'eager' / 'snapshot_3') as one, \
            np.load(tmp_path / 'resumed' / 'snapshot_3') as other:
        for name in one.files:
            if 'model' in name or 'optimizer' in name:
                np.testing.assert_array_equal(one[name], other[name], name)


def test_without_graphs_an_updater_is_chainers(tmp_path):
    run = trainer(tmp_path, False, 1)
    run.run()
    assert graphs.steps is None
