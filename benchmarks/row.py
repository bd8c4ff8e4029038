"""One row of the benchmark of training steps: its contestants are prepared and take turns."""
import statistics
import time

from benchmarks import devices
from benchmarks.contestants import EAGER, ENGINE, PYTORCH
from benchmarks.workers import Failure, TimeOut, Unsupported, Worker

PROFILING = 15  # seconds, in which kernels are counted
PATIENCE = 40  # seconds that a contestant may take in any case while others wait


def is_for_gpu(precision):
    """Whether rows of a precision are a GPU's; a CPU can try them."""
    return precision != 'float32'


class Row:
    """A network, a batch and a precision, and the contestants while they are measured on it.

    Args:
        wanted (tuple): Case, batch and precision.
        contestants (list of str): Who takes part.
        rates, floor (dict): The device's, and a step's at these; either may be None.
        end (float): When all is to be over, by ``time.monotonic()``; contestants that are not
            ready in time are left out.
        keep (callable): Gets the row, as it is written into the file, whenever it is better.
    """

    def __init__(self, wanted, contestants, args, rates, floor, end, keep):
        self.case, self.batch, self.precision = wanted
        self.contestants, self.args, self.end, self.keep = contestants, args, end, keep
        self.facts = {'rates': rates, 'floor': floor}
        self.kind = devices.kind(args.device)
        self.began = time.monotonic()
        turns = 1.5 * self.kind.TURN * args.rounds * len(contestants) + PROFILING
        preparing = max(end - self.began - turns, (end - self.began) / 2)
        self.deadline = self.began + preparing
        # One that hangs leaves time to the others.
        self.limit = min(args.limit, max(PATIENCE, preparing / 2))
        self.workers = {}
        self.answers = {}  # what a contestant said of itself when it was prepared
        self.results = {}

    def measure(self):
        """Measure the row and return it."""
        try:
            if self.kind.PARALLEL_IMPORTS:
                for contestant in self.contestants:
                    self.worker(contestant)
            wave, pending = 0, list(self.contestants)
            while pending:
                ready = self.prepare(pending)
                wave += 1
                self.take_turns(ready, wave)
        finally:
            for worker in self.workers.values():
                worker.close()
        row = self.described()
        self.keep(row)
        return row

    def worker(self, contestant):
        if contestant not in self.workers:
            work = contestant, self.case, self.batch, self.precision, self.args.device
            self.workers[contestant] = Worker(
                f'from benchmarks.contestants import work; work{work!r}', self.kind.ENVIRONMENT,
                self.args.json and f'{self.args.json}.log')
        return self.workers[contestant]

    def described(self):
        """The row so far, with the best modes of PyTorch and of the engine, and how many times as
        fast as PyTorch's, and as its better eager one, the engine is."""
        parameters = {answer['parameters'] for answer in self.answers.values()}
        assert len(parameters) <= 1, f'the contestants are not one network: {self.answers}'
        ms = {contestant: result['ms'] for contestant, result in self.results.items()
              if 'ms' in result}
        best, eager, ours = (min((c for c in names if c in ms), key=ms.get, default=None)
                             for names in (PYTORCH, EAGER, ENGINE))
        return {
            'case': self.case, 'batch': self.batch, 'precision': self.precision,
            'parameters': max(parameters, default=None), 'rounds': self.args.rounds,
            'seconds': round(time.monotonic() - self.began, 1), 'results': self.results,
            **self.facts, 'pytorch_best': best, 'engine_best': ours,
            'pytorch_best_to_engine': best and ours and round(ms[best] / ms[ours], 3),
            'pytorch_eager_to_engine': eager and ours and round(ms[eager] / ms[ours], 3)}

    def prepare(self, pending):
        """Prepare contestants and take them out of ``pending``, as many as memory holds at once.

        Those that are ready are returned.  cuDNN and PyTorch choose slower kernels where memory is
        short, so much of it stays free.
        """
        ready, later = [], []
        while pending:
            answers = [self.answers[contestant] for contestant in ready]
            if any(a['free'] is not None for a in answers) and \
                    min(a['free'] for a in answers) < 2 * max(a['peak'] for a in answers) + 2 ** 31:
                break
            contestant = pending.pop(0)
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.say(contestant, 'left out, the time is up')
                continue
            try:
                began = time.monotonic()
                answer = self.worker(contestant).ask('prepare', limit=min(left, self.limit))
                self.answers[contestant] = {**answer, 'seconds': time.monotonic() - began}
                ready.append(contestant)
                self.say(contestant, f'ready after {time.monotonic() - began:.0f} s')
            except TimeOut as failure:
                if left < self.limit:
                    self.say(contestant, 'left out, the time is up')
                else:
                    self.fail(contestant, failure)
            except Failure as failure:
                if ready and is_short_of_memory(failure):
                    self.say(contestant, 'out of memory beside the others, again without them')
                    del self.workers[contestant]
                    self.worker(contestant)
                    later.append(contestant)
                else:
                    self.fail(contestant, failure)
            except Unsupported as reason:
                self.results[contestant] = {'unsupported': str(reason)}
                self.say(contestant, f'unsupported: {reason}')
        pending[:0] = later
        return ready

    def take_turns(self, ready, wave):
        """Let contestants that are ready take turns, and enter what they took into the results."""
        turns = {contestant: [] for contestant in ready}
        steps = {contestant: self.args.steps or max(self.kind.FEWEST, min(self.kind.MOST, round(
            1e3 * self.kind.TURN / self.answers[contestant]['ms']))) for contestant in ready}
        for number in range(self.args.rounds):
            if not turns:
                break
            if number and time.monotonic() > self.end - PROFILING:
                print(f'    {number} rounds of {self.args.rounds}, the time is up', flush=True)
                break
            for contestant in list(turns):
                try:
                    left = max(PROFILING, self.end - time.monotonic())
                    turns[contestant].append(self.workers[contestant].ask(
                        'turn', steps[contestant], limit=min(left, self.args.limit)))
                except Failure as failure:
                    self.fail(contestant, failure)
                    del turns[contestant]
                time.sleep(self.kind.PAUSE)
            for contestant, taken in turns.items():
                prepared = self.answers[contestant]['seconds']
                self.results[contestant] = {
                    **summary(taken, self.batch), 'steps': steps[contestant], 'rounds': len(taken),
                    'wave': wave, 'prepared_in': round(prepared, 1),
                    'seconds': round(prepared + sum(
                        turn['wall_ms'] * steps[contestant] / 1e3 for turn in taken), 1)}
            self.keep(self.described())
        if is_for_gpu(self.precision):
            self.count_kernels(turns)
        for contestant in turns:
            self.workers[contestant].close()

    def count_kernels(self, contestants):
        """Enter the kernels and launches of a step of each contestant into the results."""
        for contestant in contestants:  # all at once: nothing is timed now
            self.workers[contestant].send('profile')
        for contestant in contestants:
            left = max(PROFILING, self.end - time.monotonic())
            try:
                counted = self.workers[contestant].receive(min(left, self.args.limit))
            except (Failure, Unsupported) as reason:
                counted = {'kernels': None, 'launches': None, 'not_counted': str(reason)}
            self.results[contestant].update(counted)

    def fail(self, contestant, failure):
        self.results.setdefault(contestant, {})['failed'] = str(failure)
        self.say(contestant, failure)

    def say(self, contestant, what):
        print(f'    {contestant}: {what}', flush=True)


def is_short_of_memory(failure):
    words = str(failure).lower()
    return any(sign in words for sign in ('out of memory', 'outofmemory', 'alloc_failed'))


def summary(turns, batch):
    """Median, quartiles and memory of all turns of one contestant, as in the file."""
    taken = [ms for turn in turns for ms in turn['ms']]
    low, median, high = statistics.quantiles(taken, n=4, method='inclusive') \
        if len(taken) > 1 else taken * 3
    return {'ms': round(median, 4), 'low': round(low, 4), 'high': round(high, 4),
            'images_per_second': round(1e3 * batch / median),
            **{name: round(statistics.median(turn[name] for turn in turns), 4)
               for name in ('host_ms', 'wall_ms') if name in turns[0]},
            'peak_mib': round(turns[-1]['peak'] / 2 ** 20), 'loss': turns[-1]['loss']}
