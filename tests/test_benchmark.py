"""The benchmark of training steps: rows, turns, the file, and what is compared."""
import copy
import json
import subprocess
import sys
import time

import pytest

from benchmarks import contestants, devices, row, training_step
from benchmarks.report import Report
from benchmarks.workers import Failure, TimeOut, Unsupported, Worker
from experiment.errors import Invalid
from tests.conftest import ROOT


@pytest.mark.slow
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


def test_operations_of_resnet50_are_those_of_its_paper():
    """3.8 thousand million multiply-adds on 224 x 224 pixels (He et al. 2016, table 1)."""
    pytest.importorskip('torch')
    from benchmarks import floor
    operations, _ = floor.total(floor.kernels('resnet50', 'imagenet', 1, 'tf32', side=224))
    assert 3.7e9 < operations / 6 < 3.95e9


@pytest.mark.parametrize('case', contestants.CASES)
def test_the_networks_in_chainer_and_pytorch_have_equally_many_parameters(case):
    pytest.importorskip('torch')
    from benchmarks import networks_torch
    from model import ARCHITECTURES
    architecture, stem = contestants.CASES[case]
    ours = ARCHITECTURES[architecture](10, stem)
    theirs = networks_torch.network(architecture, stem)
    assert ours.count_params() == sum(p.numel() for p in theirs.parameters())


def test_kernels_and_launches_in_a_trace_are_counted():
    events = [{'cat': 'kernel', 'name': 'a'}, {'cat': 'kernel', 'name': 'b'},
              {'cat': 'cuda_runtime', 'name': 'cudaGraphLaunch'},
              {'cat': 'cuda_driver', 'name': 'cuLaunchKernel'},
              {'cat': 'cuda_runtime', 'name': 'cudaMalloc'}, {'name': 'c'}]
    assert contestants.counts(events) == {'kernels': 2, 'launches': 2}
    with pytest.raises(LookupError):
        contestants.counts(events[2:])


def test_rows_are_kept_for_the_same_code_and_device_alone(tmp_path):
    path, made_by = str(tmp_path / 'bench.json'), {'device': 'H200', 'sources': 'a'}
    Report(path, made_by).add({'case': 'x', 'batch': 1, 'precision': 'tf32', 'ms': 2})
    again = Report(path, made_by)
    assert again.find(('x', 1, 'tf32'))['ms'] == 2 and again.find(('x', 2, 'tf32')) is None
    with pytest.raises(Invalid, match='sources a, now b; give another --json, or --fresh'):
        Report(path, {'device': 'H200', 'sources': 'b'})
    assert Report(path, {}, fresh=True).rows == []


def test_a_file_that_is_no_report_is_not_overwritten(tmp_path):
    path = tmp_path / 'bench.json'
    for content in '{"cases": []}', '[]', 'x':
        path.write_text(content)
        with pytest.raises(Invalid, match='is not a report of this benchmark'):
            Report(str(path), {})


# The command line

def rows(*given):
    return training_step.wanted_rows(training_step.parse_args(given))


def test_the_cpu_has_six_rows_unless_others_are_named():
    assert rows() == [
        ('resnet50-imagenet', 32, 'float32'), ('resnet50-cifar', 32, 'float32'),
        ('wrn28-10', 16, 'float32'), ('resnet50-imagenet', 128, 'float32'),
        ('preactresnet18', 64, 'float32'), ('resnet18-cifar', 64, 'float32')]
    assert rows('--case', 'resnet50-imagenet-32', '--case', 'wrn28-10') == [
        ('resnet50-imagenet', 32, 'float32'), ('wrn28-10', 16, 'float32')]
    assert rows('--case', 'resnet50-cifar', '--batch', '2') == [('resnet50-cifar', 2, 'float32')]


def test_rows_on_a_gpu_begin_with_what_matters_most(tmp_path):
    file = '--json', str(tmp_path / 'x')
    found = rows('--device', '0', *file)
    assert len(found) == 8 * 3 * 2 and found[:4] == [
        ('resnet50-imagenet', 128, 'tf32'), ('resnet50-cifar', 128, 'tf32'),
        ('resnet50-imagenet', 256, 'tf32'), ('resnet50-cifar', 256, 'tf32')]
    assert rows('--device', '1', '--case', 'wrn28-10-7', '--precision', 'fp16', *file) == [
        ('wrn28-10', 7, 'fp16')]


@pytest.mark.parametrize('given, valid', [
    (['--device', 'gpu'], "given 'gpu', valid: the number of a GPU, or cpu"),
    (['--case', 'resnet50'], "given 'resnet50', valid: resnet50-imagenet, "),
    (['--case', 'resnet50-cifar-0'], "given 'resnet50-cifar-0', valid: "),
    (['--device', '0', '--precision', 'float32'], 'given float32, valid on a GPU: tf32, fp16'),
    (['--json', '/nowhere/x.json'], '--json: /nowhere/x.json cannot be written')])
def test_what_cannot_be_measured_is_said_in_one_line(given, valid):
    with pytest.raises(Invalid, match=valid):
        training_step.parse_args(given)


