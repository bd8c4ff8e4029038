"""The benchmark on GPUs, as far as it needs none."""
import copy
import subprocess
import sys
import time

import pytest

from benchmarks import contestants, gpu_training_step
from benchmarks.workers import Failure, TimeOut
from experiment.errors import Invalid
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


class Ready:
    """A worker of a contestant that takes a step of so many milliseconds."""

    def __init__(self, ms):
        self.ms = ms

    def ask(self, request, *arguments, limit):
        if request == 'prepare':
            if self.ms is None:
                raise TimeOut(f'no result within {limit:.0f} s')
            return {'ms': self.ms, 'parameters': 7, 'free': None, 'peak': 0}
        return {'ms': self.ms, 'host_ms': 1, 'wall_ms': self.ms, 'peak': 0, 'loss': 1.}

    def send(self, *request):
        pass

    def receive(self, limit):
        return {'kernels': 9, 'launches': 3}

    def close(self):
        pass


def measured(workers, seconds=60):
    """What was kept of a row, each time that it was."""
    args, kept = gpu_training_step.parse_args(['--device', 'cpu', '--rounds', '3']), []
    found = gpu_training_step.measure(
        ('resnet50-imagenet', 4, 'tf32'), list(workers), args, None, None,
        time.monotonic() + seconds, lambda row: kept.append(copy.deepcopy(row)))
    assert kept[-1] == found
    return kept


@pytest.fixture
def workers(monkeypatch):
    """A function that sets the contestants' milliseconds a step, by their names."""
    def set_up(**ms):
        named = {name.replace('_', ' ').replace('last', '-last'): value
                 for name, value in ms.items()}
        monkeypatch.setattr(gpu_training_step, 'Worker', lambda code, *_: next(
            Ready(value) for name, value in named.items() if f"('{name}'," in code))
        return named
    return set_up


def test_a_row_is_kept_after_each_round(workers):
    kept = measured(workers(engine=2., engine_graph=1., pytorch=4., pytorch_graph=3.))
    assert [row['results']['engine']['rounds'] for row in kept] == [1, 2, 3, 3]
    assert kept[-1]['results']['engine']['launches'] == 3
    assert kept[-1]['engine_best'] == 'engine graph' and kept[-1]['pytorch_best'] == 'pytorch graph'
    assert kept[-1]['pytorch_best_to_engine'] == 3 and kept[-1]['pytorch_eager_to_engine'] == 4


def test_a_contestant_that_hangs_leaves_time_to_the_others(workers, capsys):
    row = measured(workers(engine_graph=None, engine=2.), seconds=200)[-1]
    assert row['results']['engine graph'] == {'failed': 'no result within 92 s'}  # of 183
    assert row['engine_best'] == 'engine'


def test_contestants_for_which_there_is_no_time_are_left_out(workers, capsys):
    row = measured(workers(engine=2., pytorch=3.), seconds=0)[-1]
    assert row['results'] == {}
    assert capsys.readouterr().out.count('left out, the time is up') == 2


def test_finished_rounds_of_a_contestant_that_fails_are_kept(workers, monkeypatch):
    asked = []

    def ask(self, request, *arguments, limit):
        asked.append(request)
        if asked.count('turn') == 3:
            raise Failure('it fell over')
        return first(self, request, *arguments, limit=limit)
    first = Ready.ask
    monkeypatch.setattr(Ready, 'ask', ask)
    result = measured(workers(engine=2.))[-1]['results']['engine']
    assert result['rounds'] == 2 and result['ms'] == 2. and result['failed'] == 'it fell over'


def test_there_is_time_for_those_contestants_that_took_less_than_what_is_left():
    costs = {'engine': 10, 'chainer': 30, 'pytorch': 5}
    assert gpu_training_step.affordable(['engine', 'chainer', 'pytorch'], costs, 41) == [
        'engine', 'chainer']
    assert gpu_training_step.affordable(['engine', 'new'], costs, 10) == ['engine', 'new']
    assert gpu_training_step.affordable(['engine'], costs, 9) == []


def test_the_engine_measures_algorithms_or_gives_the_same_bits(monkeypatch):
    import chainer
    for name, measures in ('engine', False), ('engine autotune', True):
        contestant = contestants.Chainer(name, 'preactresnet18', 1, 'tf32', 'cpu')
        monkeypatch.setattr(contestant, 'check', lambda engine, kind: None)
        contestant.build()
        assert chainer.config.autotune == measures != chainer.config.cudnn_deterministic


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
