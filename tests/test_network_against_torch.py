"""Whole networks against their like in PyTorch: same weights, images, lam, index and layer.

Its values come from ``reference/values.npz``; where torch is installed it also computes beside
Chainer.
"""
import functools
import importlib.util
import os

import chainer
import numpy as np
import pytest

import engine
from mixup import ManifoldMixupClassifier
from model import ARCHITECTURES
from model.wide_resnet import WideResNet
from tests.reference.cases import CASES, LAM, N_CLASS, batch_of, digest, weights

TORCH = importlib.util.find_spec('torch') is not None
VALUES = os.path.join(os.path.dirname(__file__), 'reference', 'values.npz')


class WideResNet16_2(WideResNet):
    depth, width = 16, 2


NETWORKS = {**ARCHITECTURES, 'wrn16-2': WideResNet16_2}


def arrays(network):
    """Parameters and running statistics of a network by name, the live arrays."""
    found = {name.lstrip('/'): parameter.array for name, parameter in network.namedparams()}
    for path, link in network.namedlinks():
        if isinstance(link, chainer.links.BatchNormalization):
            found[f'{path}/avg_mean'.lstrip('/')] = link.avg_mean
            found[f'{path}/avg_var'.lstrip('/')] = link.avg_var
    return found


@functools.cache
def shapes(architecture, stem):
    network = NETWORKS[architecture](N_CLASS, stem)
    return {name: array.shape for name, array in arrays(network).items()}


class Logits(chainer.LinkHook):
    """Keeps what a network returned."""

    def __init__(self, network):
        self.network = network

    def forward_postprocess(self, args):
        if args.link is self.network:
            self.y = args.out[0] if isinstance(args.out, tuple) else args.out


@functools.lru_cache(maxsize=1)
def values(architecture, stem):
    return weights(shapes(architecture, stem))


def step(engine_name, architecture, stem, layer_mix, dtype):
    """Loss, logits, gradients and new statistics of one training step by an engine."""
    x, t, index = batch_of(architecture, stem)
    with chainer.using_config('dtype', dtype):
        network = NETWORKS[architecture](N_CLASS, stem)
    classifier = ManifoldMixupClassifier(network, mixup_hidden=layer_mix is not None)
    for name, array in arrays(network).items():
        array[...] = values(architecture, stem)[name]
    engine.use(engine_name, classifier)
    with Logits(network) as logits:
        loss = classifier(x.astype(dtype), t, LAM, layer_mix, index)
    classifier.cleargrads()
    loss.backward()
    engine.switch(False)
    gradients = {name.lstrip('/'): parameter.grad for name, parameter in network.namedparams()}
    statistics = {name: array for name, array in arrays(network).items() if name not in gradients}
    return float(loss.array), logits.y.array, gradients, statistics


@functools.lru_cache(maxsize=1)
def torch_step(architecture, stem, layer_mix, dtype):
    from tests.reference.networks_torch import loss_and_gradients
    x, t, index = batch_of(architecture, stem)
    return loss_and_gradients(
        architecture, values(architecture, stem), x, t, stem, layer_mix, LAM, index, dtype)


def difference(name, actual, expected):
    """||actual - expected|| relative to ||expected||; absolute for a bias before a BN.

    The gradient of that bias is zero but for rounding.
    """
    norm = 1 if name == 'base/conv1/b' else np.linalg.norm(expected)
    return np.linalg.norm(actual - expected) / norm


def runs(*quick):
    """Each case by each engine; case by case, so that PyTorch computes each once.

    Args:
        quick: The cases that are no slow test by the fast engine.
    """
    return [pytest.param(name, *case, marks=[] if name == 'fast' and case in quick else
                         [pytest.mark.slow]) for case in CASES for name in engine.ENGINES]


@pytest.mark.parametrize('name, architecture, stem, layer_mix', runs(
    ('resnet50', 'imagenet', None), ('resnet50', 'imagenet', 3), ('resnet50', 'cifar', 1),
    ('resnet18', 'cifar', 2), ('preactresnet50', 'cifar', 3), ('wrn16-2', 'cifar', 4)))
def test_float64_loss_gradients_and_statistics(name, architecture, stem, layer_mix):
    loss, y, gradients, statistics = step(name, architecture, stem, layer_mix, 'd')
    found = {**gradients, **statistics}

    with np.load(VALUES) as stored:
        expected_loss, expected_y, digests = (
            stored[f'{architecture} {stem} {layer_mix} {key}']
            for key in ('loss', 'logits', 'digests'))
    assert abs(loss - expected_loss) <= 1e-8 * expected_loss
    assert difference('logits', y, expected_y) <= 1e-8
    for (key, actual), expected in zip(sorted(found.items()), digests, strict=True):
        norm = 1 if key == 'base/conv1/b' else expected[0]
        # A projection moves by about the norm of a difference, seldom by five times as much.
        assert np.abs(digest(actual) - expected).max() <= 5e-8 * norm, key

    if TORCH:
        loss_, y_, gradients_, statistics_ = torch_step(architecture, stem, layer_mix, 'float64')
        assert abs(loss - loss_) <= 1e-8 * loss_
        assert difference('logits', y, y_) <= 1e-8
        assert gradients.keys() == gradients_.keys() and statistics.keys() == statistics_.keys()
        for key, expected in {**gradients_, **statistics_}.items():
            assert difference(key, found[key], expected) <= 1e-8, key


@pytest.mark.parametrize('name, architecture, stem, layer_mix', runs(
    ('resnet50', 'imagenet', None), ('resnet50', 'cifar', 1), ('wrn16-2', 'cifar', None)))
def test_float32_logits_and_loss(name, architecture, stem, layer_mix):
    loss, y, _, _ = step(name, architecture, stem, layer_mix, 'f')
    assert y.dtype == np.float32
    with np.load(VALUES) as stored:
        expected = [tuple(stored[f'{architecture} {stem} {layer_mix} {key}']
                          for key in ('loss', 'logits'))]
    if TORCH:
        expected.append(torch_step(architecture, stem, layer_mix, 'float32')[:2])
    for expected_loss, expected_y in expected:
        assert abs(loss - expected_loss) <= 1e-4 * expected_loss
        assert difference('logits', y, expected_y) <= 1e-4


def test_a_digest_tells_a_small_change():
    value = np.random.RandomState(0).normal(size=1000)
    other = value + 1e-6 * np.linalg.norm(value) * np.eye(1000)[7]
    assert np.abs(digest(other) - digest(value)).max() > 5e-8 * np.linalg.norm(value)