def test_a_benchmark_that_cannot_begin_ends_in_one_line():
    run = subprocess.run([sys.executable, '-m', 'benchmarks.training_step', '--device', 'gpu'],
                         cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "given 'gpu', valid: the number of a GPU" in run.stderr
    assert run.stderr.count('\n') == 1


def test_each_device_has_its_contestants():
    args = training_step.parse_args([])
    there = {precision: training_step.contestants_of(args, precision, True)
             for precision in training_step.PRECISIONS}
    assert set(there['float32']) == {
        'engine', 'chainer', 'pytorch', 'pytorch channels-last', 'compile'}
    assert there['tf32'] == there['fp16'] == list(contestants.CONTESTANTS)
    assert training_step.contestants_of(args, 'float32', False) == ['engine', 'chainer']


# Workers

def test_a_worker_imports_nothing_that_it_does_not_measure():
    code = ('import sys; from benchmarks import contestants; '
            'print(sorted({"numpy", "chainer", "torch", "engine"} & {*sys.modules}))')
    found = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True)
    assert found == '[]\n'


def test_workers_have_the_environment_as_it_was_before_the_engine_was_imported():
    code = ('import sys; from benchmarks import training_step; found = list(sys.modules); '
            'print(found.index("benchmarks.workers") < found.index("engine"))')
    found = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True)
    assert found == 'True\n'


def test_a_step_on_the_cpu_is_timed_by_itself(monkeypatch):
    times = iter([1, 1.5, 2, 5])
    monkeypatch.setattr(devices.time, 'perf_counter', lambda: next(times))
    steps = iter('ab')
    assert devices.Cpu().turn(lambda: next(steps), 2) == {
        'ms': [500, 3000], 'wall_ms': 1750, 'last': 'b'}


@pytest.mark.slow
def test_without_a_compiler_the_contestant_that_needs_one_is_unsupported():
    pytest.importorskip('torch')
    work = 'compile', 'preactresnet18', 1, 'float32', 'cpu'
    with Worker(f'from benchmarks.contestants import work; work{work!r}',
                {'CXX': '/no/such/compiler'}) as worker, \
            pytest.raises(Unsupported, match=r'^torch\.compile fails: .*compiler'):
        worker.ask('prepare', limit=300)


@pytest.mark.slow
def test_a_row_on_the_cpu_is_measured_printed_and_kept(tmp_path):
    command = [sys.executable, '-m', 'benchmarks.training_step', '--case', 'preactresnet18-1',
               '--contestant', 'engine', '--contestant', 'chainer', '--contestant', 'engine graph',
               '--rounds', '2', '--steps', '1', '--json', tmp_path / 'x.json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'engine graph                unsupported: a CPU has no CUDA graphs' in done.stdout
    content = json.loads((tmp_path / 'x.json').read_text())
    found, = content['rows']
    assert (found['parameters'], found['precision']) == (11171146, 'float32')
    for name in 'engine', 'chainer':
        result = found['results'][name]
        assert 0 < result['low'] <= result['ms'] <= result['high'] and result['peak_mib'] > 0
        assert result['prepared_in'] > 0
    assert content['import_seconds'] > 0 and 'demo_seconds' not in content
    assert content['environment']['OMP_NUM_THREADS'] == content['made_by']['threads']


# A row

class Ready:
    """A worker of a contestant that takes a step of so many milliseconds."""

    def __init__(self, ms):
        self.ms = ms

    def ask(self, request, *arguments, limit):
        if request == 'prepare':
            if self.ms is None:
                raise TimeOut(f'no result within {limit:.0f} s')
            return {'ms': self.ms, 'parameters': 7, 'free': None, 'peak': 0}
        return {'ms': [self.ms], 'host_ms': 1, 'wall_ms': self.ms, 'peak': 0, 'loss': 1.}

    def send(self, *request):
        pass

    def receive(self, limit):
        return {'kernels': 9, 'launches': 3}

    def close(self):
        pass


def measured(workers, seconds=60):
    """What was kept of a row, each time that it was."""
    args, kept = training_step.parse_args(['--device', '0', '--rounds', '3']), []
    args.json = None
    found = row.Row(
        ('resnet50-imagenet', 4, 'tf32'), list(workers), args, None, None,
        time.monotonic() + seconds, lambda row: kept.append(copy.deepcopy(row))).measure()
    assert kept[-1] == found
    return kept


@pytest.fixture
def workers(monkeypatch):
    """A function that sets the contestants' milliseconds a step, by their names."""
    def set_up(**ms):
        named = {name.replace('_', ' ').replace('last', '-last'): value
                 for name, value in ms.items()}
        monkeypatch.setattr(row, 'Worker', lambda code, *_: next(
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
    found = measured(workers(engine_graph=None, engine=2.), seconds=200)[-1]
    assert found['results']['engine graph'] == {'failed': 'no result within 92 s'}  # of 183
    assert found['engine_best'] == 'engine'


def test_contestants_for_which_there_is_no_time_are_left_out(workers, capsys):
    found = measured(workers(engine=2., pytorch=3.), seconds=0)[-1]
    assert found['results'] == {}
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
    assert training_step.affordable(['engine', 'chainer', 'pytorch'], costs, 41) == [
        'engine', 'chainer']
    assert training_step.affordable(['engine', 'new'], costs, 10) == ['engine', 'new']
    assert training_step.affordable(['engine'], costs, 9) == []


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
        assert turn['ms'][0] > 0 and turn['host_ms'] > 0 and turn['peak'] > 0
        losses.append(turn['loss'])
    assert all(0 < loss < 1 for loss in losses)  # of one batch, which they have learned
    assert contestant.device.free() > 0
