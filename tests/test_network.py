"""The networks: where they mix, and what they are."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.links import ResNet50Layers

from mixup import ManifoldMixupClassifier, ManifoldMixupNetwork, mixup_data
from model import ARCHITECTURES, BaseResNet50, ResNet50
from tests.test_network_against_torch import NETWORKS

LAM, N = 0.3, 4
INDEX = np.array([2, 3, 1, 0])


@pytest.fixture(scope='module')
def network():
    np.random.seed(0)
    return ResNet50()


LARGE = 'resnet50', 'preactresnet34', 'preactresnet50', 'wrn28-10'


@pytest.fixture(scope='module', params=[
    pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in NETWORKS])
def any_network(request):
    np.random.seed(0)
    network = NETWORKS[request.param]
    return network(10, network.stems[0])


@pytest.fixture(autouse=True)
def evaluation_statistics():
    """BN with fixed statistics, so that equal inputs have equal outputs in every batch."""
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        yield


def batch():
    random = np.random.RandomState(1)
    return random.uniform(size=(N, 3, 32, 32)).astype('f'), np.arange(N, dtype='i')


def test_hidden_states_have_the_sizes_16_8_8_4_2_1():
    sizes = []

    class Sizes(chainer.LinkHook):
        def forward_postprocess(self, args):
            if args.link.name in ('conv1', 'res2', 'res3', 'res4', 'res5') \
                    and args.link.name not in [name for name, _ in sizes]:
                sizes.append((args.link.name, args.out.shape[1:]))
    base = BaseResNet50()
    with Sizes():
        base(batch()[0])
    assert base.stem(batch()[0]).shape[1:] == (64, 8, 8)
    assert sizes == [('conv1', (64, 16, 16)), ('res2', (256, 8, 8)), ('res3', (512, 4, 4)),
                     ('res4', (1024, 2, 2)), ('res5', (2048, 1, 1))]


def test_the_cifar_stem_keeps_32x32():
    assert BaseResNet50('cifar').stem(batch()[0]).shape[1:] == (64, 32, 32)


def test_parameters_are_those_of_chainers_resnet50layers():
    def shapes(link):
        return {name: parameter.shape for name, parameter in link.namedparams()
                if not name.startswith('/fc6')}
    assert shapes(BaseResNet50()) == shapes(ResNet50Layers(pretrained_model=None))


def test_the_plain_forward_is_that_of_chainers_resnet50layers(network):
    theirs = ResNet50Layers(pretrained_model=None)
    parameters = dict(theirs.namedparams())
    for name, parameter in network.base.namedparams():
        parameters[name].copydata(parameter)
    x = batch()[0]
    h = network.base(x)
    expected = theirs(x, layers=['res5'])['res5']
    np.testing.assert_array_equal(h.array, expected.array)


def basic(n_in, n):
    return 9 * n_in * n + 9 * n * n


def bottleneck(n_in, n):
    return n_in * n + 9 * n * n + n * 4 * n


# The numbers of parameters with 10 classes, from the papers' tables: the convolutions of the stem,
# of the blocks and of the shortcuts, gamma and beta of each channel that a BN has, the classifier.
PARAMETERS = {
    ('resnet18', 'cifar'): (11173962, 3 * 64 * 9 + 4 * 9 * 64 * 64, [
        basic(64, 128), basic(128, 128), basic(128, 256), basic(256, 256), basic(256, 512),
        basic(512, 512)], 64 * 128 + 128 * 256 + 256 * 512,
        5 * 64 + 5 * 128 + 5 * 256 + 5 * 512, 512),
    ('resnet18', 'imagenet'): (11181642, 3 * 64 * 49 + 4 * 9 * 64 * 64, [
        basic(64, 128), basic(128, 128), basic(128, 256), basic(256, 256), basic(256, 512),
        basic(512, 512)], 64 * 128 + 128 * 256 + 256 * 512,
        5 * 64 + 5 * 128 + 5 * 256 + 5 * 512, 512),
    ('preactresnet18', 'cifar'): (11171146, 3 * 64 * 9 + 4 * 9 * 64 * 64, [
        basic(64, 128), basic(128, 128), basic(128, 256), basic(256, 256), basic(256, 512),
        basic(512, 512)], 64 * 128 + 128 * 256 + 256 * 512,
        5 * 64 + 4 * 128 + 4 * 256 + 3 * 512, 512),
    ('preactresnet34', 'cifar'): (21279306, 3 * 64 * 9 + 6 * 9 * 64 * 64, [
        basic(64, 128), 3 * basic(128, 128), basic(128, 256), 5 * basic(256, 256),
        basic(256, 512), 2 * basic(512, 512)], 64 * 128 + 128 * 256 + 256 * 512,
        7 * 64 + 8 * 128 + 12 * 256 + 5 * 512, 512),
    ('preactresnet50', 'cifar'): (23509066, 3 * 64 * 9 + bottleneck(64, 64), [
        2 * bottleneck(256, 64), bottleneck(256, 128), 3 * bottleneck(512, 128),
        bottleneck(512, 256), 5 * bottleneck(1024, 256), bottleneck(1024, 512),
        2 * bottleneck(2048, 512)], 64 * 256 + 256 * 512 + 512 * 1024 + 1024 * 2048,
        7 * 64 + 3 * 256 + 8 * 128 + 4 * 512 + 12 * 256 + 6 * 1024 + 6 * 512 + 2 * 2048, 2048),
    ('wrn28-10', 'cifar'): (36479194, 3 * 16 * 9 + basic(16, 160), [
        3 * basic(160, 160), basic(160, 320), 3 * basic(320, 320), basic(320, 640),
        3 * basic(640, 640)], 16 * 160 + 160 * 320 + 320 * 640,
        16 + 8 * 160 + 8 * 320 + 8 * 640, 640),
}


@pytest.mark.parametrize('architecture, stem', PARAMETERS)
def test_the_numbers_of_parameters_are_those_of_the_papers(architecture, stem):
    published, first, blocks, shortcuts, normalized, features = PARAMETERS[architecture, stem]
    expected = first + sum(blocks) + shortcuts + 2 * normalized + features * 10 + 10
    assert ARCHITECTURES[architecture](10, stem).count_params() == expected == published


def test_every_network_can_mix_after_each_of_its_stages_and_each_time_otherwise(any_network):
    assert len(any_network.stages) == len(any_network.layers)
    assert any_network.layers == range(len(any_network.layers))
    x, t = batch()
    plain = any_network(x).array
    assert plain.shape == (N, 10)
    logits = [plain]
    for layer in any_network.layers:
        mixed, t_a, t_b = any_network(x, t, True, LAM, layer, INDEX)
        logits.append(mixed.array)
        np.testing.assert_array_equal(t_a, t)
        np.testing.assert_array_equal(t_b, INDEX)
    if isinstance(any_network.stages[1], L.Convolution2D):  # linear: layers 0 and 1 are alike
        np.testing.assert_allclose(logits.pop(2), logits[1], rtol=1e-3, atol=1e-4)
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert np.abs(one - other).max() > 1e-3 * np.abs(plain).max()


def test_in_every_network_lam_1_is_the_plain_forward(any_network):
    x, t = batch()
    plain = any_network(x).array
    for layer in any_network.layers:
        mixed, _, _ = any_network(x, t, True, 1, layer, INDEX)
        np.testing.assert_array_equal(mixed.array, plain)


def test_in_every_network_layer_0_is_the_input_and_the_next_follows_the_stem(any_network):
    assert any_network.stages[0] is F.identity
    x, t = batch()
    h, _, _ = mixup_data(any_network.stages[1](x), t, LAM, INDEX)
    for stage in any_network.stages[2:]:
        h = stage(h)
    y, _, _ = any_network(x, t, True, LAM, 1, INDEX)
    np.testing.assert_array_equal(y.array, any_network.head(h).array)


def test_each_example_may_have_its_own_lam(any_network):
    x, t = batch()
    lam = np.array([1, LAM, 1, LAM])
    y, _, _ = any_network(x, t, True, lam, 2, INDEX)
    mixed, _, _ = any_network(x, t, True, LAM, 2, INDEX)
    expected = np.where(lam[:, None] == 1, any_network(x).array, mixed.array)
    np.testing.assert_allclose(y.array, expected, rtol=1e-4, atol=1e-5)


def test_a_network_without_a_head_returns_its_hidden_states():
    class Doubling(ManifoldMixupNetwork):
        layers = range(3)
        stages = F.identity, lambda h: 2 * h, lambda h: h + 1
    x, t = np.array([[1.], [10.]]), np.arange(2, dtype='i')
    network = Doubling()
    np.testing.assert_array_equal(network(chainer.Variable(x)).array, 2 * x + 1)
    for layer in network.layers:  # all stages are affine
        y, _, _ = network(chainer.Variable(x), t, True, .75, layer, np.array([1, 0]))
        np.testing.assert_allclose(y.array.ravel(), [.75 * 3 + .25 * 21, .75 * 21 + .25 * 3])
    with pytest.raises(ValueError, match='must be in 0-2, not 3'):
        network(x, t, True, .5, 3)


def test_imagenet_weights_fill_the_convolutional_part(network):
    assert network.backbone is network.base and BaseResNet50().backbone is None


def test_layer_0_mixes_the_input_images(network):
    x, t = batch()
    y, _, _ = network(x, t, True, LAM, 0, INDEX)
    mixed_x, _, _ = mixup_data(x, t, LAM, INDEX)
    np.testing.assert_array_equal(y.array, network(mixed_x).array)


def test_layer_5_mixes_the_features(network):
    x, t = batch()
    y, _, _ = network(x, t, True, LAM, 5, INDEX)
    mixed_h, _, _ = mixup_data(network.base(x), t, LAM, INDEX)
    np.testing.assert_array_equal(y.array, network.head(mixed_h).array)


def test_layers_1_to_4_mix_between_the_stages(network):
    x, t = batch()
    base = network.base
    for layer in 1, 2, 3, 4:
        h = x
        for after, stage in enumerate((base.stem, base.res2, base.res3, base.res4, base.res5), 1):
            h = stage(h)
            if after == layer:
                h, _, _ = mixup_data(h, t, LAM, INDEX)
        y, _, _ = network(x, t, True, LAM, layer, INDEX)
        np.testing.assert_array_equal(y.array, network.head(h).array)


@pytest.mark.parametrize('arguments', [{'lam': 0.5}, {'target': np.zeros(2, 'i')}])
def test_mixing_without_lam_or_labels_is_an_error(network, arguments):
    with pytest.raises(ValueError, match='needs target and lam'):
        network(np.zeros((2, 3, 32, 32), 'f'), mixup_hidden=True, **arguments)


@pytest.mark.parametrize('layer_mix, expected', [
    (None, {0, 1, 2, 3, 4, 5}), ([0, 1, 2], {0, 1, 2}), ({3, 5}, {3, 5}), (0, {0}), ([4], {4})])
def test_every_eligible_layer_is_drawn_and_no_other(layer_mix, expected):
    base = BaseResNet50()
    np.random.seed(0)
    drawn = [base.draw_layer(layer_mix) for _ in range(600)]
    counts = {layer: drawn.count(layer) for layer in set(drawn)}
    assert set(counts) == expected
    assert min(counts.values()) > 0.7 * 600 / len(expected)


@pytest.mark.parametrize('layer_mix', [-1, 6, 2.5, [], [0, 6]])
def test_a_layer_outside_its_range_is_an_error_that_names_the_range(network, layer_mix):
    with pytest.raises(ValueError, match='0-5'):
        network(*batch(), True, LAM, layer_mix)


@pytest.mark.parametrize('architecture', [
    'resnet18', 'preactresnet18', pytest.param('preactresnet50', marks=[pytest.mark.slow])])
def test_convolutions_begin_with_the_variance_of_he_et_al(architecture):
    np.random.seed(0)
    network = ARCHITECTURES[architecture](stem='cifar')
    weights = [link.W.array for link in network.links() if isinstance(link, L.Convolution2D)]
    for W in weights:
        n_out, n_in, height, width = W.shape
        assert abs(W.var() * n_out * height * width / 2 - 1) < 6 * (2 / W.size) ** .5


@pytest.mark.parametrize('network', [BaseResNet50, *ARCHITECTURES.values()])
def test_an_unknown_stem_is_an_error_that_names_the_stems(network):
    with pytest.raises(ValueError, match='must be ' + ' or '.join(map(repr, network.stems))):
        network(stem='no-such-stem')


def test_float32_stays_float32_throughout_a_training_step():
    seen = set()

    class Dtypes(chainer.FunctionHook):
        def forward_postprocess(self, function, in_data):
            seen.update((function.label, array.dtype) for array in in_data)

        def backward_postprocess(self, function, in_data, out_grad):
            seen.update((function.label, array.dtype) for array in out_grad if array is not None)
    x, t = batch()
    classifier = ManifoldMixupClassifier(ResNet50())
    optimizer = chainer.optimizers.Adam().setup(classifier)
    with chainer.using_config('train', True), chainer.using_config('enable_backprop', True), \
            Dtypes():
        optimizer.update(classifier, x, t, np.float64(LAM), 3, INDEX)
        optimizer.update(classifier, x, t)
    assert len(seen) > 20
    assert {dtype for _, dtype in seen} == {np.dtype('f'), np.dtype('i')}, seen
    for name, parameter in classifier.namedparams():
        assert parameter.dtype == parameter.grad.dtype == np.float32, name
        for key, state in parameter.update_rule.state.items():
            assert state.dtype == np.float32, (name, key)
