"""Evaluator, optimizer, schedules and random streams against independent calculations; files."""
import argparse
import itertools
import json
import os
import threading
import types

import chainer
import chainer.links as L
import numpy as np
import pytest

import experiment
from experiment import plots, run_directory
from experiment.model_files import BackgroundWriter
from experiment.optimizer import LearningRate


def arguments(**changes):
    return argparse.Namespace(**{
        'optimizer': 'sgd', 'learnrate': 0.1, 'weight_decay': 0., 'schedule': 'constant',
        'warmup': 0., 'epoch': 10, 'dtype': 'float32', **changes})


@pytest.mark.parametrize('batchsize', [1, 3, 4, 7, 10, 13])
def test_validation_figures_are_exact_whatever_the_batch_size(batchsize):
    random = np.random.RandomState(0)
    x, t = random.normal(size=(10, 4)).astype('f'), random.randint(3, size=10).astype('i')
    classifier = L.Classifier(L.Linear(4, 3))
    iterator = chainer.iterators.SerialIterator(range(10), batchsize, repeat=False, shuffle=False)
    evaluator = experiment.ExactEvaluator(
        iterator, classifier, converter=lambda batch, device: (x[batch], t[batch]))
    evaluator.name = 'validation'
    y = (x @ classifier.predictor.W.array.T).astype('d')
    loss = np.mean(np.log(np.exp(y).sum(1)) - y[np.arange(10), t])
    for _ in range(2):  # the second time, the iterator starts anew
        result = evaluator()
        assert result['validation/main/loss'] == pytest.approx(loss, rel=1e-6)
        assert result['validation/main/accuracy'] == pytest.approx(np.mean(y.argmax(1) == t))


def test_evaluation_never_mixes():
    from mixup import ManifoldMixupClassifier
    from tests.test_mixup import Linear
    network = Linear()
    iterator = chainer.iterators.SerialIterator(range(4), 3, repeat=False, shuffle=False)
    evaluator = experiment.ExactEvaluator(
        iterator, ManifoldMixupClassifier(network), converter=lambda batch, device: (
            np.ones((len(batch), 4), 'f'), np.zeros(len(batch), 'i')))
    evaluator.name = 'validation'
    evaluator()
    assert network.asked == [(False, None, None)] * 2


