"""mixup_data and ManifoldMixupClassifier against the paper's formulas."""
import functools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check, testing
from hypothesis import given, settings, strategies as st

from mixup import (
    LOSSES,
    ManifoldMixupClassifier,
    ManifoldMixupNetwork,
    correct,
    mixed,
    mixup_data,
    softmax_binary_cross_entropy,
)

SHAPES = st.sampled_from([(1, 3), (2, 1), (5, 3, 4, 4), (8, 2, 1, 1), (7,)])


class Linear(ManifoldMixupNetwork):
    """A network of one layer, 0, that mixes its input; keeps what it was asked for."""

    layers = range(1)
    stages = F.identity,

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(4, 3)
        self.asked = []

    def head(self, h):
        return self.fc(h)

    def forward(self, x, target=None, mixup_hidden=False, lam=None, layer_mix=None, index=None):
        self.asked.append((mixup_hidden, lam, layer_mix))
        return super().forward(x, target, mixup_hidden, lam, layer_mix, index)


def batch(n=6):
    random = np.random.RandomState(0)
    return random.normal(size=(n, 4)).astype('f'), random.randint(3, size=n).astype('i')


def softmax_cross_entropy(y, t):
    """The loss of each example in float64, from the definition."""
    y = np.asarray(y, 'd')
    return np.log(np.exp(y).sum(1)) - y[np.arange(len(t)), t]


def binary_cross_entropy(y, label):
    """The loss of each example in float64 from the definition; the label is a row of shares."""
    p = np.exp(np.asarray(y, 'd'))
    p /= p.sum(1, keepdims=True)
    rest = np.stack([np.delete(p, k, 1).sum(1) for k in range(p.shape[1])], 1)  # 1 - p
    return -(label * np.log(p) + (1 - label) * np.log(rest)).mean(1)


# What lam may be, given a number from 0 to 1, the size of the batch, and a seed.
LAMS = {
    'float': lambda lam, n, seed: lam,
    'numpy float': lambda lam, n, seed: np.float64(lam),
    'array of no axes': lambda lam, n, seed: np.array(lam),
    'one for each example': lambda lam, n, seed: np.random.RandomState(seed).uniform(size=n),
    'variable': lambda lam, n, seed: chainer.Variable(np.random.RandomState(seed).uniform(size=n))}


def losses(name):
    """The criterion of a name, with a value for each example."""
    return functools.partial(LOSSES[name], reduce='no')


def for_each_example(lam, n):
    """lam as a list of n floats."""
    return np.broadcast_to(chainer.as_array(lam), n).tolist()


