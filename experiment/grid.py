"""Train every method with every seed, some runs at once, then compare them.

    python -m experiment.grid --methods baseline inputmixup manifoldmixup --seeds 0 1 2 --jobs 2 \\
        --out runs/cifar10 --recipe standard --epoch 60

Prints an estimate of the time first where a run is unfinished.  Options other than its own go to
all scripts.  Finished runs stay as they are, unless --epoch is larger now, and interrupted ones go
on, so the same command also continues.  Nothing is trained where runs of other options are in the
way.  A run that fails does not keep the others from going on.
"""
import argparse
import os
import shlex
import subprocess
import sys

from experiment.errors import Invalid, one_line_errors
from experiment.options import ALPHA, COUNT, SEED, DocstringHelp, Parser
from experiment.processes import Run, train
from experiment.progress import Display
from experiment.run_directory import finished

SCRIPTS = {'baseline': 'train_baseline.py', 'inputmixup': 'train_manifoldmixup.py',
           'manifoldmixup': 'train_manifoldmixup.py'}
PAIR = 'baseline', 'manifoldmixup'


def main():
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=DocstringHelp)
    parser.add_argument('--methods', choices=SCRIPTS, nargs='+', default=PAIR,
                        help=f'of {", ".join(SCRIPTS)} (default: {" ".join(PAIR)})')
    parser.add_argument('--jobs', type=COUNT, default=1, metavar='N',
                        help='runs at once, which share the cores or the GPU '
                             '(default: %(default)s)')
    add_options(parser)
    parser.add_argument('--input-alpha', type=ALPHA, metavar='ALPHA',
                        help='--mixup-alpha of input mixup where it has one of its own')
    args, rest = parse(parser)
    for name in 'methods', 'seeds':
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            raise Invalid(f'--{name}: given one twice')

    runs = [Run(method, seed, os.path.join(args.out, f'{method}-{seed}'),
                [SCRIPTS[method], *options_for(method, args, rest)])
            for seed in args.seeds for method in SCRIPTS if method in args.methods]
    left = check(runs)
    interrupted = train(left, args.jobs, Display(runs, left)) if left else None
    status = 0
    if interrupted:
        print('Interrupted; the same command goes on', file=sys.stderr)
        status = 128 + interrupted
    else:
        status = compare([run for run in runs if run.started], args.out)
    for run in left:
        if run.state == 'failed':
            print(f'grid.py: error: {run.name} failed: {run.problem}', file=sys.stderr)
            status = status or 1
    if status:
        raise SystemExit(status)


def add_options(parser):
    """Add the options of several runs to a parser."""
    parser.add_argument('--seeds', type=SEED, nargs='+', default=[0, 1, 2], metavar='SEED')
    parser.add_argument('--out', required=True, metavar='DIR', help='holds a directory per run')
    parser.add_argument('--mixup-alpha', metavar='ALPHA', help='for the runs with a mixup')
    parser.add_argument('--lam-per', metavar='batch|example', help='for the runs with a mixup')
    parser.add_argument('--layer-mix', metavar='LAYERS', help="for Manifold Mixup's runs")
    for name in '--seed', '--resume', '--estimate':  # decided here, run by run
        parser.add_argument(name, nargs='?', default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def parse(parser, argv=None):
    """Return the arguments, and the list of options that every script gets.

    Raises:
        Invalid: If an option is given that is for a single run, or no name of a directory.
    """
    args, rest = parser.parse_known_args(argv)
    if given := {'seed', 'resume', 'estimate'} & vars(args).keys():
        raise Invalid(f'--{min(given)} is for a single run; give --seeds, and the same command '
                      'again to go on')
    if not args.out:
        raise Invalid('--out: given an empty name, valid: that of a directory')
    return args, rest


def options_for(method, args, rest):
    """The list of options that the script of a method gets, beside seed and directory."""
    if method == 'baseline':
        return rest
    alpha, layers = args.mixup_alpha, args.layer_mix
    if method == 'inputmixup':
        layers = '0'
        if args.input_alpha is not None:
            alpha = str(args.input_alpha)
    given = {'--mixup-alpha': alpha, '--lam-per': args.lam_per, '--layer-mix': layers}
    return rest + [word for option in given.items() if option[1] is not None for word in option]


def check(runs):
    """Return the runs that are left to train; print how long they would take.

    What is there comes first: where it has other options, nothing is trained.  For what is not, the
    last run stands, whose script has the most options.  The scripts check with --estimate, by which
    they write nothing.

    Raises:
        SystemExit: If a script refuses a run.
    """
    left = list(runs)
    for run in runs:
        if finished(run.out):
            said = ask(run, 1, subprocess.PIPE)
            if 'is finished already' in said:
                print(said, end='', flush=True)
                left.remove(run)
    doubtful = [run for run in left if run.started or run is left[-1]]
    for number, run in enumerate(doubtful):
        ask(run, len(left), subprocess.DEVNULL if number else None)
    return left


def ask(run, count, stdout):
    """Let a script check a run and estimate the time of so many; return what it wrote to a pipe."""
    done = subprocess.run([*run.command(), '--estimate', str(count)], stdout=stdout,
                          stderr=subprocess.PIPE, text=True, errors='replace')
    print(done.stderr, end='', file=sys.stderr, flush=True)
    if 'error: --resume: the run in' in done.stderr:
        folder = os.path.dirname(run.out)
        print(f'grid.py: {folder} stays as it is; to begin anew: rm -r {shlex.quote(folder)}, or '
              'name another directory by --out', file=sys.stderr)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def compare(runs, out):
    """Compare runs, if they are of several methods; return the status of compare.py."""
    if len({run.method for run in runs}) < 2:
        return 0
    print(flush=True)
    directories = [run.out for run in runs]
    return subprocess.run([sys.executable, 'compare.py', *directories, '--out', out]).returncode


if __name__ == '__main__':
    with one_line_errors():
        main()
