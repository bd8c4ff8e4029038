"""The extensions of a training run; its start, interruption and resumption."""
import math
import signal
import sys

from chainer import training
from chainer.training import extensions, triggers

from experiment import run_directory
from experiment.device import describe
from experiment.errors import Invalid
from experiment.estimate import estimate
from experiment.model_files import load_npz, save_npz, snapshot_writer
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
    trainer.extend(extensions.LogReport())
    trainer.extend(PlotLog())
    trainer.extend(extensions.PrintReport(
        ['epoch', 'main/loss', 'main/accuracy', 'validation/main/loss',
         'validation/main/accuracy', 'elapsed_time'],
        out=sys.stdout if terminal else PlainOutput(sys.stdout)))
    trainer.extend(
        extensions.ProgressBar(update_interval=1) if terminal else nothing,
        name='progress', trigger=triggers.TimeTrigger(0.5))

    # One writer for both, so that the best model is written before the snapshot that relies on it.
    files = snapshot_writer(model)
    trainer.extend(
        extensions.snapshot_object(model, 'model_best.npz', writer=files), name='best',
        trigger=triggers.MaxValueTrigger('validation/main/accuracy'))
    trainer.extend(
        extensions.snapshot_object(model, 'model.npz', savefun=save_npz), name='final',
        trigger=(args.epoch, 'epoch'))

    trainer.extend(streams)
    snapshot = extensions.snapshot(writer=files, n_retains=1)
    trainer.extend(
        snapshot, name='snapshot', trigger=(args.snapshot_every or math.inf, 'epoch'))
    trainer.extend(StopOnSignal(snapshot))


def start(trainer, args, streams, device):
    """Begin the run in ``args.out``, or with ``--resume`` restore it from its newest snapshot.

    A run that was killed before its first snapshot begins anew.

    Raises:
        Invalid: If the batch is larger than the training set, or the snapshot cannot be read.
        SystemExit: With ``--estimate``, once the time that the run would take has been printed.
    """
    n = len(trainer.updater.get_iterator('main').dataset)
    if args.batchsize > n:
        raise Invalid(f'--batchsize: given {args.batchsize}, valid: 1 to {n}, the size of the '
                      'training set')
    if args.estimate:
        print(estimate(trainer, args), flush=True)
        raise SystemExit
    if args.resume:
        path = run_directory.newest_snapshot(args.out)
        if path:
            load_npz(path, trainer, '--resume')
        print(f'Resuming from {path or "the beginning: there is no snapshot yet"}', flush=True)
    run_directory.write_record(args, streams.seeds, describe(device), trainer.updater.iteration)


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
