"""Which of cuDNN's plans a convolution takes, also if some fail; on a simulated GPU."""
import weakref

import chainer
import chainer.functions as F
import numpy as np
import pytest

from engine.gpu import cudnn_interface
from tests.test_operations import GPU, by_engine, normal

pytestmark = pytest.mark.gpu
X, W = normal(2, 3, 8, 8), normal(5, 3, 3, 3)


@pytest.fixture
def cudnn():
    """The simulated cuDNN: each operation has plans 1 and 2, and 0, which is not supported."""
    module = cudnn_interface.load()
    if not hasattr(module, 'FAILURES'):
        pytest.skip('needs a cuDNN that can be made to fail')
    from engine.gpu import plans
    plans.plans_of.cache_clear()
    yield module
    for behaviour in module.FAILURES, module.SECONDS, module.WORKSPACES:
        behaviour.clear()
    plans.plans_of.cache_clear()


def convolve(cudnn, autotune):
    """The numbers of the plans that a convolution executes, in order."""
    del cudnn.PLANS[:]
    with chainer.using_config('autotune', autotune):
        y, = by_engine(GPU, lambda *arrays: [F.convolution_2d(*arrays).array], X, W)
    np.testing.assert_allclose(y, F.convolution_2d(X, W).array, atol=1e-4)
    return [number for _, number in cudnn.PLANS]


def test_without_autotune_the_first_supported_plan_is_taken(cudnn):
    assert convolve(cudnn, False) == [1]


@pytest.mark.parametrize('slow', [1, 2])
def test_with_autotune_the_fastest_plan_is_measured_once(cudnn, slow):
    """Each is done once before it is measured twice."""
    cudnn.SECONDS[slow] = .01
    assert convolve(cudnn, True) == 21 * [1] + 21 * [2] + [3 - slow]
    assert convolve(cudnn, True) == [3 - slow]


def test_a_gpu_is_kept_busy_until_everything_to_be_measured_is_queued(cudnn):
    import cupy
    del cupy.LOG[:]
    convolve(cudnn, True)
    first = cupy.LOG.index(('kernel', 'spin'))
    assert cupy.LOG[first:first + 14] == [
        ('kernel', 'spin'), ('event', 'record'), *[('cudnn', 'fprop')] * 10, ('event', 'record'),
        ('sync', 'Event.synchronize')]


@pytest.mark.parametrize('stage', ['build', 'execute'])
@pytest.mark.parametrize('error', [RuntimeError, MemoryError])
def test_a_plan_that_fails_is_not_the_fastest(cudnn, stage, error):
    cudnn.FAILURES[stage, 1] = error('out of order')
    assert convolve(cudnn, True)[-1] == 2


@pytest.mark.parametrize('error', [RuntimeError, MemoryError])
def test_a_plan_that_cannot_be_built_is_not_the_first(cudnn, error):
    cudnn.FAILURES['build', 1] = error('out of order')
    assert convolve(cudnn, False) == [2]


def test_a_plan_for_which_there_is_no_memory_is_not_the_fastest(cudnn, monkeypatch):
    import cupy
    given = cupy.cuda.Memory

    def scarce(size):
        if size > 2 ** 20:
            raise cupy.cuda.runtime.CUDARuntimeError('cudaErrorMemoryAllocation')
        return given(size)
    cudnn.WORKSPACES[1] = 2 ** 21
    monkeypatch.setattr(cupy.cuda, 'Memory', scarce)
    assert convolve(cudnn, True) == 21 * [2] + [2]


@pytest.mark.parametrize('fails', [False, True])
def test_only_the_fastest_plan_keeps_its_workspace(cudnn, monkeypatch, fails):
    import cupy

    from engine.gpu import plans
    given, made = cupy.cuda.Memory, []

    def counted(size):
        memory = given(size)
        made.append((size, weakref.ref(memory)))
        return memory
    monkeypatch.setattr(plans, 'WORKSPACES', {})
    monkeypatch.setattr(cupy.cuda, 'Memory', counted)
    cudnn.WORKSPACES[1], cudnn.SECONDS[1] = 2 ** 22, .01
    if fails:
        cudnn.FAILURES['execute', 1] = RuntimeError('out of order')
    convolve(cudnn, True)
    assert any(size == 2 ** 22 for size, _ in made)
    assert not any(memory() for size, memory in made if size == 2 ** 22)
    assert [space.nbytes for space in plans.WORKSPACES[0]] == [2 ** 20]


REFUSED = (r'^cuDNN has no plan for fprop of x \(2, 8, 8, 3\), W \(5, 3, 3, 3\), y \(2, 6, 6, 5\), '
           r'float32, stride \(1, 1\), pad \(0, 0\) on GPU 0 \(simulated GPU\): {}; the stock '
           'engine does it without cuDNN$')


@pytest.mark.parametrize('autotune', [False, True])
@pytest.mark.parametrize('failures, reason', [
    ({('check_support',): 'not\n    on this one'}, 'not on this one'),
    ({('build', 1): 'no', ('build', 2): 'never'}, 'never')])
def test_the_error_where_there_is_no_plan_says_for_what_and_why(cudnn, autotune, failures, reason):
    cudnn.FAILURES.update({
        what: cudnn.cudnnGraphNotSupportedError(why) for what, why in failures.items()})
    with pytest.raises(RuntimeError, match=REFUSED.format(reason)):
        convolve(cudnn, autotune)


def test_it_is_an_error_if_all_plans_fail_while_they_are_measured(cudnn):
    cudnn.FAILURES.update({('execute', number): RuntimeError('no luck') for number in (1, 2)})
    with pytest.raises(RuntimeError, match=REFUSED.format('no luck')):
        convolve(cudnn, True)
