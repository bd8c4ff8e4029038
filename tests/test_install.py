"""What install/ builds: the edited Chainer and ChainerCV, and the backend that edits them."""
import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import types
import unittest
import warnings
from pathlib import Path

import chainer
import chainer.functions as F
import chainercv
import numpy as np
import pytest
from chainer import testing
from chainer.backends import cuda
from chainer.testing import doctest_helper
from chainercv.experimental.links import FCISTrainChain
from chainercv.experimental.links.model.fcis import ProposalTargetCreator
from chainercv.utils.bbox.non_maximum_suppression import _nms_gpu_post as nms_post
from packaging.specifiers import SpecifierSet

INSTALL = Path(__file__).resolve().parent.parent / 'install'
PACKAGES = {'chainer': chainer, 'chainercv': chainercv}
REFUSAL = ('Python 3.10 is not supported; valid: 3.11 to 3.15; make VENV=python3.13 makes .venv '
           'with another Python\n')

needs_pip = pytest.mark.skipif(
    importlib.util.find_spec('pip') is None, reason='the backend fetches with pip')


def contents(package):
    return tomllib.loads((INSTALL / package / 'edits.toml').read_text(encoding='utf-8'))


EDITS = [
    pytest.param(package, edit, id='{}: {}'.format(edit['file'], edit['old'].strip()[:40]))
    for package in PACKAGES for edit in contents(package)['edit']]


def run(code, **variables):
    """Standard output and error, together, of a fresh Python that must end well."""
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **variables})
    assert done.returncode == 0, done.stdout
    return done.stdout


# The list of edits


@pytest.mark.parametrize('package, edit', EDITS)
def test_every_edit_is_in_the_installed_package_and_has_a_reason(package, edit):
    assert edit['reason'].strip()
    assert edit['new'] != edit['old']
    if edit['file'] != 'setup.py':
        site = Path(PACKAGES[package].__file__).parent.parent
        text = (site / edit['file']).read_text(encoding='utf-8')
        assert edit['new'] in text
        assert edit['new'].count(edit['old']) == text.count(edit['old'])


@pytest.mark.parametrize('package', PACKAGES)
def test_the_version_says_that_the_release_is_edited(package):
    version = '{}+edited'.format(contents(package)['release']['version'])
    assert importlib.metadata.version(package) == version
    assert PACKAGES[package].__version__ == version


@pytest.mark.parametrize('package', PACKAGES)
def test_the_wheel_is_pure_python(package):
    distribution = importlib.metadata.distribution(package)
    assert 'Tag: py3-none-any' in distribution.read_text('WHEEL').splitlines()
    assert not [file for file in distribution.files if file.suffix in ('.so', '.pyd')]


@pytest.mark.parametrize('package, others', [
    ('chainer', {'chainermn', 'chainerx', 'onnx_chainer'}), ('chainercv', set())])
def test_a_wheel_holds_its_own_packages_alone(package, others):
    files = importlib.metadata.distribution(package).files
    assert {file.parts[0] for file in files if not file.parts[0].endswith('.dist-info')} == {
        package, *others}


def test_chainer_asks_for_packaging_and_no_longer_for_setuptools():
    requires = [line for line in importlib.metadata.requires('chainer') if 'extra' not in line]
    assert 'packaging' in requires
    assert not [line for line in requires if line.startswith('setuptools')]


# Importing


def test_all_imports_without_setuptools_and_distutils():
    run('''
        import sys
        for name in ('pkg_resources', 'setuptools', 'distutils', 'numpy.distutils'):
            sys.modules[name] = None  # an import of it fails
        import chainer, chainercv, chainermn, chainer.testing.doctest_helper
    ''')


@pytest.mark.slow
def test_a_first_import_prints_nothing(tmp_path):
    # An empty cache: as after an installation that compiles nothing. Python 3.12 and later then
    # warn of backslashes in docstrings; SyntaxWarning is shown by default.
    assert run('import chainer, chainercv, chainermn', PYTHONPYCACHEPREFIX=str(tmp_path)) == ''


def test_an_import_leaves_the_warning_filters_and_numpy_as_they_were():
    assert run('''
        import warnings, numpy, chainer
        filters, names = list(warnings.filters), set(vars(numpy))
        import chainercv, chainermn
        print(filters == warnings.filters, set(vars(numpy)) - names, hasattr(numpy, 'int'))
    ''') == 'True set() False\n'


