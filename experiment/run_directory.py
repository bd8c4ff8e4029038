"""A run's directory: run.json, and the rules for a directory that already holds a run."""
import datetime
import glob
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys

import engine
from experiment.atomic_file import new_file
from experiment.errors import Invalid

# Options that may change when a run is resumed: they alter what it computes by rounding at most.
FREE = 'autotune', 'device', 'engine', 'graph', 'out', 'snapshot_every'

FILES = 'run.json', 'log', 'model.npz', 'model_best.npz', 'loss.png', 'accuracy.png'

PACKAGES = ('chainer', 'chainercv', 'numpy', 'scipy', 'scikit-learn', 'Pillow', 'cupy-cuda12x',
            'cupy-cuda13x')


def check(args):
    """Check that the run of ``args`` may use its ``--out``; nothing is written.

    Raises:
        Invalid: If a new run would meet another one there, or if ``--resume`` finds none, or one
            with other options.
        SystemExit: If ``--resume`` finds that the run is finished.
    """
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise Invalid(f'--out: {args.out} is a file; name a directory')
    if args.resume:
        check_same_run(args)
        if finished(args.out) >= args.epoch:
            print(f'{args.out} is finished already')
            raise SystemExit
        if finished(args.out) and not snapshots(args.out):
            raise Invalid(f'--resume: the run in {args.out} is finished and kept no snapshot from '
                          f'which to go on to epoch {args.epoch}; train anew in another directory '
                          'with --snapshot-every')
    elif any(os.path.exists(os.path.join(args.out, name)) for name in FILES) \
            or snapshots(args.out):
        raise Invalid(f'--out: {args.out} already holds a run; name another directory, or go on '
                      'with that run by --resume')


def check_same_run(args):
    """Raise Invalid unless ``--out`` holds a run of the same options, as far as they count."""
    path = os.path.join(args.out, 'run.json')
    try:
        with open(path) as file:
            record = json.load(file)
        before = {'method': record['method'], **record['options']}
    except FileNotFoundError:
        raise Invalid(f'--resume: {args.out} holds no run; name its directory by --out') from None
    except (OSError, ValueError, KeyError, TypeError):
        raise Invalid(f'--resume: {path} cannot be read as the record of a run') from None
    now = {'method': args.method, **options(args)}
    # A longer run is the same run as long as no schedule is stretched to the new length.
    longer = now['schedule'] == 'constant' and now['epoch'] >= before.get('epoch', 0)
    free = FREE + ('epoch',) * longer
    # The method comes first: a run of the other one also differs in options that only one has.
    for name in ['method', *sorted((before.keys() | now.keys()) - {'method'})]:
        if name not in free and before.get(name) != now.get(name):
            raise Invalid(f'--resume: the run in {args.out} has {name} = {before.get(name)}, '
                          f'given {now.get(name)}; give the options that it was started with')


def snapshots(out):
    """Return the snapshot files in a run directory, ``{iteration: path}``."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(out), 'snapshot_iter_*')):
        match = re.fullmatch(r'snapshot_iter_(\d+)', os.path.basename(path))
        if match:
            found[int(match[1])] = path
    return found


def newest_snapshot(out):
    """Return the path of the snapshot of the highest iteration; None where there is none."""
    found = snapshots(out)
    return found[max(found)] if found else None


def finished(out):
    """Return the number of epochs of the finished run in a directory; 0 where there is none."""
    try:
        with open(os.path.join(out, 'log')) as file:
            epoch = json.load(file)[-1]['epoch']
        return epoch if os.path.exists(os.path.join(out, 'model.npz')) else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def options(args):
    """Return the options that ``run.json`` keeps, ``{name: value}``."""
    return {name: value for name, value in vars(args).items()
            if name not in ('method', 'resume', 'estimate')}


def write_record(args, seeds, device, iteration):
    """Write ``run.json``, which says how to repeat the run and what it may be compared with.

    Every start is kept, with the iteration from which it went on.

    Raises:
        Invalid: If it cannot be written.
    """
    path = os.path.join(args.out, 'run.json')
    starts = []
    if args.resume:
        with open(path) as file:
            starts = json.load(file)['starts']
    write_json(path, {
        'method': args.method,
        'options': options(args),
        'seeds': seeds,
        'starts': starts + [{
            'iteration': iteration,
            'time': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
            'command': shlex.join(['python', *sys.argv]),
            'commit': commit(),
            'device': device,
            'environment': engine.environment.in_effect(),
            'versions': {'python': platform.python_version(), **versions()},
        }],
    })


def versions():
    """Return the versions of the packages that are installed, ``{package: version}``."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def commit():
    """Return the commit of this code, with ``+`` where files differ from it.

    Outside git it is the value of ``GIT_COMMIT`` in the environment, or None.
    """
    try:
        described = subprocess.run(
            ['git', 'describe', '--always', '--abbrev=40', '--exclude=*', '--dirty=+'],
            cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True, text=True)
        found = described.stdout.strip()
    except OSError:  # git is not there
        found = ''
    return found or os.environ.get('GIT_COMMIT')


def write_json(path, value):
    """Write a value as JSON, in a folder that is made where it is missing.

    Raises:
        Invalid: If the file cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        with new_file(path, 'w') as file:
            json.dump(value, file, indent=2)
            file.write('\n')
    except OSError as error:
        raise Invalid(f'--out: {path} cannot be written ({error.strerror}); name another '
                      'directory') from None
