"""The benchmark on GPUs and gpu_check, as far as they need none."""
import json
import subprocess
import sys
import types

import pytest

from benchmarks import contestants, gpu_check, gpu_training_step
from recipe.errors import Invalid
from tests.conftest import ROOT


def test_operations_and_bytes_of_a_convolution():
    torch = pytest.importorskip('torch')
    from benchmarks import floor
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False),
                                  torch.nn.Conv2d(4, 5, 1, stride=2, bias=False))
    found = floor.count(network, torch.empty(2, 3, 6, 6), 4)
    first = 2 * (2 * 4 * 6 * 6 * 3 * 9)  # forward and the gradient of W: images have none
    second = 3 * (2 * 5 * 3 * 3 * 4)
    assert floor.total(found)[0] == 2 * (first + second)
    sizes = {'x': 2 * 3 * 36, 'W': 4 * 27, 'h': 2 * 4 * 36, 'V': 20, 'y': 2 * 5 * 9}
    moved = 2 * (sizes['x'] + sizes['W'] + sizes['h']) + 3 * (sizes['h'] + sizes['V'] + sizes['y'])
    assert floor.total(found)[1] == 4 * (moved + 7 * (sizes['W'] + sizes['V']))


def test_operations_of_resnet50():
    """3.8 thousand million multiply-adds on 224 x 224 pixels (He et al. 2016, table 1)."""
    pytest.importorskip('torch')
    from benchmarks import floor
    operations, _ = floor.total(floor.kernels('resnet50', 'imagenet', 1, 'tf32', side=224))
    assert 3.7e9 < operations / 6 < 3.95e9


@pytest.mark.parametrize('case', contestants.CASES)
def test_both_networks_are_one(case):
    pytest.importorskip('torch')
    import numpy as np
    import chainer
    from benchmarks import networks_chainer, networks_torch
    ours = networks_chainer.network(*contestants.CASES[case])
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        ours(np.zeros((1, 3, 32, 32), np.float32))
    theirs = networks_torch.network(*contestants.CASES[case])
    assert ours.count_params() == sum(p.numel() for p in theirs.parameters())


def test_kernels_and_launches_of_a_trace():
    events = [{'cat': 'kernel', 'name': 'a'}, {'cat': 'kernel', 'name': 'b'},
              {'cat': 'cuda_runtime', 'name': 'cudaGraphLaunch'},
              {'cat': 'cuda_driver', 'name': 'cuLaunchKernel'},
              {'cat': 'cuda_runtime', 'name': 'cudaMalloc'}, {'name': 'c'}]
    assert contestants.counts(events) == {'kernels': 2, 'launches': 2}
    with pytest.raises(LookupError):
        contestants.counts(events[2:])


def test_rows_are_kept_for_the_same_code_and_device_alone(tmp_path):
    path, made_by = str(tmp_path / 'bench.json'), {'device': 'H200', 'sources': 'a'}
    report = gpu_training_step.load(path, made_by)
    gpu_training_step.add(report, {'case': 'x', 'batch': 1, 'precision': 'tf32', 'ms': 2}, path)
    again = gpu_training_step.load(path, made_by)
    assert gpu_training_step.find(again, ('x', 1, 'tf32'))['ms'] == 2
    assert gpu_training_step.find(again, ('x', 2, 'tf32')) is None
    with pytest.raises(Invalid, match='sources a, now b; give another --json, or --fresh'):
        gpu_training_step.load(path, {'device': 'H200', 'sources': 'b'})
    assert gpu_training_step.load(path, {}, fresh=True)['rows'] == []


def test_a_benchmark_without_a_gpu_ends_in_one_line():
    run = subprocess.run([sys.executable, '-m', 'benchmarks.gpu_training_step', '--device', 'gpu'],
                         cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and 'given \'gpu\', valid: the number of a GPU' in run.stderr


def options(**changes):
    return types.SimpleNamespace(**{'device': '0', 'out': 'x', 'dataset': 'cifar10', 'full': False,
                                    'seconds': None, 'seeds': [0, 1], 'train': '', **changes})


def test_gpu_check_takes_ten_minutes_at_most():
    found = gpu_check.parts(options())
    assert sum(seconds for _, seconds, _ in found) <= 600
    assert [name for name, _, _ in found] == [
        'tests', 'bench', 'run-baseline-graph-on', 'run-baseline-graph-off',
        'run-manifoldmixup-graph-on', 'run-manifoldmixup-graph-off']


def test_the_full_check_ends_in_the_comparisons_of_all_methods():
    found = {name: command for name, _, command in gpu_check.parts(
        options(full=True, train='--epoch 2'))}
    assert list(found) == ['tests', 'bench', 'blog', 'standard-60', 'input-mixup-0',
                           'input-mixup-1', 'compare', 'standard-200']
    assert found['compare'][1:7] == [f'x/standard-60/{name}' for name in (
        'baseline-0', 'manifoldmixup-0', 'input-0', 'baseline-1', 'manifoldmixup-1', 'input-1')]
    assert all('--epoch 2' in ' '.join(found[name][-2:]) for name in ('blog', 'standard-200'))


def test_a_part_that_fails_or_takes_too_long_is_said_so(tmp_path):
    failed = gpu_check.run('a', 9, ['-c', 'print(1); raise SystemExit(3)'], str(tmp_path))
    assert failed['status'] == 3 and failed['last'] == ['1']
    late = gpu_check.run('b', .5, ['-c', 'import time; time.sleep(60)'], str(tmp_path))
    assert late['status'] == 'ended after 0.2 s' and late['seconds'] < 5
    json.dumps([failed, late])


def test_gpu_check_overwrites_nothing(tmp_path):
    run = subprocess.run([sys.executable, '-m', 'benchmarks.gpu_check', '--out', tmp_path],
                         cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and f'--out: {tmp_path} exists; name a new folder' in run.stderr


@pytest.mark.gpu
def test_contestants_on_a_gpu_train():
    losses = []
    for name in 'engine graph', 'engine', 'chainer':
        contestant = contestants.Chainer(name, 'preactresnet18', 4, 'tf32', '0')
        assert contestant.prepare()['parameters'] == 11171146
        turn = contestant.turn(2)
        assert turn['ms'] > 0 and turn['host_ms'] > 0 and turn['peak'] > 0
        losses.append(turn['loss'])
    assert all(0 < loss < 1 for loss in losses)  # of one batch, which they have learned
    assert contestant.device.free() > 0
