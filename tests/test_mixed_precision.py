"""Snapshots and logs of a run in mixed16, with stock Chainer on a CPU."""
import argparse
import types

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import experiment
from experiment.mixed_precision import MixedPrecision


def trained():
    """A classifier and its optimizer."""
    np.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Classifier(chainer.Sequential(L.Linear(4, 8), L.BatchNormalization(8), F.relu,
                                                L.Linear(8, 3)))
    return model, experiment.setup_optimizer(model, argparse.Namespace(
        optimizer='sgd', learnrate=.001, weight_decay=1e-3, dtype='mixed16'))


def train(model, optimizer, steps):
    """Train on losses whose gradients overflow float16 at the larger loss scales."""
    for i in steps:
        random = np.random.RandomState(i)
        x, t = random.normal(size=(6, 4)).astype('e'), random.randint(0, 3, 6).astype('i')
        optimizer.update(lambda: 50 * model(x, t))


def everything(model, optimizer):
    return [a for p in model.params() for a in (p.array, getattr(
        p.update_rule._fp32_param, 'array', None), *p.update_rule.state.values())] + [
            optimizer._loss_scale, optimizer._loss_scaling_isnan_ever]


@pytest.mark.filterwarnings('ignore:Non finite number found')
@pytest.mark.parametrize('kept', [True, False])
def test_a_resumed_run_goes_on_from_the_float32_weights_and_the_loss_scale(tmp_path, kept):
    files = [tmp_path / f'{name}.npz' for name in ('model', 'optimizer', 'extension')]
    with np.errstate(all='ignore'):
        one, other = trained(), trained()
        train(*one, range(20))
        for path, target in zip(files, (*one, MixedPrecision(one[1]))):
            chainer.serializers.save_npz(path, target)
        for path, target in zip(files[:2 + kept], (*other, MixedPrecision(other[1]))):
            chainer.serializers.load_npz(path, target)
        for run in one, other:
            train(*run, range(20, 25))
    same = [np.array_equal(a, b) for a, b in zip(everything(*one), everything(*other))]
    assert all(same) == kept
    assert one[1]._loss_scaling_isnan_ever and 1 < one[1]._loss_scale < 2 ** 20


def test_a_mean_over_an_epoch_is_a_sum_in_float32():
    extension, summary = MixedPrecision(None), chainer.reporter.DictSummary()
    losses = np.random.RandomState(0).uniform(2, 3, 1000).astype(np.float16)
    for loss in losses:
        trainer = types.SimpleNamespace(observation={
            'array': np.array(loss), 'variable': chainer.Variable(np.array(loss)), 'lr': .1})
        extension(trainer)
        summary.add(trainer.observation)
    means = summary.compute_mean()
    for name in 'array', 'variable':
        np.testing.assert_allclose(means[name], losses.astype(np.float64).mean(), rtol=1e-5)
    assert means['lr'] == pytest.approx(.1)
