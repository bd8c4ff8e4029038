"""mixup_data and ManifoldMixupClassifier against the paper's formulas."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check, testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mixup import ManifoldMixupClassifier, mixup_data

SHAPES = st.sampled_from([(1, 3), (2, 1), (5, 3, 4, 4), (8, 2, 1, 1), (7,)])


class Linear(chainer.Chain):
    """A network of one layer, 0, that mixes its input; keeps what it was asked to draw."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(4, 3)
        self.asked = []

    def forward(self, x, target=None, mixup_hidden=False, lam=None, layer_mix=None, index=None):
        self.asked.append((mixup_hidden, lam, layer_mix))
        if not mixup_hidden:
            return self.fc(x)
        h, t_a, t_b = mixup_data(x, target, lam, index)
        return self.fc(h), t_a, t_b


def batch(n=6):
    random = np.random.RandomState(0)
    return random.normal(size=(n, 4)).astype('f'), random.randint(3, size=n).astype('i')


def softmax_cross_entropy(y, t):
    """In float64, from the definition."""
    y = np.asarray(y, 'd')
    return np.mean(np.log(np.exp(y).sum(1)) - y[np.arange(len(t)), t])


@given(SHAPES, st.floats(0, 1), st.integers(0, 2 ** 32 - 1))
@settings(deadline=None, max_examples=40)
def test_mixed_x_is_lam_x_plus_1_minus_lam_partner(shape, lam, seed):
    random = np.random.RandomState(seed)
    x, index = random.normal(size=shape), random.permutation(shape[0])
    t = np.arange(shape[0], dtype='i')
    mixed_x, t_a, t_b = mixup_data(x, t, lam, index)
    expected = np.stack([lam * x[i] + (1 - lam) * x[index[i]] for i in range(len(x))])
    np.testing.assert_allclose(mixed_x.array, expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(t_a, t)
    np.testing.assert_array_equal(t_b, index)


@given(SHAPES, st.floats(0, 1), st.integers(0, 2 ** 32 - 1))
@settings(deadline=None, max_examples=40)
def test_gradients_flow_to_both_partners(shape, lam, seed):
    random = np.random.RandomState(seed)
    x, gy = random.normal(size=(2, *shape))
    index = random.permutation(shape[0])
    h = chainer.Variable(x)
    mixed_x, _, _ = mixup_data(h, np.zeros(shape[0], 'i'), lam, index)
    mixed_x.grad = gy
    mixed_x.backward()
    expected = lam * gy
    for i, partner in enumerate(index):
        expected[partner] += (1 - lam) * gy[i]
    np.testing.assert_allclose(h.grad, expected, rtol=1e-13, atol=1e-14)


def test_gradient_of_hidden_maps_is_the_numerical_one():
    x, gy = np.random.RandomState(0).normal(size=(2, 4, 2, 3, 3))
    index = np.array([2, 0, 3, 1])
    gradient_check.check_backward(
        lambda h: mixup_data(h, np.zeros(4, 'i'), 0.3, index)[0], x, gy, dtype='d')


def test_images_and_labels_have_the_same_drawn_partners():
    x = np.arange(50, dtype='f')
    np.random.seed(0)
    mixed_x, t_a, t_b = mixup_data(x, x.astype('i'), 0.)
    np.testing.assert_array_equal(mixed_x.array, t_b)
    assert sorted(t_b) == list(range(50)) and list(t_b) != list(range(50))


def test_labels_may_be_a_variable():
    t = chainer.Variable(np.arange(3, dtype='i'))
    _, t_a, t_b = mixup_data(np.zeros((3, 2), 'f'), t, 0.5, np.array([1, 2, 0]))
    np.testing.assert_array_equal(t_a.array, [0, 1, 2])
    np.testing.assert_array_equal(t_b.array, [1, 2, 0])


@pytest.mark.gpu
def test_a_gpu_mixes_as_the_cpu_does():
    x, index = np.random.RandomState(0).normal(size=(5, 3, 2, 2)).astype('f'), np.arange(5)[::-1]
    results = []
    for device in '@numpy', '@cupy:0':
        device = chainer.get_device(device)
        h = chainer.Variable(device.send(x))
        mixed_x, _, t_b = mixup_data(h, device.send(np.arange(5, dtype='i')), 0.3, index)
        mixed_x.grad = mixed_x.array
        mixed_x.backward()
        results.append([chainer.cuda.to_cpu(array) for array in (mixed_x.array, h.grad, t_b)])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_backward_gathers_and_does_not_scatter(monkeypatch):
    class Refusing:
        def __getattr__(self, name):
            raise AssertionError('scattered')
    monkeypatch.setattr(np, 'add', Refusing())
    h = chainer.Variable(np.zeros((3, 2), 'f'))
    mixed_x, _, _ = mixup_data(h, np.zeros(3, 'i'), 0.5)
    mixed_x.grad = np.ones((3, 2), 'f')
    mixed_x.backward()
    assert h.grad is not None


@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_a_float64_lam_leaves_the_dtype(dtype):
    x = np.ones((3, 2), dtype)
    mixed_x, _, _ = mixup_data(x, np.zeros(3, 'i'), np.float64(0.3))
    assert mixed_x.dtype == x.dtype


def test_loss_is_the_lam_weighted_cross_entropy():
    x, t = batch()
    network = Linear()
    index = np.array([3, 4, 5, 0, 2, 1])
    loss = ManifoldMixupClassifier(network)(x, t, 0.3, None, index)
    y = network.fc(0.3 * x + 0.7 * x[index]).array
    expected = 0.3 * softmax_cross_entropy(y, t) + 0.7 * softmax_cross_entropy(y, t[index])
    assert loss.dtype == np.float32
    testing.assert_allclose(loss.array, expected, rtol=1e-6)


def test_accuracy_under_mixup_is_the_lam_weighted_one():
    x, t = batch()
    network, index = Linear(), np.array([3, 4, 5, 0, 2, 1])
    classifier = ManifoldMixupClassifier(network)
    guess = network.fc(0.3 * x + 0.7 * x[index]).array.argmax(1)
    expected = 0.3 * np.mean(guess == t) + 0.7 * np.mean(guess == t[index])
    assert 0 < expected < 1
    testing.assert_allclose(reported(classifier, x, t, index)['accuracy'], expected, rtol=1e-6)


def reported(classifier, x, t, index=None):
    reporter = chainer.Reporter()
    reporter.add_observer('main', classifier)
    observation = {}
    with reporter.scope(observation):
        classifier(x, t, 0.3, None, index)
    return {name.split('/')[1]: float(value.array) for name, value in observation.items()}


def test_it_reports_loss_and_accuracy():
    assert reported(ManifoldMixupClassifier(Linear()), *batch()).keys() == {'loss', 'accuracy'}


@pytest.mark.parametrize('train, mixup_hidden', [(False, True), (True, False), (False, False)])
def test_without_mixing_it_is_the_plain_cross_entropy(train, mixup_hidden):
    x, t = batch()
    network = Linear()
    classifier = ManifoldMixupClassifier(network, mixup_hidden)
    np.random.seed(0)
    before = np.random.get_state()[1:3]
    with chainer.using_config('train', train):
        loss = classifier(x, t)
    np.testing.assert_equal(np.random.get_state()[1:3], before)
    expected = softmax_cross_entropy(network.fc(x).array, t)
    testing.assert_allclose(loss.array, expected, rtol=1e-6)
    assert network.asked == [(False, None, None)]


def test_lam_follows_the_beta_distribution():
    from scipy import stats
    classifier = ManifoldMixupClassifier(Linear(), mixup_alpha=0.2)
    np.random.seed(0)
    lams = [classifier.draw_lam() for _ in range(2000)]
    assert stats.kstest(lams, stats.beta(0.2, 0.2).cdf).pvalue > 0.01


def test_each_batch_draws_its_own_lam():
    network = Linear()
    classifier = ManifoldMixupClassifier(network)
    for _ in range(3):
        classifier(*batch())
    assert len({lam for _, lam, _ in network.asked}) == 3


def test_alpha_0_means_lam_1():
    network = Linear()
    x, t = batch()
    loss = ManifoldMixupClassifier(network, mixup_alpha=0)(x, t)
    assert network.asked[0][1] == 1
    testing.assert_allclose(loss.array, F.softmax_cross_entropy(network.fc(x), t).array, rtol=1e-6)


@pytest.mark.parametrize('alpha', [-1, float('nan')])
def test_an_alpha_below_0_is_refused(alpha):
    with pytest.raises(ValueError, match='at least 0'):
        ManifoldMixupClassifier(Linear(), mixup_alpha=alpha)


def test_the_classifiers_layer_mix_reaches_the_network_and_a_call_may_override_it():
    network = Linear()
    classifier = ManifoldMixupClassifier(network, layer_mix=[1, 2])
    classifier(*batch())
    classifier(*batch(), layer_mix=4)
    assert [layer_mix for _, _, layer_mix in network.asked] == [[1, 2], 4]
