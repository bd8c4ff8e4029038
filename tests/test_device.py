"""The choice of a device, of what computes on it, and the errors where that does not work."""
import os
import subprocess
import sys
import types

import chainer
import numpy as np
import pytest
from chainer.functions.activation.relu import ReLU

from experiment import computation, device
from experiment.errors import Invalid
from tests.conftest import ROOT


class Runtime:
    """A stand-in for CUDA's runtime on a machine with two GPUs."""

    def getDeviceCount(self):
        return 2

    def getDeviceProperties(self, number):
        return {'name': b'NVIDIA H200'}


def cupy(product=np.matmul):
    """A stand-in for CuPy that computes by NumPy and has what is asked about a device."""

    class Array(np.ndarray):
        def __matmul__(self, other):
            return product(np.asarray(self), np.asarray(other))
    return types.SimpleNamespace(
        __version__='14.2.0', ones=lambda shape, dtype: np.ones(shape, dtype).view(Array),
        cuda=types.SimpleNamespace(Device=lambda number: chainer.using_config('train', True),
                                   runtime=Runtime()))


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what there is, and gives the GPUs that were made the current one."""
    used = []

    class Device:
        def __init__(self, name):
            self.xp = np if name == '@numpy' else 'cupy'
            self.device = types.SimpleNamespace(id=int(name[6:] or 0))

        def use(self):
            used.append(self)

    def set_up(gpu, has_cupy, cupy=None, cudnn=None):
        monkeypatch.setitem(sys.modules, 'cudnn', cudnn)  # None: it cannot be imported
        monkeypatch.setattr(device.glob, 'glob', lambda path: ['/dev/nvidia0'] if gpu else [])
        monkeypatch.setattr(device, 'has_cupy', lambda: has_cupy)
        monkeypatch.setattr(device, 'cuda', types.SimpleNamespace(
            available=cupy is not None, cupy=cupy, cudnn_enabled=False,
            _resolution_error=RuntimeError('finds no usable GPU')))
        monkeypatch.setattr(device.chainer, 'get_device', Device)
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        return used
    return set_up


CUDNN = types.SimpleNamespace(backend_version=lambda: 92800)


def use(name, engine='auto', graph='auto', dtype='float32', autotune=False):
    """The device that a run gets, chosen as both scripts do."""
    args = types.SimpleNamespace(
        device=name, engine=engine, graph=graph, dtype=dtype, autotune=autotune)
    chosen = device.use_device(args)
    computation.use_dtype(args, chosen)
    computation.choose_engine(args, chosen)
    return chosen


@pytest.mark.parametrize('gpu, has_cupy', [(False, False), (False, True), (True, False)])
def test_without_cupy_or_gpu_it_is_the_cpu(machine, capsys, gpu, has_cupy):
    machine(gpu, has_cupy)
    assert use('auto').xp is np
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith('Device: CPU (') and ', float32, engine fast' in line
    assert line.endswith('; there is a GPU, but CuPy is not installed: install '
                         'requirements-gpu.txt, with a driver for CUDA 12 or later') == gpu


def test_the_first_gpu_is_taken_and_described(machine, capsys):
    used = machine(True, True, cupy())
    assert use('auto') is used[0]
    line, = capsys.readouterr().out.splitlines()
    assert line == ('Device: GPU 0 (NVIDIA H200), CuPy 14.2.0, no cuDNN (import of cudnn halted; '
                    'None in sys.modules), float32, engine stock (slow: convolutions without '
                    'cuDNN, which requirements-gpu.txt has)')


@pytest.mark.parametrize('engine, graph, described', [
    ('auto', 'auto', 'engine fast, graph on'), ('auto', 'off', 'engine fast'),
    ('stock', 'off', 'engine stock (slow: convolutions without cuDNN)'),
    ('fast', 'auto', 'engine fast, graph on'), ('fast', 'on', 'engine fast, graph on'),
    ('fast', 'off', 'engine fast')])
def test_engine_and_graph_on_a_gpu(machine, capsys, engine, graph, described):
    machine(True, True, cupy(), CUDNN)
    use('auto', engine, graph)
    line, = capsys.readouterr().out.splitlines()
    assert line.endswith(f', cuDNN 9.28.0, float32, {described}')


def test_mixed16_is_chainers_dtype_from_then_on(machine, capsys):
    machine(True, True, cupy(), CUDNN)
    use('0', 'fast', dtype='mixed16')
    assert chainer.get_dtype() == np.float16 and chainer.config.dtype == chainer.mixed16
    assert capsys.readouterr().out.endswith(', mixed16, engine fast, graph on\n')
    use('0')
    assert chainer.config.dtype == np.float32


def test_numbers_repeat_unless_the_fastest_algorithms_are_wanted():
    for autotune in False, True, False:
        computation.use_engine(
            types.SimpleNamespace(engine='fast', graph='off', autotune=autotune),
            chainer.links.Linear(2, 2), None)
        assert chainer.config.autotune == autotune != chainer.config.cudnn_deterministic


@pytest.mark.parametrize('name, engine, cudnn', [
    ('cpu', 'fast', CUDNN), ('0', 'stock', CUDNN), ('0', 'auto', None)])
def test_only_the_fast_engine_on_a_gpu_has_algorithms_to_measure(machine, name, engine, cudnn):
    machine(True, True, cupy(), cudnn)
    with pytest.raises(Invalid, match='--autotune: valid with --engine fast on a GPU'):
        use(name, engine, autotune=True)


def test_mixed16_needs_a_gpu(machine):
    machine(True, True, cupy(), CUDNN)
    with pytest.raises(Invalid, match='--dtype: given mixed16, which needs a GPU; valid on a CPU: '
                                      'float32'):
        use('cpu', dtype='mixed16')


def test_the_fast_engine_needs_cudnn_on_a_gpu(machine):
    machine(True, True, cupy())
    with pytest.raises(Invalid, match=r'--engine: given fast, but there is no cuDNN \(.*cudnn.*\); '
                                      'install requirements-gpu.txt, or take --engine stock'):
        use('0', 'fast')


@pytest.mark.parametrize('name, engine, cudnn', [
    ('cpu', 'fast', CUDNN), ('0', 'stock', CUDNN), ('0', 'auto', None)])
def test_only_the_fast_engine_on_a_gpu_records_graphs(machine, name, engine, cudnn):
    machine(True, True, cupy(), cudnn)
    with pytest.raises(Invalid, match='--graph: given on, which needs --engine fast on a GPU; '
                                      'valid without: off or auto'):
        use(name, engine, 'on')


def test_a_gpu_that_cupy_cannot_use_is_an_error_and_not_a_slow_run(machine, monkeypatch):
    machine(True, True)
    monkeypatch.setitem(sys.modules, 'cupy', None)
    with pytest.raises(Invalid, match='given 0, but no GPU can be used: ModuleNotFoundError: .+; '
                                      'install requirements-gpu.txt anew, or take --device cpu'):
        use('auto')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')  # the user does not want it
    assert use('auto').xp is np


@pytest.mark.parametrize('error, message', [
    ('cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version',
     "there is no NVIDIA driver, or it is for an older CUDA than CuPy's; install or update it "
     '(nvidia-smi shows its CUDA, which must be 12 or later)'),
    ('cudaErrorNoDevice: no CUDA-capable device is detected',
     'no GPU is visible; see what nvidia-smi lists and CUDA_VISIBLE_DEVICES hides')])
def test_what_the_driver_lacks_is_not_to_be_mended_by_installing_packages(
        machine, monkeypatch, error, message):
    def fail():
        raise RuntimeError(error)
    machine(True, True)
    monkeypatch.setitem(sys.modules, 'cupy', types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=fail))))
    for name in 'auto', '0':
        with pytest.raises(Invalid) as refusal:
            use(name)
        assert str(refusal.value) == ('--device: given 0, but no GPU can be used: '
                                      f'{message}, or take --device cpu')


def test_a_cupy_that_cannot_be_imported_gives_the_library_that_is_missing():
    error = ImportError('=====\nFailed to import CuPy.\n=====')
    error.__cause__ = ImportError('libcudart.so.12: cannot open shared object file')
    assert device.diagnose(error) == (
        'ImportError: libcudart.so.12: cannot open shared object file',
        'install requirements-gpu.txt anew')


def missing(*matrices):
    raise ImportError('libcublas.so.12: cannot open shared object file')


@pytest.mark.parametrize('product, named', [
    (missing, 'ImportError: libcublas.so.12'), (lambda a, b: 0 * a, r'4 \* \(1 \+ 2\) = 4.0')])
def test_a_gpu_that_does_not_compute_is_an_error(machine, product, named):
    used = machine(True, True, cupy(product))
    for name in 'auto', '0':
        with pytest.raises(Invalid, match=f'GPU 0 is there, but cannot compute: .*{named}.*; '
                                          '.*install requirements-gpu.txt anew, or take'):
            use(name)
    assert not used


def test_a_number_too_high_is_an_error_that_says_which_there_are(machine):
    machine(True, True, cupy())
    with pytest.raises(Invalid, match='given 2, valid: 0 to 1'):
        use('2')


def test_without_cupy_a_gpu_is_refused_with_the_reason(machine):
    machine(True, False)
    with pytest.raises(Invalid, match='CuPy is not installed'):
        use('0')


@pytest.mark.parametrize('before', ['', pytest.param('import torch', marks=pytest.mark.slow)])
def test_cudnn_is_found_without_importing_pytorch(tmp_path, before):
    (tmp_path / 'torch.py').touch()
    (tmp_path / 'cudnn.py').write_text(
        'try:\n    import torch\nexcept ImportError:\n    torch = None\n'
        'def backend_version():\n    return 91900\n')
    subprocess.run([sys.executable, '-c', f"""{before}
import sys
from experiment import device
assert device.find_cudnn() == ('9.19.0', None)
assert ('torch' in sys.modules) == {bool(before)}
import cudnn, torch
assert (cudnn.torch is torch) == {bool(before)}
"""], cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(tmp_path)}, check=True)


def test_nothing_for_a_gpu_is_imported_without_one():
    subprocess.run([sys.executable, '-c', """
import sys
import experiment
assert not [name for name in sys.modules if name.startswith('engine.gpu')], sys.modules
"""], cwd=ROOT, check=True)


def test_the_engine_computes_once_it_is_switched_on_and_not_before():
    args = types.SimpleNamespace(engine='fast', graph='off', autotune=False)
    stock = ReLU.forward_cpu
    use('cpu', 'fast')
    assert ReLU.forward_cpu is stock
    computation.use_engine(args, chainer.links.Linear(2, 2), None)
    assert ReLU.forward_cpu is not stock


@pytest.mark.gpu
def test_a_gpu_computes():
    device.compute(0)
