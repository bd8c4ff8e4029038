"""The profile of a step: what is entered, and whose a kernel's time is."""
import numpy as np
import pytest

from benchmarks import contestants, step_profile
from benchmarks.step_profile import Ledger, Operation, attributed, rows_of, totals


def launch(number, ts, kind='cuda_runtime'):
    return {'cat': kind, 'name': 'cudaLaunchKernel', 'ts': ts, 'dur': 1, 'tid': 2,
            'args': {'correlation': number}}


def kernel(number, name, us):
    return {'cat': 'kernel', 'name': name, 'ts': 0, 'dur': us, 'tid': 7,
            'args': {'correlation': number}}


def mark(number, ts, dur):
    return {'cat': 'user_annotation', 'name': f'operation {number}', 'ts': ts, 'dur': dur, 'tid': 1}


def test_a_kernel_belongs_to_the_operation_in_which_it_was_launched():
    events = [
        mark(1, 30, 5), mark(0, 10, 5),
        {'cat': 'user_annotation', 'name': 'something else', 'ts': 0, 'dur': 99, 'tid': 1},
        launch(101, 11), launch(102, 14, kind='cuda_driver'), launch(103, 20), launch(104, 32),
        kernel(104, 'wgrad', 4000), kernel(101, 'gemm', 1000), kernel(102, 'sum', 500),
        kernel(103, 'copy', 250), kernel(999, 'lost', 125), {'name': 'no category'}]
    known, others = attributed(events)
    assert known == {0: [(1., 'gemm'), (.5, 'sum')], 1: [(4., 'wgrad')]}
    assert others == {'copy': [(.25, 'copy')], 'lost': [(.125, 'lost')]}


RATES = {'tf32': 2., 'copy_gb_per_s': 1000.}  # 2 operations a picosecond, a byte in one


def test_the_row_with_the_most_time_beyond_its_floor_stands_first():
    gemm, relu = Operation('fprop', 'a', 4 * 10 ** 9, 10 ** 6), Operation('relu', 'b', 0, 10 ** 9)
    known = {0: [(2.5, 'k')], 1: [(1.2, 'r')], 2: [(3., 'k'), (.5, 's')], 3: [(1.3, 'r')]}
    others = {'copy': [(2., 'copy'), (4., 'copy')]}
    rows = rows_of([gemm, relu, gemm, relu], known, others, RATES, 2)
    assert [(row['name'], row['count'], row['ms'], row['floor_ms'], row.get('bound_by'))
            for row in rows] == [('copy', 1, 3., None, None), ('fprop', 1, 3., 2., 'operations'),
                                 ('relu', 1, 1.25, 1., 'bytes')]
    assert rows[1]['kernels'] == ['k', 's']
    assert totals(rows)['by CuPy itself'] == {'count': 1, 'ms': 3., 'floor_ms': 0}


def test_without_times_the_longest_floor_stands_first():
    operations = [Operation('small', '', 0, 10), Operation('large', '', 0, 10 ** 9)]
    rows = rows_of(operations, {}, {}, RATES, 1)
    assert [row['name'] for row in rows] == ['large', 'small'] and rows[0]['ms'] is None


def test_bytes_that_an_update_reads_and_writes():
    w, g, half = np.zeros(5, 'f'), np.zeros(5, 'f'), np.zeros(5, 'e')
    assert step_profile.bytes_of_update(w, g, w, w, None) == 28 * 5
    assert step_profile.bytes_of_update(w, half, w, None, half) == (8 + 2 + 8 + 2) * 5
    assert step_profile.bytes_of_update(None, g, None, None, None) == 20


@pytest.mark.gpu
def test_all_that_the_engine_does_in_a_step_is_entered(monkeypatch):
    from engine.gpu import kernels, optimizers, plans
    for module, name in (plans, 'run'), (optimizers, 'launch'), (kernels, 'module'):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back in the end
    ledger = Ledger()
    ledger.watch_engine()
    try:
        contestant = contestants.Chainer('engine', 'preactresnet18', 4, 'tf32', '0')
        contestant.build()
        contestant.step()
        del ledger.operations[:]
        contestant.step()
    finally:
        kernels.kernel.cache_clear()
    found = {}
    for operation in ledger.operations:
        found.setdefault(operation.name, []).append(operation)
    # 17 convolutions, 3 shortcuts and a linear layer; images have no gradient
    assert [len(found[kind]) for kind in ('fprop', 'wgrad', 'dgrad')] == [21, 21, 20]
    first = found['fprop'][0]
    assert first.shape == '4x32x32x3 3x3/1 64'
    assert first.operations == 2 * (4 * 32 * 32 * 64) * 27
    assert first.size == 4 * (4 * 32 * 32 * 3 + 64 * 27 + 4 * 32 * 32 * 64)
    adam, = found['adam']
    assert adam.size == 28 * contestant.parameters
    # Each of 16 normalizations has its ReLU in it; the sums of 8 blocks read two arrays.
    assert len(found['normalize'] + found['normalize_few']) == 16 and 'relu' not in found
    assert {operation.size for operation in found['add']} == {
        3 * 4 * 4 * 64 * 32 * 32 // 2 ** k for k in range(4)}
