"""A run's directory: who may use it, what it may hold already, and run.json."""
import contextlib
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
from experiment.atomic_file import remove_unfinished, write_json
from experiment.dataset import NAMES
from experiment.errors import AT_END, Invalid, listed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Options that may change when a run is resumed: they alter what it computes by rounding at most.
FREE = 'autotune', 'device', 'engine', 'graph', 'out', 'snapshot_every'

# Options that not every record has, and what was done before there was a choice
EARLIER = {'lam_per': 'batch', 'loss': 'ce', 'train_size': None, 'validate_on': 'test',
           'warmup': 0.}

FILES = 'run.json', 'log', 'model.npz', 'model_best.npz', 'loss.png', 'accuracy.png'

PACKAGES = ('chainer', 'chainercv', 'numpy', 'scipy', 'scikit-learn', 'Pillow', 'cupy-cuda12x',
            'cupy-cuda13x')


def claim(args):
    """Take ``--out`` for the run of ``args``, and for no other, until the program ends.

    The claim is the system's lock of ``OUT/.lock``: even a killed process does not leave it behind.
    What a killed run was writing is removed, and at the end the directory if nothing is in it.
    With ``--estimate`` nothing is claimed and nothing written.

    Raises:
        Invalid: If another run has the directory, if it cannot be written, or as :func:`check`.
        SystemExit: As :func:`check`.
    """
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise Invalid(f'--out: {args.out} is a file; name a directory')
    if not args.estimate:
        out = os.path.realpath(args.out)
        try:
            made = make_directories(out)
            try:
                file = lock(os.path.join(out, '.lock'))
            except FileNotFoundError:  # another run has just removed the directory, which it made
                made = make_directories(out)
                file = lock(os.path.join(out, '.lock'))
        except BlockingIOError:
            raise Invalid(f'--out: a run goes on in {args.out}; wait for its end, or name another '
                          'directory') from None
        except OSError as error:
            raise Invalid(f'--out: {args.out} cannot be written ({error.strerror}); name another '
                          'directory') from None
        AT_END.callback(release, file, made)
        remove_unfinished(out)
    check(args)


def lock(path):
    """Return a file that is open and locked; BlockingIOError if another process has locked it.

    Where the system or the file system has no locks, the file is merely open.
    """
    while True:
        file = open(path, 'w')
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            pass
        # The process that had the lock may have removed the file since it was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file.fileno()), os.stat(path)):
                return file
        file.close()


def make_directories(path):
    """Make a directory and what is missing above it; return those made, the innermost first."""
    made = []
    while not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    for folder in reversed(made):
        os.makedirs(folder, exist_ok=True)
    return made


def release(file, made):
    """Give up a claim; remove the directories made for it in which nothing was written."""
    with file, contextlib.suppress(OSError):  # not empty, as after any run; or gone
        os.remove(file.name)
        for folder in made:
            os.rmdir(folder)


def check(args):
    """Check that the run of ``args`` may use its ``--out``; nothing is written.

    Raises:
        Invalid: If a new run would meet another one there, or if ``--resume`` finds none, or one
            with other options.
        SystemExit: If ``--resume`` finds that the run is finished.
    """
    if args.resume:
        check_same_run(args)
        if finished(args.out) >= args.epoch:
            print(f'{args.out} is finished already')
            raise SystemExit
        if os.path.exists(os.path.join(args.out, 'model.npz')) and not snapshots(args.out):
            raise Invalid(f'--resume: the run in {args.out} is finished and kept no snapshot from '
                          f'which to go on to epoch {args.epoch}; train anew in another directory '
                          'with --snapshot-every')
    elif any(os.path.exists(os.path.join(args.out, name)) for name in FILES) \
            or snapshots(args.out):
        raise Invalid(f'--out: {args.out} already holds a run; name another directory, or go on '
                      'with that run by --resume')


