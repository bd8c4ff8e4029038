"""How long a run would take, from a few of its steps."""
import datetime
import itertools
import time

import chainer


def estimate(trainer, args):
    """Time some steps of training and evaluation.

    Returns:
        str: One line for ``--estimate`` runs, one after another.
    """
    evaluator = trainer.get_extension('validation')
    batches = itertools.cycle(evaluator.get_iterator('main'))

    def evaluate():
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            evaluator.get_target('main')(*evaluator.converter(next(batches), evaluator.device))

    steps = len(trainer.updater.get_iterator('main').dataset) / args.batchsize
    evaluations = len(evaluator.get_iterator('main').dataset) / args.batchsize
    with chainer.using_device(evaluator.device):
        epoch = steps * seconds(trainer.updater.update, evaluator.device)
        epoch += evaluations * seconds(evaluate, evaluator.device)
    total = round(epoch * args.epoch * args.estimate)
    return (f'Estimate: {epoch:.1f} s an epoch; {args.epoch} epochs, {args.estimate} runs one '
            f'after another: {datetime.timedelta(seconds=total)}')


def seconds(step, device, least=2, most=200, limit=3.):
    """Mean time of a step, without the first; some steps, and no more once ``limit`` s are over."""
    step()
    synchronize(device)
    start = time.perf_counter()
    for count in range(1, most + 1):
        step()
        synchronize(device)
        elapsed = time.perf_counter() - start
        if count >= least and elapsed > limit:
            break
    return elapsed / count


def synchronize(device):
    """Wait for a GPU, which computes while the program goes on."""
    if device.xp is chainer.backends.cuda.cupy:
        device.device.synchronize()