@given(st.sampled_from(sorted(LAMS)), SHAPES, st.floats(0, 1), st.integers(0, 2 ** 32 - 1))
@settings(deadline=None, max_examples=100)
def test_mixed_x_is_lam_x_plus_1_minus_lam_partner(kind, shape, number, seed):
    random = np.random.RandomState(seed)
    x, index = random.normal(size=shape), random.permutation(shape[0])
    t = np.arange(shape[0], dtype='i')
    lam = LAMS[kind](number, shape[0], seed)
    mixed_x, t_a, t_b = mixup_data(x, t, lam, index)
    lam = for_each_example(lam, shape[0])
    expected = np.stack([lam[i] * x[i] + (1 - lam[i]) * x[index[i]] for i in range(len(x))])
    assert mixed_x.shape == x.shape
    np.testing.assert_allclose(mixed_x.array, expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(t_a, t)
    np.testing.assert_array_equal(t_b, index)


@given(st.sampled_from(sorted(LAMS)), SHAPES, st.floats(0, 1), st.integers(0, 2 ** 32 - 1))
@settings(deadline=None, max_examples=100)
def test_gradients_flow_to_both_partners(kind, shape, number, seed):
    random = np.random.RandomState(seed)
    x, gy = random.normal(size=(2, *shape))
    index = random.permutation(shape[0])
    h, lam = chainer.Variable(x), LAMS[kind](number, shape[0], seed)
    mixed_x, _, _ = mixup_data(h, np.zeros(shape[0], 'i'), lam, index)
    mixed_x.grad = gy
    mixed_x.backward()
    lam = for_each_example(lam, shape[0])
    expected = np.stack([lam[i] * gy[i] for i in range(len(gy))])
    for i, partner in enumerate(index):
        expected[partner] += (1 - lam[i]) * gy[i]
    np.testing.assert_allclose(h.grad, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize('kind', LAMS)
def test_gradient_of_hidden_states_is_the_numerical_one(kind):
    x, gy = np.random.RandomState(0).normal(size=(2, 4, 2, 3, 3))
    index, lam = np.array([2, 0, 3, 1]), LAMS[kind](0.3, 4, 1)
    gradient_check.check_backward(
        lambda h: mixup_data(h, np.zeros(4, 'i'), lam, index)[0], x, gy, dtype='d')


def test_lam_gets_no_gradient():
    lam = chainer.Variable(np.array(.3, 'f'))
    h = chainer.Variable(np.ones((3, 2), 'f'))
    mixed_x, _, _ = mixup_data(h, np.zeros(3, 'i'), lam)
    mixed_x.grad = np.ones((3, 2), 'f')
    mixed_x.backward()
    assert lam.grad is None and h.grad is not None


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_equal_lams_of_all_examples_give_what_one_lam_gives(dtype, loss):
    random = np.random.RandomState(0)
    x, t, index = random.normal(size=(5, 3)).astype(dtype), np.arange(5) % 3, random.permutation(5)
    results = []
    for lam in 0.3, np.full(5, 0.3):
        h = chainer.Variable(x)
        mixed_x, t_a, t_b = mixup_data(h, t, lam, index)
        value = mixed(losses(loss), mixed_x, t_a, t_b, lam)
        value.backward()
        results.append((mixed_x.array, value.array, h.grad,
                        mixed(correct, mixed_x, t_a, t_b, lam).array))
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('lam', [np.full(4, .5), np.full((6, 2), .5)])
def test_a_lam_of_another_shape_is_an_error(lam):
    x, t = batch()
    with pytest.raises(Exception, match='shape|broadcast'):
        mixup_data(x, t, lam)


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
@pytest.mark.parametrize('lam', [.3, np.array([.3, 1, .5, 0, .1])], ids=['batch', 'example'])
def test_a_gpu_mixes_as_the_cpu_does(lam):
    x, index = np.random.RandomState(0).normal(size=(5, 3, 2, 2)).astype('f'), np.arange(5)[::-1]
    results = []
    for device in '@numpy', '@cupy:0':
        device = chainer.get_device(device)
        h = chainer.Variable(device.send(x))
        mixed_x, _, t_b = mixup_data(h, device.send(np.arange(5, dtype='i')), lam, index)
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


@pytest.mark.parametrize('kind', LAMS)
@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_a_float64_lam_leaves_the_dtype(dtype, kind):
    x = np.ones((3, 2), dtype)
    mixed_x, _, _ = mixup_data(x, np.zeros(3, 'i'), LAMS[kind](.3, 3, 0))
    assert mixed_x.dtype == x.dtype


INDEX = np.array([3, 4, 5, 0, 2, 1])


def mixed_logits(network, x, lam):
    """What the network gives for a batch mixed by hand."""
    lam = np.array(for_each_example(lam, len(x)), 'f')[:, None]
    return network.fc(lam * x + (1 - lam) * x[INDEX]).array


@pytest.mark.parametrize('kind', LAMS)
def test_loss_is_the_lam_weighted_cross_entropy(kind):
    x, t = batch()
    network, lam = Linear(), LAMS[kind](0.3, 6, 0)
    loss = ManifoldMixupClassifier(network)(x, t, lam, None, INDEX)
    y, lam = mixed_logits(network, x, lam), np.array(for_each_example(lam, 6))
    expected = np.mean(lam * softmax_cross_entropy(y, t)
                       + (1 - lam) * softmax_cross_entropy(y, t[INDEX]))
    assert loss.dtype == np.float32 and loss.shape == ()
    testing.assert_allclose(loss.array, expected, rtol=1e-6)


@pytest.mark.parametrize('kind', LAMS)
def test_bce_is_that_of_softmax_and_mixed_label(kind):
    x, t = batch()
    network, lam = Linear(), LAMS[kind](0.3, 6, 0)
    classifier = ManifoldMixupClassifier(network, criterion=softmax_binary_cross_entropy)
    loss = classifier(x, t, lam, None, INDEX)
    y, own = mixed_logits(network, x, lam), np.array(for_each_example(lam, 6))[:, None]
    label = own * np.eye(3)[t] + (1 - own) * np.eye(3)[t[INDEX]]
    assert loss.dtype == np.float32 and loss.shape == ()
    testing.assert_allclose(loss.array, binary_cross_entropy(y, label).mean(), rtol=1e-6)


def test_bce_is_pytorchs_of_softmax_and_mixed_label():
    torch = pytest.importorskip('torch')
    y, t = np.random.RandomState(1).normal(size=(6, 3)), batch()[1]
    h = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy(
        torch.softmax(h, 1), torch.tensor(0.3 * np.eye(3)[t] + 0.7 * np.eye(3)[t[INDEX]]))
    expected.backward()
    h_ = chainer.Variable(y)
    loss = mixed(losses('bce'), h_, t, t[INDEX], 0.3)
    loss.backward()
    testing.assert_allclose(loss.array, expected.item(), rtol=1e-12)
    testing.assert_allclose(h_.grad, h.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize('dtype, rounding', [('e', 1e-3), ('f', 1e-6), ('d', 1e-14)])
def test_bce_stays_exact_where_a_softmax_rounds_to_1(dtype, rounding):
    """The label has the largest logit, the second, the smallest; two are alike."""
    y = np.array([[40, 0, -40], [40, 0, -40], [40, 0, -40], [300, 300, 0]], dtype)
    h, t = chainer.Variable(y), np.array([0, 1, 2, 1])
    loss = losses('bce')(h, t)
    # -log p of the label and -log(1 - p) of the others, without terms below e^-39
    expected = np.array([0, 40 + 40, 80 + 40, np.log(2) + np.log(2)]) / 3
    np.testing.assert_allclose(loss.array, expected, rtol=rounding, atol=rounding)
    loss.grad = np.ones_like(loss.array)
    loss.backward()
    expected = np.array([[0, 0, 0], [2, -2, 0], [2, -1, -1], [1, -1, 0]]) / 3
    assert h.grad.dtype == dtype
    np.testing.assert_allclose(h.grad, expected, rtol=rounding, atol=rounding)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('kind', LAMS)
def test_gradient_of_the_loss_is_the_numerical_one(kind, loss):
    y = np.random.RandomState(0).normal(size=(6, 3))
    t, lam = batch()[1], LAMS[kind](0.3, 6, 0)
    gradient_check.check_backward(
        lambda y: mixed(losses(loss), y, t, t[INDEX], lam), y, np.array(1.), dtype='d')


@pytest.mark.parametrize('kind', LAMS)
def test_accuracy_under_mixup_is_the_lam_weighted_one(kind):
    x, t = batch()
    network, lam = Linear(), LAMS[kind](0.3, 6, 0)
    found = reported(ManifoldMixupClassifier(network), x, t, INDEX, lam)['accuracy']
    guess, lam = mixed_logits(network, x, lam).argmax(1), np.array(for_each_example(lam, 6))
    expected = np.mean(lam * (guess == t) + (1 - lam) * (guess == t[INDEX]))
    assert 0 < expected < 1
    testing.assert_allclose(found, expected, rtol=1e-6)


def reported(classifier, x, t, index=None, lam=0.3):
    reporter = chainer.Reporter()
    reporter.add_observer('main', classifier)
    observation = {}
    with reporter.scope(observation):
        classifier(x, t, lam, None, index)
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
        assert classifier.draw(6) == (None, None, None)
    np.testing.assert_equal(np.random.get_state()[1:3], before)
    expected = softmax_cross_entropy(network.fc(x).array, t).mean()
    testing.assert_allclose(loss.array, expected, rtol=1e-6)
    assert network.asked == [(False, None, None)]


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('train', [True, False])
def test_without_mixing_it_is_the_criterion_bit_for_bit(train, loss):
    (x, t), network = batch(), Linear()
    with chainer.using_config('train', train):
        found = ManifoldMixupClassifier(network, not train, criterion=LOSSES[loss])(x, t)
    np.testing.assert_array_equal(found.array, LOSSES[loss](network.fc(x), t).array)
    testing.assert_allclose(found.array, F.mean(losses(loss)(network.fc(x), t)).array, rtol=1e-6)


def test_the_default_criterion_is_the_softmax_cross_entropy():
    assert ManifoldMixupClassifier(Linear()).criterion is LOSSES['ce'] is F.softmax_cross_entropy


def test_lam_layer_and_index_are_drawn_from_numpys_generator_in_this_order():
    network = Linear()
    network.layers = range(6)
    classifier = ManifoldMixupClassifier(network, mixup_alpha=0.2)
    np.random.seed(0)
    lam, layer, index = classifier.draw(7)
    after = np.random.get_state()[1:3]
    np.random.seed(0)
    assert lam == np.random.beta(0.2, 0.2) and layer == np.random.choice([0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(index, np.random.permutation(7))
    np.testing.assert_equal(np.random.get_state()[1:3], after)
    assert type(layer) is int


def test_a_call_draws_what_draw_draws():
    network = Linear()
    x, t = batch()
    classifier = ManifoldMixupClassifier(network)
    np.random.seed(0)
    loss = classifier(x, t)
    after = np.random.get_state()[1:3]
    np.random.seed(0)
    drawn = classifier.draw(6)
    np.testing.assert_equal(np.random.get_state()[1:3], after)
    assert network.asked[0] == (True, *drawn[:2])
    np.testing.assert_array_equal(classifier(x, t, *drawn).array, loss.array)
    np.testing.assert_equal(np.random.get_state()[1:3], after)


def test_what_is_given_is_not_drawn():
    classifier = ManifoldMixupClassifier(Linear())
    np.random.seed(0)
    before = np.random.get_state()[1:3]
    lam, index = np.full(6, .3), np.arange(6)
    drawn = classifier.draw(6, lam, 0, index)
    assert drawn[0] is lam and drawn[1] == 0 and drawn[2] is index
    np.testing.assert_equal(np.random.get_state()[1:3], before)


@pytest.mark.parametrize('lam_per, n', [('batch', 1), ('example', 50)])
def test_lam_follows_the_beta_distribution(lam_per, n):
    from scipy import stats
    classifier = ManifoldMixupClassifier(Linear(), mixup_alpha=0.2, lam_per=lam_per)
    np.random.seed(0)
    lams = np.ravel([classifier.draw(n)[0] for _ in range(2000 // n)])
    assert lams.shape == (2000,) and len(set(lams)) > 1900
    assert stats.kstest(lams, stats.beta(0.2, 0.2).cdf).pvalue > 0.01


def test_each_batch_draws_its_own_lam():
    network = Linear()
    classifier = ManifoldMixupClassifier(network)
    for _ in range(3):
        classifier(*batch())
    assert len({lam for _, lam, _ in network.asked}) == 3


def test_each_example_draws_its_own_lam_where_that_is_asked_for():
    network = Linear()
    classifier = ManifoldMixupClassifier(network, lam_per='example')
    for _ in range(3):
        classifier(*batch())
    lams = [lam for _, lam, _ in network.asked]
    assert {lam.shape for lam in lams} == {(6,)} and len(set(np.ravel(lams))) == 18


def test_an_unknown_lam_per_is_refused():
    with pytest.raises(ValueError, match="'batch' or 'example', not 'pixel'"):
        ManifoldMixupClassifier(Linear(), lam_per='pixel')


@pytest.mark.parametrize('lam_per', ['batch', 'example'])
def test_alpha_0_means_lam_1(lam_per):
    network = Linear()
    x, t = batch()
    loss = ManifoldMixupClassifier(network, mixup_alpha=0, lam_per=lam_per)(x, t)
    assert network.asked[0][1] == 1
    testing.assert_allclose(loss.array, F.softmax_cross_entropy(network.fc(x), t).array, rtol=1e-6)


@pytest.mark.parametrize('alpha', [-1, 5e-324, 1e-310, 9e-301, 1.1e300, np.inf, np.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match='mixup_alpha must be 0, or 1e-300 to 1e300, not '):
        ManifoldMixupClassifier(Linear(), mixup_alpha=alpha)


@pytest.mark.slow
@pytest.mark.parametrize('lam_per, n', [('batch', 1), ('example', 100_000)])
@pytest.mark.parametrize('alpha, possible', [(1e-300, {0, 1}), (1e300, {.5})])
def test_an_alpha_at_an_end_of_the_range_draws_the_limit_of_beta(alpha, possible, lam_per, n):
    classifier = ManifoldMixupClassifier(Linear(), mixup_alpha=alpha, lam_per=lam_per)
    np.random.seed(0)
    lams = np.ravel([classifier.draw_lam(n) for _ in range(100)])
    assert set(lams) == possible
    np.testing.assert_allclose(lams.mean(), .5, atol=.1)


def test_the_classifiers_layer_mix_reaches_the_network_and_a_call_may_override_it():
    network = Linear()
    network.layers, network.stages = range(5), [F.identity] * 5
    classifier = ManifoldMixupClassifier(network, layer_mix=[1, 2])
    for _ in range(20):
        classifier(*batch())
    assert {layer for _, _, layer in network.asked} == {1, 2}
    classifier(*batch(), layer_mix=4)
    assert network.asked[-1][2] == 4


@pytest.mark.parametrize('shape', [(5,), (6, 1), (1, 6)], ids=str)
def test_a_lam_of_another_shape_is_refused(shape):
    x, t = batch(6)
    with pytest.raises(ValueError, match=r'lam must have shape \(\) or \(6,\), not'):
        mixup_data(x, t, np.full(shape, .5))
