"""The log of a run as strict JSON."""
import math
import os

from chainer.training import extensions

from experiment.atomic_file import write_json


class Log(extensions.LogReport):
    """Chainer's LogReport, whose file is strict JSON: what is not finite is null there."""

    default_name = 'LogReport'  # by which PrintReport and snapshots know it

    def __init__(self):
        super().__init__()
        self._log_name = None  # it writes none itself

    def __call__(self, trainer):
        written = len(self.log)
        super().__call__(trainer)
        if len(self.log) > written:
            write_json(os.path.join(trainer.out, 'log'), [
                {name: value if math.isfinite(value) else None for name, value in entry.items()}
                for entry in self.log])