class Small(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(2, 3, 1)
            self.bn = L.BatchNormalization(3)
            self.fc = L.Linear(3, 2)


def updated(args, gradients):
    """Parameters before and after updates with these gradients, by name."""
    model = Small()
    for parameter in model.params():
        parameter.array[...] = np.random.RandomState(0).normal(size=parameter.shape)
    before = {name: parameter.array.astype('d') for name, parameter in model.namedparams()}
    optimizer = experiment.setup_optimizer(model, args)
    for gradient in gradients:
        for parameter in model.params():
            parameter.grad = np.full(parameter.shape, gradient, 'f')
        optimizer.update()
    return before, {name: parameter.array for name, parameter in model.namedparams()}


@pytest.mark.parametrize('decay', [0., 0.3])
@pytest.mark.parametrize('optimizer, nesterov', [('sgd', True), ('momentum', False)])
def test_sgd_has_momentum_and_decay_on_all_but_bn(optimizer, nesterov, decay):
    gradients = 0.5, -0.2, 0.7
    before, after = updated(arguments(optimizer=optimizer, weight_decay=decay), gradients)
    for name, p in before.items():
        own = 0 if name in ('/bn/gamma', '/bn/beta') else decay
        velocity = np.zeros_like(p)
        for gradient in gradients:  # Sutskever's form, as torch.optim.SGD(nesterov=...)
            g = gradient + own * p
            velocity = 0.9 * velocity + g
            p = p - 0.1 * (g + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(after[name], p, rtol=1e-5, atol=1e-6, err_msg=name)


def test_adam_is_adam_with_chainers_defaults():
    gradients = 0.5, -0.2, 0.7
    before, after = updated(arguments(optimizer='adam', learnrate=0.01), gradients)
    for name, p in before.items():
        m = v = 0
        for t, g in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            p = p - 0.01 * (m / (1 - 0.9 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8)
        np.testing.assert_allclose(after[name], p, rtol=1e-5, atol=1e-6, err_msg=name)


def learning_rates(**changes):
    """The rate with which each of 20 iterations, 2 an epoch, is made; and the one reported."""
    args = arguments(**changes)
    model = Small()
    optimizer = experiment.setup_optimizer(model, args)
    used = []

    class Updater(chainer.training.updaters.StandardUpdater):
        def update_core(self):
            used.append(optimizer.alpha if args.optimizer == 'adam' else optimizer.lr)
            resumed = LearningRate(args)
            resumed.initialize(trainer)
            assert resumed.lr == used[-1]
            self.get_iterator('main').next()
    iterator = chainer.iterators.SerialIterator(range(4), 2)
    trainer = chainer.training.Trainer(Updater(iterator, optimizer), (10, 'epoch'), out='/nowhere')
    trainer.extend(LearningRate(args))
    reported = []
    trainer.extend(lambda trainer: reported.append(trainer.observation['lr']), name='look')
    trainer._done = False
    for _, entry in trainer._extensions.items():
        getattr(entry.extension, 'initialize', lambda trainer: None)(trainer)
    for _ in range(20):
        trainer.observation = {}
        with trainer.reporter.scope(trainer.observation):
            trainer.updater.update()
            for entry in trainer._extensions.values():
                entry.extension(trainer)
    assert reported == used
    return np.array(used)


@pytest.mark.parametrize('optimizer', ['sgd', 'adam'])
def test_schedules_set_the_rate_of_each_iteration(optimizer):
    progress = np.arange(20) / 20
    for schedule, expected in (('constant', np.ones(20)),
                               ('linear', 1 - progress),
                               ('cosine', np.cos(np.pi * progress) / 2 + 0.5),
                               ('step', np.repeat([1, 0.1, 0.01], [10, 5, 5])),
                               ('step-thirds', np.repeat([1, 0.1, 0.01], [7, 7, 6]))):
        rates = learning_rates(optimizer=optimizer, schedule=schedule, learnrate=0.1)
        np.testing.assert_allclose(rates, 0.1 * expected, rtol=1e-12)


@pytest.mark.parametrize('optimizer', ['momentum', 'adam'])
@pytest.mark.parametrize('warmup, rising', [  # 2 iterations an epoch
    (3., [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]), (1.25, [1 / 2.5, 2 / 2.5]), (.25, [])])
def test_a_warm_up_rises_by_the_same_amount_in_each_iteration_to_the_full_rate(
        optimizer, warmup, rising):
    rates = learning_rates(optimizer=optimizer, warmup=warmup, learnrate=0.1) / 0.1
    np.testing.assert_allclose(rates, rising + [1] * (20 - len(rising)), rtol=1e-12)


def test_after_a_warm_up_the_schedule_spans_the_epochs_that_are_left():
    left = np.arange(16) / 16  # of 20 iterations
    for schedule, expected in (('linear', 1 - left), ('cosine', np.cos(np.pi * left) / 2 + 0.5),
                               ('step', np.repeat([1, 0.1, 0.01], [8, 4, 4]))):
        rates = learning_rates(warmup=2., schedule=schedule) / 0.1
        np.testing.assert_allclose(rates, [.25, .5, .75, 1, *expected], rtol=1e-12)


def draws(streams):
    return {'order': streams.order.randint(2 ** 30, size=5).tolist(),
            'augmentation': streams.augmentation.randint(2 ** 30, size=5).tolist(),
            'global': np.random.randint(2 ** 30, size=5).tolist()}


def test_the_streams_of_a_seed_are_independent_and_repeat():
    seen = []
    for seed in 0, 1, 0:
        streams = experiment.RandomStreams(seed)
        streams.seed_global('weights')
        weights = np.random.randint(2 ** 30, size=5).tolist()
        streams.seed_global('mixup')
        seen.append([weights, *draws(streams).values()])
    assert seen[0] == seen[2]
    assert len({tuple(values) for values in seen[0] + seen[1]}) == 8


def test_what_one_stream_draws_moves_no_other():
    def order_after(n_global, n_augmentation):
        streams = experiment.RandomStreams(0)
        streams.seed_global('mixup')
        np.random.normal(size=n_global)
        streams.augmentation.normal(size=n_augmentation)
        return streams.order.randint(2 ** 30, size=5).tolist()
    assert order_after(0, 0) == order_after(7, 3)


def test_streams_go_on_from_a_snapshot_where_they_were(tmp_path):
    streams = experiment.RandomStreams(0)
    streams.seed_global('mixup')
    np.random.normal()  # leaves half a pair of normal numbers in the generator
    streams.order.permutation(10)
    path = str(tmp_path / 'streams.npz')
    chainer.serializers.save_npz(path, streams)
    expected = np.random.normal(), draws(streams)

    streams = experiment.RandomStreams(1)
    streams.seed_global('weights')
    experiment.model_files.load_npz(path, streams, 'streams')
    assert (np.random.normal(), draws(streams)) == expected


def test_curves_are_drawn_seldom_and_in_the_end(tmp_path, monkeypatch):
    clock, drawn = itertools.count(), []
    monkeypatch.setattr(plots.time, 'monotonic', lambda: next(clock))  # each drawing takes 1 s
    monkeypatch.setattr(plots, 'plot', lambda log, quantity, path: drawn.append(len(log)))
    plot_log, trainer = plots.PlotLog(), types.SimpleNamespace(out=str(tmp_path))
    for epoch in range(1, 80):
        (tmp_path / 'log').write_text(json.dumps([{'epoch': i} for i in range(epoch)]))
        plot_log(trainer)
    assert drawn[:4] == [1, 1, 51, 51] and len(drawn) == 4  # twice: loss and accuracy
    plot_log.finalize()
    assert drawn[4:] == [79, 79]
    plot_log.finalize()
    assert len(drawn) == 6


def test_what_is_written_in_the_background_is_whole_or_said_to_have_failed(tmp_path):
    go_on = threading.Event()

    def save(file, target):
        go_on.wait(60)
        if 'wrong' in target:
            raise OSError('no space left')
        file.write(target.encode())
    writer = BackgroundWriter(save)
    writer('one', str(tmp_path), 'first')  # returns before it is written
    assert not (tmp_path / 'one').exists()
    go_on.set()
    writer('two', str(tmp_path), 'wrong')
    assert (tmp_path / 'one').read_text() == 'first'
    with pytest.raises(OSError, match='no space left'):
        writer('three', str(tmp_path), 'third')
    writer('three', str(tmp_path), 'third')
    writer.finalize()
    assert sorted(os.listdir(tmp_path)) == ['one', 'three']


def test_a_copy_without_git_says_its_commit_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert run_directory.commit() is None
    monkeypatch.setenv('GIT_COMMIT', 'c0ffee')
    assert run_directory.commit() == 'c0ffee'
