"""experiment/pairs.py with stand-ins for the scripts and for compare.py."""
import signal

import pytest

from experiment import pairs as program
from experiment.errors import one_line_errors

# Writes down how it was called, and goes on only with the same --epoch.
SCRIPT = '''\
import argparse, json, os, sys
parser = argparse.ArgumentParser()
for name in '--seed', '--out', '--epoch', '--estimate', '--layer-mix':
    parser.add_argument(name)
parser.add_argument('--resume', action='store_true')
args = parser.parse_args()
path = os.path.join(args.out, 'run.json')
if args.resume:
    with open(path) as file:
        if json.load(file) != args.epoch:
            sys.exit(print(f'script: error: --resume: the run in {args.out} has another epoch',
                           file=sys.stderr) or 2)
if args.epoch == 'bad':
    sys.exit(print('script: error: --epoch: given bad', file=sys.stderr) or 2)
with open('calls', 'a') as calls:
    print('estimate' if args.estimate else 'train', os.path.basename(args.out), file=calls)
if not args.estimate:
    os.makedirs(args.out, exist_ok=True)
    with open(path, 'w') as file:
        json.dump(args.epoch, file)
    if args.epoch != 'interrupted':
        with open(os.path.join(args.out, 'log'), 'w') as file:
            json.dump([{'epoch': 1}], file)
        open(os.path.join(args.out, 'model.npz'), 'w').close()
    else:
        sys.exit(1)
'''


@pytest.fixture
def pairs(tmp_path, monkeypatch, capfd):
    """A function that calls pairs.py and returns its status, its stderr and the new calls."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for name in 'train_baseline.py', 'train_manifoldmixup.py':
        (tmp_path / name).write_text(SCRIPT)
    (tmp_path / 'compare.py').write_text('')

    def call(*arguments):
        (tmp_path / 'calls').write_text('')
        monkeypatch.setattr('sys.argv', ['pairs.py', '--seeds', '0', *arguments])
        status = 0
        try:
            with one_line_errors():
                program.main()
        except SystemExit as end:
            status = end.code
        return status, capfd.readouterr().err, (tmp_path / 'calls').read_text().splitlines()
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_new_pair_is_estimated_and_trained(pairs):
    assert pairs('--out', 'demo', '--epoch', '4') == (
        0, '', ['estimate manifoldmixup-0', 'train baseline-0', 'train manifoldmixup-0'])


@pytest.mark.parametrize('out', ['demo', 'my demo'])
@pytest.mark.parametrize('before', ['4', 'interrupted'])
def test_runs_of_other_options_are_left_alone_and_the_way_out_is_named(pairs, before, out):
    pairs('--out', out, '--epoch', before)
    status, said, calls = pairs('--out', out, '--epoch', '1', '--seeds', '1', '0')
    quoted = f"'{out}'" if ' ' in out else out
    assert status == 2 and not calls
    assert said.splitlines() == [
        f'script: error: --resume: the run in {out}/baseline-0 has another epoch',
        f'pairs.py: {out} stays as it is; to begin anew: rm -r {quoted}, or name another '
        'directory by --out']
    assert pairs('--out', 'another', '--epoch', '1')[0] == 0


def test_a_mistake_in_an_option_is_no_reason_to_begin_anew(pairs):
    pairs('--out', 'demo', '--epoch', '4')
    for arguments in ['--out', 'demo', '--epoch'], ['--out', 'new', '--epoch', 'bad']:
        status, said, calls = pairs(*arguments)
        assert status == 2 and not calls and 'rm -r' not in said
