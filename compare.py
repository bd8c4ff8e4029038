"""Compare runs with mixup and runs without: table, verdict and plot from what they left behind.

    python compare.py demo/baseline-0 demo/manifoldmixup-0
    python compare.py runs/cifar10                  every run below a directory

Runs that agree in their data and in every option but seed and mixup form a group and are paired by
seed. Each group has one table (printed, and in comparison.md) of validation accuracy and error, the
paired difference to the baseline with its 95 % interval and the time per epoch, and where there are
both, the paired difference between Manifold Mixup and input mixup; comparison.json adds every run's
own values, comparison.png shows the curves. Runs that are unfinished, damaged or without a finite
accuracy are named and left out, and so is a run whose partners all are. Only `run.json` and `log`
of each run are read.
"""
import argparse
import json
import signal
import sys
from pathlib import Path

from comparison.errors import Invalid, plain
from comparison.output import show, write
from comparison.pairing import group_runs, leave_out
from comparison.picture import draw, picture_of
from comparison.report import report
from comparison.runs import find_runs
from comparison.summary import summarize


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a misused command line like every other error, in a line."""

    def error(self, message):
        raise Invalid(f'{message}; see --help')


def main(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', metavar='RUN', nargs='+',
                        help='run directories, or one directory that holds them')
    parser.add_argument('--out', metavar='DIR', type=Path,
                        help='where comparison.md, .json and .png go (default: the directory that '
                        'holds the runs where it is the one argument, else the current one)')
    try:
        args = parser.parse_args(arguments)
        runs, left_out = leave_out(*find_runs(args.runs))
        groups = group_runs(runs)
        summaries = [summarize(group) for group in groups]
        text, picture = report(summaries, left_out), picture_of(draw(groups, summaries))
        parent = len(args.runs) == 1 and Path(args.runs[0])
        out = args.out or parent or Path()
        results = {'groups': summaries, 'left_out': [
            {'directory': directory, 'reason': why} for directory, why in left_out.items()]}
        write(out, {'comparison.md': text.encode(), 'comparison.png': picture,
                    'comparison.json': json.dumps(results, indent=1, allow_nan=False).encode()})
        show(f'{text}\nWritten to {plain(out)}: comparison.md, comparison.json, comparison.png')
    except (Invalid, MemoryError) as error:
        print('compare.py: error:', plain(str(error) or 'memory ran out: give fewer runs at once'),
              file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == '__main__':
    main()