@pytest.mark.slow
def test_a_training_run_prints_no_warning_and_stays_in_float32(tmp_path):
    output = run('''
        import warnings
        warnings.filterwarnings('error', module='chainer')  # hidden ones too, chainercv's too
        import chainer, numpy as np
        import chainer.functions as F, chainer.links as L
        from chainer.links.model.vision.resnet import BuildingBlock
        from chainer.training import StandardUpdater, Trainer, extensions
        from chainercv import transforms

        class Net(chainer.Chain):
            def __init__(self):
                super().__init__()
                with self.init_scope():
                    self.conv = L.Convolution2D(3, 4, 3, pad=1)
                    self.bn = L.BatchNormalization(4)
                    self.block = BuildingBlock(2, 4, 2, 8, 1)
                    self.fc = L.Linear(8, 3)

            def forward(self, x):
                h = F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2)
                h = F.permutate(self.block(h), np.arange(len(x), dtype=np.int32)[::-1])
                return self.fc(F.dropout(F.average(h, axis=(2, 3))))

        def augment(example):
            x, t = example
            x = transforms.random_crop(transforms.resize(x, (10, 10)), (8, 8))
            return transforms.random_flip(x, x_random=True), t

        rng = np.random.default_rng(0)
        data = chainer.datasets.TransformDataset(chainer.datasets.TupleDataset(
            rng.random((12, 3, 8, 8), np.float32), np.arange(12, dtype=np.int32) % 3), augment)
        for optimizer, iterator in ((chainer.optimizers.Adam, chainer.iterators.SerialIterator),
                                    (chainer.optimizers.MomentumSGD,
                                     chainer.iterators.SerialIterator),
                                    (chainer.optimizers.NesterovAG,
                                     chainer.iterators.MultithreadIterator)):
            model = L.Classifier(Net())
            optimizer = optimizer().setup(model)
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
            optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.1))
            train, test = iterator(data, 6), iterator(data, 6, repeat=False, shuffle=False)
            trainer = Trainer(StandardUpdater(train, optimizer), (2, 'epoch'), out=OUT)
            for extension in (extensions.Evaluator(test, model), extensions.LogReport(),
                              extensions.snapshot(filename='snapshot'),
                              extensions.PlotReport(['main/loss'], 'epoch', filename='p.png'),
                              extensions.FailOnNonNumber()):
                trainer.extend(extension, trigger=(1, 'epoch'))
            trainer.run()
            chainer.serializers.load_npz(OUT + '/snapshot', trainer)
            arrays = [array for link in model.links() for array in
                      [getattr(link, name) for name in link._persistent]]
            for parameter in model.params():
                arrays += [parameter.array, parameter.grad, *parameter.update_rule.state.values()]
            dtypes = {a.dtype for a in arrays if isinstance(a, np.ndarray) and a.ndim}
            assert dtypes == {np.dtype(np.float32)}, dtypes
            assert model.y.dtype == model.loss.dtype == np.float32
    '''.replace('OUT', repr(str(tmp_path))))
    assert output == ''


# Chainer


def test_as_strided_views_and_differentiates_every_float_type():
    for dtype in (np.float16, np.float32, np.float64):
        x = chainer.Variable(np.arange(6, dtype=dtype))
        y = F.as_strided(x, (4, 3), (1, 1))
        np.testing.assert_array_equal(
            y.array, np.lib.stride_tricks.sliding_window_view(x.array, 3))
        y.grad = np.ones_like(y.array)
        y.backward()
        assert x.grad.dtype == dtype
        np.testing.assert_array_equal(x.grad, [1, 2, 3, 3, 2, 1])


def test_as_strided_refuses_to_differentiate_integers():
    node = F.array.as_strided.AsStridedGrad(None, (4, 3), (1, 1), 0)
    with pytest.raises(TypeError, match='Only float'):
        node.forward((np.ones((4, 3), np.int64),))


def nesterov_steps(device):
    """A parameter after each of three steps of NesterovAG, and the same by the paper's equation."""
    lr, momentum, theta, v = 0.1, 0.9, 2., 0.
    parameter = chainer.Parameter(np.array([theta]))
    parameter.to_device(device)
    rule = chainer.optimizers.NesterovAG(lr, momentum).create_update_rule()
    steps, expected = [], []
    for g in 0.5, -0.2, 0.7:
        parameter.grad = parameter.xp.array([g])
        rule.update(parameter)
        steps.append(float(parameter.array[0]))
        theta += momentum ** 2 * v - (1 + momentum) * lr * g
        v = momentum * v - lr * g
        expected.append(theta)
    return steps, expected


