"""Train the baseline and Manifold Mixup for each of some seeds, then compare them.

    python -m experiment.pairs --seeds 0 1 2 --out runs/cifar10 --recipe standard --epoch 60

Prints an estimate of the time first where a run is unfinished.  Options other than its own go to
both scripts.  Finished runs stay as they are, unless --epoch is larger now, and interrupted ones go
on, so the same command also continues.  Nothing is trained where runs of other options are in the
way.
"""
import argparse
import os
import shlex
import signal
import subprocess
import sys
import typing

from experiment.errors import Invalid, one_line_errors
from experiment.options import SEED, DocstringHelp, Parser
from experiment.run_directory import finished

METHODS = 'baseline', 'manifoldmixup'


def main():
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    add_options(parser)
    args, options = parse(parser)

    runs = [Run(method, seed, os.path.join(args.out, f'{method}-{seed}'))
            for seed in args.seeds for method in METHODS]
    left = [each for each in runs if not finished(each.out)]
    # What is there comes first: where it has other options, nothing is trained.
    for each in runs:
        if each not in left:
            train(each, options)
    if left:
        first = next((each for each in left if each.started), left[-1])
        train(first, options, '--estimate', str(len(left)))
    for each in left:
        train(each, options)
    print()
    run([sys.executable, 'compare.py', *(each.out for each in runs), '--out', args.out])


class Run(typing.NamedTuple):
    """One run of a pair: its script, its seed and its directory."""

    method: str
    seed: int
    out: str

    @property
    def started(self):
        return os.path.exists(os.path.join(self.out, 'run.json'))


def add_options(parser):
    """Add the options of several pairs of runs to a parser."""
    parser.add_argument('--seeds', type=SEED, nargs='+', default=[0, 1, 2], metavar='SEED')
    parser.add_argument('--out', required=True, metavar='DIR', help='holds a directory per run')
    parser.add_argument('--mixup-alpha', metavar='ALPHA', help="for Manifold Mixup's runs")
    parser.add_argument('--lam-per', metavar='batch|example', help="for Manifold Mixup's runs")
    parser.add_argument('--layer-mix', metavar='LAYERS', help="for Manifold Mixup's runs")
    for name in '--seed', '--resume', '--estimate':  # decided here, run by run
        parser.add_argument(name, nargs='?', default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def parse(parser, argv=None):
    """Return the arguments, and for each method the list of options that its script gets.

    Raises:
        Invalid: If an option is given that is for a single run.
    """
    args, both = parser.parse_known_args(argv)
    if given := {'seed', 'resume', 'estimate'} & vars(args).keys():
        raise Invalid(f'--{min(given)} is for a single run; give --seeds, and the same command '
                      'again to go on')
    mixup = []
    if args.mixup_alpha is not None:
        mixup += ['--mixup-alpha', args.mixup_alpha]
    if args.lam_per is not None:
        mixup += ['--lam-per', args.lam_per]
    if args.layer_mix is not None:
        mixup += ['--layer-mix', args.layer_mix]
    return args, {'baseline': both, 'manifoldmixup': both + mixup}


def train(each, options, *estimate):
    if not estimate:
        print(f'\n{each.out}', flush=True)
    command = [sys.executable, f'train_{each.method}.py', '--seed', str(each.seed),
               '--out', each.out, *options[each.method], *estimate]
    if each.started:
        run([*command, '--resume'], anew=os.path.dirname(each.out))
    else:
        run(command)


def run(command, anew=None):
    """Run a command to its end; if it fails, exit with its status.

    Ctrl-C reaches the command too, which ends with a snapshot; this waits for it.

    Args:
        command (list of str): A program and its arguments.
        anew (str): The directory that is in the way if the command says that the run in it is
            another one.
    """
    refused = False
    with subprocess.Popen(command, stderr=subprocess.PIPE if anew else None, text=True,
                          errors='replace') as process:
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        for line in process.stderr or ():
            print(line, end='', file=sys.stderr, flush=True)
            refused |= 'error: --resume: the run in' in line
    if refused:
        print(f'pairs.py: {anew} stays as it is; to begin anew: rm -r {shlex.quote(anew)}, or '
              'name another directory by --out', file=sys.stderr)
    if process.returncode:
        raise SystemExit(process.returncode)


if __name__ == '__main__':
    with one_line_errors():
        main()
