"""Files written while a GPU goes on computing."""
from chainer.training.extensions import snapshot_writers


class BackgroundWriter(snapshot_writers.ThreadWriter):
    """Chainer's ThreadWriter, which does not lose what goes wrong: the next call raises it.

    What is written has been copied from the GPU before the call returns.
    """

    error = None

    def save(self, *args, **kwargs):
        """In the thread."""
        try:
            super().save(*args, **kwargs)
        except Exception as error:
            self.error = error

    def __call__(self, filename, outdir, target):
        self.wait()
        super().__call__(filename, outdir, target)

    def wait(self):
        """Until what has been begun is written."""
        if self._started:
            self._worker.join()
        error, self.error = self.error, None
        if error:
            raise error

    def finalize(self):
        self.wait()