def test_nesterovag_is_equation_7_of_the_paper_that_it_cites():
    steps, expected = nesterov_steps('@numpy')
    np.testing.assert_allclose(steps, expected, rtol=1e-14)


@pytest.mark.gpu
def test_nesterovag_is_that_equation_on_a_gpu_too():
    steps, expected = nesterov_steps('@cupy:0')
    np.testing.assert_allclose(steps, expected, rtol=1e-14)


@pytest.mark.parametrize('mode, align_corners, at', [
    ('bilinear', True, [0, 1 / 3, 2 / 3, 1]), ('bilinear', False, [0, 0.25, 0.75, 1]),
    ('nearest', True, [0, 0, 1, 1])])
def test_resize_images_works_in_every_mode(mode, align_corners, at):
    x = np.array([[[[0, 1], [2, 3]]]], np.float32)
    y = F.resize_images(x, (4, 4), mode=mode, align_corners=align_corners)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.array[0, 0], 2 * np.c_[at] + at, atol=1e-6)


# A stand-in for CuPy that lacks NCCL, and warns of it as CuPy does.
FAKE_CUPY = '''
    import sys, types, unittest.mock, warnings

    class Module(types.ModuleType):
        __path__ = []
        def __getattr__(self, name):
            if name == 'nccl':
                warnings.warn('nccl library could not be loaded.')
            if name == 'nccl' or name == 'cudnn' or name.startswith('__'):
                raise AttributeError(name)
            return unittest.mock.MagicMock()

    for name in ('cupy', 'cupy.cuda', 'cupyx', 'cupyx.scipy', 'cupyx.scipy.linalg',
                 'cupyx.scipy.special'):
        module = sys.modules[name] = Module(name)
        if '.' in name:
            parent, _, name = name.rpartition('.')
            setattr(sys.modules[parent], name, module)
    cupy = sys.modules['cupy']
    cupy.__version__ = '14.0.0'
    cupy.ndarray = type('ndarray', (), {})
    cupy._util = types.SimpleNamespace(PerformanceWarning=Warning)
    sys.modules['cupy._util'] = cupy._util
    for name in ('Device', 'Event', 'Stream'):
        setattr(cupy.cuda, name, type(name, (), {}))
    cupy.cuda.is_available = lambda: HAS_GPU
    import chainer
    from chainer.backends import cuda
    print(cuda.available, cuda.cupy is cupy)
'''


def test_cuda_is_available_where_cupy_finds_a_gpu():
    assert run('    HAS_GPU = True' + FAKE_CUPY) == 'True True\n'


def test_cuda_is_not_available_where_cupy_is_installed_without_a_gpu():
    reason = '    print(cuda._resolution_error)'
    assert run('    HAS_GPU = False' + FAKE_CUPY + reason) == (
        'False False\nCuPy is installed, but finds no usable GPU.\n')


