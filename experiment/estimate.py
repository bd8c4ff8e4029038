"""An estimate of how long a run would take, from a few of its steps."""
import datetime
import itertools
import statistics
import time

import chainer


def estimate(trainer, args):
    """Estimate the time of ``--estimate`` runs from a few steps of training and evaluation.

    Returns:
        str: One line for the user.
    """
    evaluator = trainer.get_extension('validation')
    batches = itertools.cycle(evaluator.get_iterator('main'))

    def evaluate():
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            evaluator.evaluate_batch(next(batches))

    steps = len(trainer.updater.get_iterator('main').dataset) / args.batchsize
    evaluations = len(evaluator.get_iterator('main').dataset) / args.batchsize
    with chainer.using_device(evaluator.device):
        epoch = steps * seconds(trainer.updater.update, evaluator.device)
        epoch += evaluations * seconds(evaluate, evaluator.device)
    longest = datetime.timedelta.max.days * 86400
    total = round(min(epoch * args.epoch * args.estimate, longest))
    return (f'Estimate: {epoch:.1f} s an epoch; {args.epoch} epochs, {args.estimate} runs one '
            f'after another: {datetime.timedelta(seconds=total)}')


def seconds(step, device, least=2, most=200, limit=3.):
    """Return the median time of a step in seconds, the first one left out.

    A mean would count what some steps do once: compile, or record a step of another layer.

    Args:
        step (callable): What is timed.
        device (chainer.backend.Device): Where it computes.
        least, most (int): How many steps are timed.
        limit (float): Seconds after which no more than ``least`` steps are begun.
    """
    step()
    synchronize(device)
    taken = []
    while len(taken) < least or (len(taken) < most and sum(taken) < limit):
        start = time.perf_counter()
        step()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def synchronize(device):
    """Wait for a GPU, which computes while the program goes on."""
    if device.xp is chainer.backends.cuda.cupy:
        device.device.synchronize()
