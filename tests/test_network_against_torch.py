"""The whole network against one in PyTorch: same weights, images, lam, index and layer.

Where torch is installed it computes beside Chainer; elsewhere its values come from
``reference/values.npz``.
"""
import importlib.util
import os

import chainer
import numpy as np
import pytest

from mixup import ManifoldMixupClassifier
from model import ResNet50
from tests.reference.cases import CASES, LAM, N_CLASS, batch, digest, weights

BATCHSIZE = {'imagenet': 8, 'cifar': 3}
TORCH = importlib.util.find_spec('torch') is not None
VALUES = os.path.join(os.path.dirname(__file__), 'reference', 'values.npz')


def arrays(network):
    """Parameters and running statistics of a network by name, the live arrays."""
    found = {name.lstrip('/'): parameter.array for name, parameter in network.namedparams()}
    for path, link in network.namedlinks():
        if isinstance(link, chainer.links.BatchNormalization):
            found[f'{path}/avg_mean'.lstrip('/')] = link.avg_mean
            found[f'{path}/avg_var'.lstrip('/')] = link.avg_var
    return found


def shapes(stem):
    return {name: array.shape for name, array in arrays(ResNet50(N_CLASS, stem)).items()}


class Logits(chainer.LinkHook):
    """Keeps what the network returned."""

    def forward_postprocess(self, args):
        if isinstance(args.link, ResNet50):
            self.y = args.out[0] if isinstance(args.out, tuple) else args.out


def step(stem, layer_mix, dtype):
    """Loss, logits, gradients and new statistics of one training step in Chainer."""
    x, t, index = batch(BATCHSIZE[stem])
    with chainer.using_config('dtype', dtype):
        network = ResNet50(N_CLASS, stem)
    classifier = ManifoldMixupClassifier(network, mixup_hidden=layer_mix is not None)
    values = weights(shapes(stem))
    for name, array in arrays(network).items():
        array[...] = values[name]
    with Logits() as logits:
        loss = classifier(x.astype(dtype), t, LAM, layer_mix, index)
    classifier.cleargrads()
    loss.backward()
    gradients = {name.lstrip('/'): parameter.grad for name, parameter in network.namedparams()}
    statistics = {name: array for name, array in arrays(network).items() if name not in gradients}
    return float(loss.array), logits.y.array, gradients, statistics


def torch_step(stem, layer_mix, dtype='float64'):
    from tests.reference.resnet50_torch import loss_and_gradients
    x, t, index = batch(BATCHSIZE[stem])
    return loss_and_gradients(weights(shapes(stem)), x, t, stem, layer_mix, LAM, index, dtype)


def difference(name, actual, expected):
    """||actual - expected|| relative to ||expected||; absolute for a bias before a BN.

    The gradient of that bias is zero but for rounding.
    """
    norm = 1 if name == 'base/conv1/b' else np.linalg.norm(expected)
    return np.linalg.norm(actual - expected) / norm


@pytest.fixture(scope='module', params=CASES, ids=str)
def float64_step(request):
    """A case and what Chainer computes in it, once for the tests below."""
    return request.param, step(*request.param, 'd')


@pytest.mark.skipif(not TORCH, reason='torch is not installed; its stored values are used')
def test_float64_loss_gradients_and_statistics_are_those_of_torch(float64_step):
    (stem, layer_mix), (loss, y, gradients, statistics) = float64_step
    expected_loss, expected_y, expected_gradients, expected_statistics = torch_step(stem, layer_mix)
    assert abs(loss - expected_loss) <= 1e-8 * expected_loss
    assert difference('logits', y, expected_y) <= 1e-8
    assert gradients.keys() == expected_gradients.keys() and len(gradients) == 162
    assert statistics.keys() == expected_statistics.keys() and len(statistics) == 106
    for name, actual in {**gradients, **statistics}.items():
        expected = {**expected_gradients, **expected_statistics}[name]
        assert difference(name, actual, expected) <= 1e-8, name


def test_float64_loss_gradients_and_statistics_are_those_stored(float64_step):
    (stem, layer_mix), (loss, y, gradients, statistics) = float64_step
    with np.load(VALUES) as stored:
        expected_loss, expected_y, digests = (
            stored[f'{stem} {layer_mix} {key}'] for key in ('loss', 'logits', 'digests'))
    assert abs(loss - expected_loss) <= 1e-8 * expected_loss
    assert difference('logits', y, expected_y) <= 1e-8
    results = sorted({**gradients, **statistics}.items())
    assert len(results) == len(digests) == 162 + 106
    for (name, actual), expected in zip(results, digests):
        norm = 1 if name == 'base/conv1/b' else expected[0]
        # A projection moves by about the norm of a difference, seldom by five times as much.
        assert np.abs(digest(actual) - expected).max() <= 5e-8 * norm, name


@pytest.mark.skipif(not TORCH, reason='torch is not installed; its stored values are used')
@pytest.mark.parametrize('stem, layer_mix', CASES)
def test_float32_logits_and_loss_are_those_of_torch(stem, layer_mix):
    loss, y, _, _ = step(stem, layer_mix, 'f')
    expected_loss, expected_y, _, _ = torch_step(stem, layer_mix, 'float32')
    assert abs(loss - expected_loss) <= 1e-4 * expected_loss
    assert difference('logits', y, expected_y) <= 1e-4


@pytest.mark.parametrize('stem, layer_mix', CASES)
def test_float32_logits_and_loss_are_those_stored(stem, layer_mix):
    loss, y, _, _ = step(stem, layer_mix, 'f')
    with np.load(VALUES) as stored:
        expected_loss, expected_y = (
            stored[f'{stem} {layer_mix} {key}'] for key in ('loss', 'logits'))
    assert y.dtype == np.float32
    assert abs(loss - expected_loss) <= 1e-4 * expected_loss
    assert difference('logits', y, expected_y) <= 1e-4


def test_a_digest_tells_a_small_change():
    value = np.random.RandomState(0).normal(size=1000)
    other = value + 1e-6 * np.linalg.norm(value) * np.eye(1000)[7]
    assert np.abs(digest(other) - digest(value)).max() > 5e-8 * np.linalg.norm(value)