@pytest.mark.parametrize('major, warned', [(13, 1), (14, 0)])
def test_cupy_14_which_has_no_cudnn_brings_no_warning_of_it(monkeypatch, major, warned):
    monkeypatch.setattr(cuda, 'available', True)
    monkeypatch.setattr(cuda, 'cudnn_enabled', False)
    monkeypatch.setattr(cuda, '_cudnn_disabled_by_user', False, raising=False)
    monkeypatch.setattr(cuda, '_cupy_major', major)
    monkeypatch.delattr(cuda.check_cuda_available, '_already_warned', raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        cuda.check_cuda_available()
    monkeypatch.delattr(cuda.check_cuda_available, '_already_warned', raising=False)
    assert len(caught) == warned


REQUIREMENTS = [
    (('numpy>=2',), True), (('numpy>=2', 'chainer>=7,<8'), True), (('numpy<2',), False),
    (('numpy>=2', 'chainer>=8'), False), (('no-such-package',), False)]


@pytest.mark.parametrize('requirements, satisfied', REQUIREMENTS)
def test_chainer_testing_reads_version_requirements(requirements, satisfied):
    def skipped(decorate):
        case = type('Case', (unittest.TestCase,), {'test': decorate(lambda self: None)})
        return bool(unittest.TestSuite([case('test')]).run(unittest.TestResult()).skipped)

    assert skipped(testing.with_requires(*requirements)) is not satisfied
    assert skipped(testing.without_requires(*requirements)) is satisfied
    assert doctest_helper.skipif_requires_satisfied(*requirements) is satisfied


# ChainerCV


def test_the_second_half_of_gpu_nms_selects_the_boxes_that_nms_on_the_cpu_selects():
    rng = np.random.default_rng(0)
    low = rng.random((150, 2)) * 4
    boxes = np.hstack([low, low + 1]).astype(np.float32)
    n, blocks = len(boxes), 3  # 150 boxes in blocks of 64
    iou = chainercv.utils.bbox_iou(boxes, boxes)
    mask = np.zeros((n, blocks), np.uint64)  # as the GPU kernel fills it
    for i, j in zip(*np.where(np.triu(iou >= 0.3, k=1))):
        mask[i, j // 64] |= np.uint64(1) << np.uint64(j % 64)
    selection, count = nms_post(mask.ravel(), n, 64, np.int32(blocks))
    expected = chainercv.utils.non_maximum_suppression(boxes, 0.3)
    assert 1 < count < n
    assert selection.dtype == np.int32
    np.testing.assert_array_equal(selection[:count], expected)


@pytest.mark.parametrize('switch, reported', [('ON', True), ('1', True), ('OFF', False)])
def test_the_report_of_a_download_can_be_switched(tmp_path, monkeypatch, capsys, switch, reported):
    monkeypatch.setenv('CHAINERCV_DOWNLOAD_REPORT', switch)
    monkeypatch.setattr(chainer.dataset.download, '_dataset_root', str(tmp_path / 'root'))
    (tmp_path / 'file').write_text('contents')
    path = chainercv.utils.cached_download((tmp_path / 'file').as_uri())
    assert Path(path).read_text() == 'contents'
    assert ('Downloading' in capsys.readouterr().out) is reported


ROI = np.array([[0, 0, 8, 8], [8, 8, 16, 16]], np.float32)
MASK = np.zeros((1, 16, 16), bool)
MASK[:, :8, :4] = True


def test_fcis_crops_the_masks_of_its_proposals():
    np.random.seed(0)
    _, mask, label, _ = ProposalTargetCreator(n_sample=4, pos_ratio=0.5, neg_iou_thresh_lo=0)(
        ROI, MASK, np.array([1], np.int32), ROI[:1], (0, 0, 0, 0), (1, 1, 1, 1), 4)
    assert label.tolist() == [2, 2, 0]
    np.testing.assert_array_equal(mask[0], np.tile([1, 1, 0, 0], (4, 1)))


def test_fcis_computes_its_loss():
    chain = FCISTrainChain.__new__(FCISTrainChain)
    chainer.Chain.__init__(chain)
    chain.fcis = types.SimpleNamespace(
        extractor=lambda imgs: (None, None),
        rpn=lambda *args: (chainer.Variable(np.zeros((1, 2, 4), np.float32)),
                           np.zeros((1, 2, 2), np.float32), ROI, None, ROI),
        head=lambda features, roi, index, size, label: (
            np.zeros((len(roi), 2, 4, 4), np.float32),
            chainer.Variable(np.zeros((len(roi), 2, 4), np.float32)),
            np.zeros((len(roi), 3), np.float32), None, None))
    chain.rpn_sigma = chain.roi_sigma = 1
    chain.mask_size = 4
    chain.loc_normalize_mean, chain.loc_normalize_std = (0, 0, 0, 0), (1, 1, 1, 1)
    chain.proposal_target_creator = ProposalTargetCreator(n_sample=4, neg_iou_thresh_lo=0)
    chain.anchor_target_creator = lambda *args: (
        np.zeros((2, 4), np.float32), np.array([0, 1], np.int32))
    loss = chain(np.zeros((1, 3, 16, 16), np.float32), MASK[None], np.array([[1]], np.int32),
                 ROI[None, :1], np.array(1.))
    assert np.isfinite(loss.array)


# The backend


@pytest.fixture
def backend():
    spec = importlib.util.spec_from_file_location('backend', INSTALL / 'edited_release.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def edit(old):
    return {'file': 'code.py', 'old': old, 'new': 'three', 'reason': 'to see'}


def test_an_edit_replaces_a_text_that_occurs_once(backend, tmp_path):
    (tmp_path / 'code.py').write_text('one two two')
    backend.apply(edit('one'), tmp_path)
    assert (tmp_path / 'code.py').read_text() == 'three two two'


@pytest.mark.parametrize('old, count', [('four', 0), ('two', 2)])
def test_an_edit_that_does_not_fit_stops_the_build(backend, tmp_path, old, count):
    (tmp_path / 'code.py').write_text('one two two')
    with pytest.raises(SystemExit, match=f'code.py .* once and occurs {count} times'):
        backend.apply(edit(old), tmp_path)
    assert (tmp_path / 'code.py').read_text() == 'one two two'


def test_another_python_than_the_supported_ones_stops_the_build(backend, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'version_info', (3, 10, 13))
    with pytest.raises(SystemExit) as error:
        backend.build_wheel('.')
    assert error.value.code == 2 and capsys.readouterr().err == REFUSAL


@pytest.mark.parametrize('what', ['import experiment', 'from experiment.grid import main'])
def test_another_python_is_told_so_before_anything_else_is_imported(what):
    done = subprocess.run(
        [sys.executable, '-S', '-c', f'import sys; sys.version_info = (3, 10, 13); {what}'],
        cwd=INSTALL.parent, capture_output=True, text=True)  # without site-packages
    assert done.returncode == 2 and done.stderr == REFUSAL


@pytest.mark.parametrize('version, supported', [
    ((3, 8), False), ((3, 10), False), ((3, 11), True), ((3, 15), True), ((3, 16), False)])
def test_what_the_wheels_and_the_check_let_in_is_the_same(monkeypatch, version, supported):
    monkeypatch.setattr(sys, 'version_info', (*version, 0))
    end = contextlib.nullcontext() if supported else pytest.raises(SystemExit)
    with end:
        runpy.run_path(str(INSTALL.parent / 'experiment' / 'supported_python.py'))
    for package in PACKAGES:
        requires = importlib.metadata.metadata(package)['Requires-Python']
        assert SpecifierSet(requires).contains('{}.{}.1'.format(*version)) is supported


def test_what_comes_before_the_check_is_code_for_old_pythons_too():
    for name in 'experiment/__init__.py', 'experiment/supported_python.py', \
            'install/edited_release.py', 'install/chainer/backend.py':
        source = (INSTALL.parent / name).read_text(encoding='utf-8')
        ast.parse(source, name, feature_version=(3, 8))


def test_an_sdist_is_not_built(backend):
    with pytest.raises(SystemExit, match='only builds a wheel'):
        backend.build_sdist('.')


def test_a_build_happens_in_the_source_folder_and_its_warnings_are_not_shown(
        backend, monkeypatch, tmp_path):
    def build_wheel(directory):
        warnings.warn('setup.py uses pkg_resources', stacklevel=1)  # an error in these tests
        return directory, Path.cwd()

    legacy = types.SimpleNamespace(build_wheel=build_wheel)
    build_meta = types.SimpleNamespace(__legacy__=legacy)
    monkeypatch.setitem(sys.modules, 'setuptools', types.SimpleNamespace(build_meta=build_meta))
    before = Path.cwd()
    assert backend.build(tmp_path, 'wheels') == ('wheels', tmp_path)
    assert Path.cwd() == before


def sdist(directory, backend_path='backend-path = ["."]\n'):
    """A release of chainer that leaves a file `ran` beside itself as soon as its code runs."""
    files = {
        'pyproject.toml': '[build-system]\nrequires = []\nbuild-backend = "it"\n' + backend_path,
        'PKG-INFO': 'Metadata-Version: 2.1\nName: chainer\nVersion: 7.8.1\n',
        'it.py': 'import os\n'
                 'open({!r}, "w")\n'
                 'def prepare_metadata_for_build_wheel(directory, settings=None):\n'
                 '    os.mkdir(directory + "/chainer-7.8.1.dist-info")\n'
                 '    with open(directory + "/chainer-7.8.1.dist-info/METADATA", "w") as f:\n'
                 '        f.write(open("PKG-INFO").read())\n'
                 '    return "chainer-7.8.1.dist-info"\n'.format(str(directory / 'ran'))}
    path = directory / 'chainer-7.8.1.tar.gz'
    with tarfile.open(path, 'w:gz') as archive:
        for name, text in files.items():
            member = tarfile.TarInfo('chainer-7.8.1/' + name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
            (directory / name).write_text(text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A folder that pip takes every package from, the network being cut off."""
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    return tmp_path


@needs_pip
def test_an_sdist_with_the_right_hash_is_fetched_and_unpacked(backend, offline):
    release = {'name': 'chainer', 'version': '7.8.1', 'sha256': sdist(offline)}
    (offline / 'to').mkdir()
    source = backend.fetch(release, offline / 'to')
    assert (source / 'PKG-INFO').exists()
    assert (offline / 'ran').exists()


@needs_pip
@pytest.mark.parametrize('name', ['_PYPROJECT_HOOKS_BACKEND_PATH_JSON', 'PEP517_BACKEND_PATH'])
def test_pip_does_not_look_for_the_backend_of_the_sdist_in_install(
        backend, offline, monkeypatch, name):
    monkeypatch.setenv(name, f'["{INSTALL}"]' if 'JSON' in name else str(INSTALL))
    monkeypatch.setenv('PYTHONPATH', str(offline))  # this backend is installed, as setuptools is
    release = {'name': 'chainer', 'version': '7.8.1', 'sha256': sdist(offline, backend_path='')}
    (offline / 'to').mkdir()
    assert backend.fetch(release, offline / 'to').exists()


def pip_wheel(directory):
    """pip's answer to a user, from a copy of install/ so that litter would show."""
    shutil.copytree(INSTALL, directory / 'install',
                    ignore=shutil.ignore_patterns('__pycache__'))
    (directory / 'experiment').mkdir()
    shutil.copy(INSTALL.parent / 'experiment' / 'supported_python.py', directory / 'experiment')
    before = sorted(directory.glob('install/**/*'))
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation',
         '-w', directory / 'wheels', directory / 'install' / 'chainer'], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1', 'COLUMNS': '1000'})
    assert done.returncode != 0
    assert sorted(directory.glob('install/**/*')) == before
    assert 'Traceback' not in done.stdout
    return done.stdout


@needs_pip
def test_an_sdist_with_another_hash_is_refused_before_its_code_runs(offline):
    sdist(offline)
    output = pip_wheel(offline)
    assert 'chainer==7.8.1 that the package index served is not the official one' in output
    assert not (offline / 'ran').exists()


@needs_pip
def test_an_sdist_that_cannot_be_fetched_is_named_together_with_the_remedy(offline):
    output = pip_wheel(offline)
    assert ('The sdist of chainer==7.8.1 could not be fetched: pip says "ERROR: No matching '
            'distribution found for chainer==7.8.1') in output
    assert 'PIP_FIND_LINKS' in output and 'make PYTHON=' in output


BROKEN = "WARNING: Retrying after connection broken by 'NewConnectionError': /simple/chainer/"
NONE = 'ERROR: No matching distribution found for chainer'


@pytest.mark.parametrize('output, said, index', [
    (f'{BROKEN}\n{BROKEN}\n{NONE}\n', BROKEN, True), (f'Looking in links\n{NONE}\n', NONE, True),
    ('  error: one thing\n  ERROR: another\nnote: This error is known.\n', 'ERROR: another', False),
    ('', 'nothing', False)])
def test_of_what_pip_says_the_cause_is_told_and_the_remedy_where_it_is_one(
        backend, output, said, index):
    explained = backend.explain(output)
    assert explained.startswith(f'pip says "{said}".') and ('PIP_INDEX_URL' in explained) is index


def ask_index(**variables):
    return subprocess.run(
        [sys.executable, INSTALL / 'package_index.py'], capture_output=True, text=True,
        env={**os.environ, **variables})


@needs_pip
def test_an_index_out_of_reach_is_one_line_with_the_remedy(offline, monkeypatch):
    monkeypatch.delenv('PIP_NO_INDEX')
    done = ask_index(PIP_INDEX_URL='http://127.0.0.1:9/simple')  # no server is there
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'chainer cannot be fetched: pip says' in done.stderr
    assert 'connection broken' in done.stderr and 'make PYTHON=' in done.stderr


@needs_pip
def test_a_folder_with_the_sdist_is_an_index(offline):
    assert ask_index().returncode == 2
    sdist(offline)
    done = ask_index()
    assert done.returncode == 0 and not done.stdout + done.stderr
    assert not (offline / 'ran').exists()
