"""The extensions of a training run; its start, resumption and early end."""
import math
import signal
import sys
import time
import warnings

import chainer
from chainer import training
from chainer.training import extensions, triggers

from experiment import run_directory
from experiment.device import describe
from experiment.errors import Invalid
from experiment.estimate import estimate
from experiment.log import Log
from experiment.model_files import Unreadable, load_npz, snapshot_writer
from experiment.optimizer import LearningRate
from experiment.plots import PlotLog


def extend(trainer, args, streams):
    """Give a trainer its extensions: learning rate, log, plots, progress, models, snapshots.

    They are the same on a terminal and elsewhere: a snapshot holds the state of each, and a run
    may be resumed in another place.
    """
    terminal = sys.stdout.isatty()
    model = trainer.updater.get_optimizer('main').target.predictor

    trainer.extend(LearningRate(args))
    if args.dtype == 'mixed16':
        # Not at the head of the file: it imports what only a GPU has.
        from experiment.mixed_precision import MixedPrecision
        trainer.extend(MixedPrecision(trainer.updater.get_optimizer('main')))
    trainer.extend(StopWhenNotFinite(args.epoch))
    trainer.extend(Log())
    trainer.extend(PlotLog())
    trainer.extend(extensions.PrintReport(
        ['epoch', 'main/loss', 'main/accuracy', 'validation/main/loss',
         'validation/main/accuracy', 'elapsed_time'],
        out=sys.stdout if terminal else PlainOutput(sys.stdout)))
    trainer.extend(
        extensions.ProgressBar(update_interval=1) if terminal else nothing,
        name='progress', trigger=triggers.TimeTrigger(0.5))

    # One writer, thus one file after the other: the best model, the snapshot that relies on it, and
    # the final model, which says that the run is finished.
    files = snapshot_writer(model)
    trainer.extend(
        extensions.snapshot_object(model, 'model_best.npz', writer=files), name='best',
        trigger=triggers.MaxValueTrigger('validation/main/accuracy'))
    trainer.extend(streams)
    snapshot = extensions.snapshot(writer=files, n_retains=1)
    trainer.extend(
        snapshot, name='snapshot', trigger=(args.snapshot_every or math.inf, 'epoch'))
    trainer.extend(
        extensions.snapshot_object(model, 'model.npz', writer=files), name='final',
        trigger=(args.epoch, 'epoch'))
    trainer.extend(StopOnSignal(snapshot))


def start(trainer, args, streams, device):
    """Begin the run in ``args.out``, or with ``--resume`` restore it from its newest snapshot.

    A run that was killed before its first snapshot begins anew.

    Raises:
        Invalid: If the batch is larger than the training set, if ``--resume`` meets other data
            than before, or if the snapshot cannot be read.
        SystemExit: With ``--estimate``, once the time that the run would take has been printed.
    """
    train = trainer.updater.converter.dataset
    test = trainer.get_extension('validation').converter.dataset
    n = len(train)
    if args.batchsize > n:
        raise Invalid(f'--batchsize: given {args.batchsize}, valid: 1 to {n}, the size of the '
                      'training set')
    if args.estimate:
        print(estimate(trainer, args), flush=True)
        raise SystemExit
    data = {'classes': train.classes, 'train': train.record(),
            'test': {'validate_on': args.validate_on, **test.record()}}
    if args.resume:
        run_directory.check_same_data(args, data)
        path = restore(trainer, run_directory.snapshots(args.out))
        print(f'Resuming from {path or "the beginning: there is no snapshot yet"}', flush=True)
        if trainer.updater.epoch >= args.epoch:  # it ended between the snapshot and the final model
            trainer.get_extension('final')(trainer)
    run_directory.write_record(
        args, streams.seeds, describe(device), data, trainer.updater.iteration)
    if args.method == 'manifoldmixup':
        print('main/accuracy is on mixed images, whose two labels count by their shares, and as a '
              'rule lower than validation/main/accuracy, on images as they are', flush=True)


def restore(trainer, snapshots):
    """Restore a run from the first snapshot that can be read, and return its path; None if none.

    Raises:
        Invalid: If there are snapshots, but none that can be read or fits.
    """
    for path in snapshots:
        try:
            load_npz(path, trainer, '--resume')
            return path
        except Unreadable as error:
            if path == snapshots[-1]:
                raise Invalid(f'{error}; remove it to begin anew by --resume') from None
            print(f'{error}; the one before it is taken', file=sys.stderr)
    return None


class StopWhenNotFinite(training.Extension):
    """Ends the run where the loss is not finite, before an epoch with it is logged or saved.

    Looks each second, so that a GPU seldom waits, and at the end of each epoch: weights that are
    not numbers stay so.  What the last step made of them is seen in the last validation.  NumPy's
    warnings on the way there are not shown.

    Args:
        epochs (int): Length of the run.
    """

    trigger = 1, 'iteration'
    priority = training.PRIORITY_EDITOR  # before all that write or read the figures

    due = -math.inf  # when it looks next, by time.monotonic()

    def __init__(self, epochs):
        self.epochs = epochs
        self.warnings = warnings.catch_warnings()

    def initialize(self, trainer):
        self.warnings.__enter__()
        warnings.simplefilter('ignore', RuntimeWarning)

    def finalize(self):
        self.warnings.__exit__()

    def __call__(self, trainer):
        updater = trainer.updater
        if time.monotonic() < self.due and not updater.is_new_epoch:
            return
        self.due = time.monotonic() + 1
        for name in ('main/loss', 'validation/main/loss')[:1 + (updater.epoch >= self.epochs)]:
            loss = float(chainer.as_array(trainer.observation[name]))
            if not math.isfinite(loss):
                raise Invalid(
                    f'the run has diverged: {name} is {loss} at iteration {updater.iteration}, in '
                    f'epoch {updater.epoch_detail:.2f}; begin anew in another directory with a '
                    'lower --learnrate')


class StopOnSignal(training.Extension):
    """Ends the run with a snapshot after the current iteration on Ctrl-C or SIGTERM.

    A second signal ends it at once.
    """

    priority = -200  # after all others, the snapshot among them: they have seen this iteration

    def __init__(self, snapshot):
        self.snapshot = snapshot
        self.received = None

    def initialize(self, trainer):
        self.previous = {number: signal.signal(number, self.receive)
                         for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(self, number, frame):
        self.received = number
        self.finalize()

    def finalize(self):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __call__(self, trainer):
        if self.received is None:
            return
        self.snapshot(trainer)
        self.snapshot.finalize()  # waits until it is written
        print(f'Interrupted: snapshot of iteration {trainer.updater.iteration} in {trainer.out}; '
              'go on by --resume', file=sys.stderr)
        raise SystemExit(128 + self.received)


class PlainOutput:
    """A stream that drops the escape codes by which Chainer clears a terminal."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        self.stream.write(text.replace('\033[J', ''))

    def flush(self):
        self.stream.flush()


def nothing(trainer):
    """Do nothing: the extension in place of the progress bar where there is no terminal."""