def check_same_run(args):
    """Raise Invalid unless ``--out`` holds a run of the same options, as far as they count."""
    record = read_record(args)
    now = {'method': args.method, **options(args)}
    earlier = {name: value for name, value in EARLIER.items() if name in now}
    before = {'method': record['method'], **earlier, **record['options']}
    # A longer run is the same run as long as no schedule is stretched to the new length.
    longer = now['schedule'] == 'constant' and now['epoch'] >= before.get('epoch', 0)
    free = FREE + ('epoch',) * longer
    if 'data' in record:  # they are compared themselves, wherever they lie
        free += ('data_archive',)
        if not {before.get('dataset'), now['dataset']} & set(NAMES):
            free += ('dataset',)
        if not {each['validate_on'].split(':')[0] for each in (before, now)} & {'test', 'rest'}:
            free += ('validate_on',)
    # The method comes first: a run of the other one also differs in options that only one has.
    for name in ['method', *sorted((before.keys() | now.keys()) - {'method'})]:
        if name not in free and before.get(name) != now.get(name):
            raise Invalid(f'--resume: the run in {args.out} has {name} = {before.get(name)}, '
                          f'given {now.get(name)}; give the options that it was started with, or '
                          'name another directory by --out')


def check_same_data(args, data):
    """Raise Invalid unless the run in ``--out`` was on the same data, where it recorded them.

    Args:
        args: The options, with ``--resume``.
        data (dict): What :func:`write_record` gets.
    """
    before = read_record(args).get('data')
    if before is None:
        return
    changes = [f'{before[split]["images"]} {split} images then, {data[split]["images"]} now'
               for split in ('train', 'test') if before[split]['images'] != data[split]['images']]
    then, now = before['classes'], list(data['classes'])
    if then != now:
        odd = [name for name in then + now if (name in then) != (name in now)]
        changes.append(f'other classes: {listed(odd)}' if odd else 'its classes in another order')
    if not changes and any(before[split]['sha256'] != data[split]['sha256']
                           for split in ('train', 'test')):
        changes = ['as many images, but other pixels or labels']
    if changes:
        raise Invalid(f'--resume: the run in {args.out} began with other data ('
                      f'{"; ".join(changes)}); give the same data, or begin anew in another '
                      'directory')


def read_record(args):
    """Return the record of the run in ``--out``, checked as far as ``--resume`` relies on it."""
    path = os.path.join(args.out, 'run.json')
    try:
        with open(path) as file:
            record = json.load(file)
        sound = (isinstance(record['method'], str) and isinstance(record['starts'], list)
                 and isinstance(record['options'].get('epoch', 0), int))
        if 'data' in record:  # older records lack it
            data = record['data']
            sound = (sound and isinstance(data['classes'], list)
                     and all(isinstance(name, str) for name in data['classes'])
                     and all(isinstance(data[split][key], kind) for split in ('train', 'test')
                             for key, kind in (('images', int), ('sha256', str))))
        if not sound:
            raise ValueError
        return record
    except FileNotFoundError:
        raise Invalid(f'--resume: {args.out} holds no run; name its directory by --out') from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Invalid(f'--resume: {path} cannot be read as the record of a run') from None


def snapshots(out):
    """Return the paths of the snapshots in a run directory, that of the last iteration first."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(out), 'snapshot_iter_*')):
        match = re.fullmatch(r'snapshot_iter_(\d+)', os.path.basename(path))
        if match and os.path.isfile(path):
            found[int(match[1])] = path
    return [path for _, path in sorted(found.items(), reverse=True)]


def finished(out):
    """Return the number of epochs of the finished run in a directory; 0 where there is none."""
    try:
        with open(os.path.join(out, 'log')) as file:
            epoch = json.load(file)[-1]['epoch']
        done = isinstance(epoch, int) and os.path.exists(os.path.join(out, 'model.npz'))
        return epoch if done else 0
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


def options(args):
    """Return the options that ``run.json`` keeps, ``{name: value}``."""
    return {name: value for name, value in vars(args).items()
            if name not in ('method', 'defaults', 'resume', 'estimate')}


def write_record(args, seeds, device, data, iteration):
    """Write ``run.json``, which says how to repeat the run and what it may be compared with.

    Every start is kept, with the iteration from which it went on.

    Args:
        args: The options.
        seeds (dict): Of the random streams.
        device (str): What :func:`experiment.device.describe` returns.
        data (dict): ``'classes'``, their names in the order of their numbers, and what
            ``LabeledImages.record`` returns of ``'train'`` and ``'test'``.
        iteration (int): That of the snapshot from which the run goes on, or 0.
    """
    path = os.path.join(args.out, 'run.json')
    starts = read_record(args)['starts'] if args.resume else []
    write_json(path, {
        'method': args.method,
        'options': options(args),
        'data': data,
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
