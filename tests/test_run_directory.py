"""A run's directory belongs to one run at a time, and says on which data the run was."""
import json
import os
import subprocess
import sys
import time

import chainer
import numpy as np
import pytest

import train_baseline
import train_manifoldmixup
from experiment import run_directory
from experiment.atomic_file import PREFIX, new_file, remove_unfinished
from experiment.errors import AT_END, Invalid
from experiment.log import Log
from experiment.model_files import save_npz
from experiment.options import parse_args
from experiment.trainer import StopWhenNotFinite, restore
from model import ARCHITECTURES
from tests.conftest import ROOT
from tests.test_command_line import refused, resumable
from tests.test_image_folder import write_image


def arguments(out, *more):
    return parse_args('', 'baseline', ARCHITECTURES,
                      ['--dataset', 'digits', '--out', str(out), *more])


@pytest.fixture(autouse=True)
def at_end():
    yield
    AT_END.close()


# The claim

def other_process(out, then):
    """A process that claims a directory, prints a line and goes on with some code."""
    code = f'''
import os, signal, sys, time
from experiment import run_directory
from tests.test_run_directory import arguments
run_directory.claim(arguments({str(out)!r}))
print('claimed', flush=True)
{then}
'''
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == 'claimed\n'
    return process


@pytest.mark.parametrize('more', [(), ('--resume',)])
def test_a_directory_in_which_a_run_goes_on_is_refused(tmp_path, more):
    out = tmp_path / 'runs' / 'a'
    with other_process(out, 'time.sleep(60)') as other:
        with pytest.raises(Invalid, match=f'--out: a run goes on in {out}; wait for its end'):
            run_directory.claim(arguments(out, *more))
        other.kill()


@pytest.mark.slow
def test_a_killed_run_leaves_no_claim_and_what_it_was_writing_is_removed(tmp_path):
    other = other_process(tmp_path / 'a', f'''
from experiment.atomic_file import new_file
with new_file({str(tmp_path / 'a' / 'snapshot_iter_6')!r}) as file:
    file.write(b'half')
    os.kill(os.getpid(), signal.SIGKILL)
''')
    with other:
        pass
    assert any(name.startswith(f'{PREFIX}snapshot_iter_6') for name in os.listdir(tmp_path / 'a'))
    run_directory.claim(arguments(tmp_path / 'a'))
    assert os.listdir(tmp_path / 'a') == ['.lock']


def test_nothing_stays_of_a_claim_under_which_nothing_was_written(tmp_path):
    run_directory.claim(arguments(tmp_path / 'runs' / 'a'))
    assert (tmp_path / 'runs' / 'a').is_dir()
    AT_END.close()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_was_there_or_holds_something_stays(tmp_path):
    (tmp_path / 'a').mkdir()
    run_directory.claim(arguments(tmp_path / 'a'))
    run_directory.claim(arguments(tmp_path / 'b'))
    (tmp_path / 'b' / 'log').write_text('kept')
    AT_END.close()
    assert os.listdir(tmp_path / 'a') == [] and os.listdir(tmp_path / 'b') == ['log']


def test_an_estimate_claims_nothing(tmp_path):
    run_directory.claim(arguments(tmp_path / 'a', '--estimate', '1'))
    assert os.listdir(tmp_path) == []


def test_a_claim_is_never_that_of_a_file_which_its_owner_has_removed(tmp_path, monkeypatch):
    path = str(tmp_path / '.lock')
    first, flock = run_directory.lock(path), run_directory.fcntl.flock

    def removed_meanwhile(file, operation):
        monkeypatch.undo()
        run_directory.release(first, [])
        flock(file, operation)

    monkeypatch.setattr(run_directory.fcntl, 'flock', removed_meanwhile)
    with run_directory.lock(path) as second:
        assert os.path.samestat(os.stat(path), os.stat(second.fileno()))


def test_a_file_system_without_locks_can_be_used(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(run_directory.fcntl, 'flock', refuse)
    run_directory.claim(arguments(tmp_path / 'a'))


def test_a_directory_is_claimed_before_data_are_read(tmp_path, capsys, monkeypatch):
    with other_process(tmp_path, 'time.sleep(60)') as other:
        for script in train_baseline, train_manifoldmixup:
            assert 'a run goes on' in refused(capsys, monkeypatch, '--dataset', 'no-such-set',
                                              '--out', tmp_path, script=script)
        other.kill()


def test_what_is_still_being_written_stays(tmp_path):
    with new_file(str(tmp_path / 'archive')) as file:
        file.write(b'half')
        remove_unfinished(str(tmp_path), age=3600)
    assert os.listdir(tmp_path) == ['archive']


def test_what_a_download_left_long_ago_goes(tmp_path):
    for name, age in ('new', 60), ('old', 7200):
        path = tmp_path / f'{PREFIX}{name}' / 'archive'
        path.parent.mkdir()
        path.write_bytes(b'half')
        for changed in path, path.parent:
            os.utime(changed, (time.time() - age,) * 2)
    remove_unfinished(str(tmp_path), age=3600)
    assert os.listdir(tmp_path) == [f'{PREFIX}new']


# The name

@pytest.mark.parametrize('given, expected', [
    ('.', 'pets'), ('./', 'pets'), ('../pets', 'pets'), ('../pets//', 'pets'), ('..', 'photos'),
    ('/', 'data'), ('../.hidden', 'hidden'), ('cifar10', 'cifar10')])
def test_the_default_directory_has_the_name_of_the_data(tmp_path, monkeypatch, given, expected):
    (tmp_path / 'photos' / 'pets').mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'photos' / 'pets')
    args = parse_args('', 'baseline', ARCHITECTURES, ['--dataset', given])
    assert args.out == f'runs/{expected}-blog-baseline-0'


def test_an_empty_name_is_refused(capsys, monkeypatch):
    assert '--out: given an empty name' in refused(capsys, monkeypatch, '--out', '')


# The data

DATA = {'classes': ['a', 'b'], 'train': {'images': 12, 'sha256': '1'},
        'test': {'images': 10, 'sha256': '2'}}


def resumed(folder, data, dataset='digits'):
    record = json.loads((folder / 'run.json').read_text())
    (folder / 'run.json').write_text(json.dumps({**record, 'data': data}))
    return parse_args('', 'manifoldmixup', ARCHITECTURES,
                      ['--dataset', dataset, '--resume', '--out', str(folder)])


@pytest.mark.parametrize('changes, expected', [
    ({'train': {'images': 12, 'sha256': '3'}}, 'as many images, but other pixels or labels'),
    ({'train': {'images': 14, 'sha256': '3'}}, '14 train images then, 12 now'),
    ({'test': {'images': 9, 'sha256': '3'}}, '9 test images then, 10 now'),
    ({'classes': ['a', 'c']}, 'other classes: c, b'),
    ({'classes': ['b', 'a']}, 'its classes in another order'),
    ({'classes': [*'klmnopqrstuv']}, 'other classes: k, l')])
def test_resuming_on_other_data_is_refused_in_words(tmp_path, changes, expected):
    args = resumed(resumable(tmp_path), {**DATA, **changes})
    with pytest.raises(Invalid, match=rf'began with other data \({expected}'):
        run_directory.check_same_data(args, DATA)


def test_the_same_data_may_lie_elsewhere(tmp_path):
    resumable(tmp_path, dataset='/photos/pets', data_archive='a.tar')
    args = resumed(tmp_path, DATA, dataset='pets/')
    run_directory.check(args)
    run_directory.check_same_data(args, DATA)


def test_another_set_is_not_fetched_to_see_that_it_is_another(tmp_path):
    args = resumed(resumable(tmp_path), DATA, dataset='cifar10')
    with pytest.raises(Invalid, match='dataset = digits, given cifar10'):
        run_directory.check(args)


def test_of_a_record_without_data_the_names_count(tmp_path):
    args = arguments(resumable(tmp_path, dataset='pets'), '--resume')
    args.method = 'manifoldmixup'
    with pytest.raises(Invalid, match='dataset = pets, given digits'):
        run_directory.check(args)
    run_directory.check_same_data(args, DATA)


@pytest.mark.parametrize('given, named', [
    ((), None), (('--train-size', '100'), 'train_size = None, given 100'),
    (('--validate-on', 'rest'), 'validate_on = test, given rest'),
    (('--warmup', '5'), 'warmup = 0.0, given 5.0'), (('--loss', 'bce'), 'loss = ce, given bce'),
    (('--lam-per', 'example'), 'lam_per = batch, given example')])
def test_a_run_older_than_an_option_did_without(tmp_path, given, named):
    record = json.loads((resumable(tmp_path) / 'run.json').read_text())
    for name in run_directory.EARLIER:
        del record['options'][name]
    (tmp_path / 'run.json').write_text(json.dumps(record))
    args = parse_args('', 'manifoldmixup', ARCHITECTURES, [
        '--dataset', 'digits', '--resume', '--out', str(tmp_path), *given])
    if named is None:
        run_directory.check(args)
    else:
        with pytest.raises(Invalid, match=named):
            run_directory.check(args)


def test_a_run_older_than_the_warm_up_of_its_recipe_had_none(tmp_path):
    options = ['--dataset', 'digits', '--recipe', 'standard', '--resume', '--out', str(tmp_path)]
    args = parse_args('', 'manifoldmixup', ARCHITECTURES, [*options, '--warmup', '0'])
    resumable(tmp_path, **run_directory.options(args))
    record = json.loads((tmp_path / 'run.json').read_text())
    del record['options']['warmup']
    (tmp_path / 'run.json').write_text(json.dumps(record))
    with pytest.raises(Invalid, match='warmup = 0.0, given 5.0'):
        run_directory.check(parse_args('', 'manifoldmixup', ARCHITECTURES, options))
    run_directory.check(args)


def test_the_folder_of_validation_may_lie_elsewhere_where_data_are_recorded(tmp_path):
    args = resumed(resumable(tmp_path, validate_on='/photos/val'), DATA)
    for validate_on, named in ('val', None), ('test', 'validate_on = /photos/val, given test'):
        args.validate_on = validate_on
        if named is None:
            run_directory.check(args)
        else:
            with pytest.raises(Invalid, match=named):
                run_directory.check(args)


# Snapshots

def test_a_damaged_snapshot_gives_way_to_the_one_before(tmp_path, capsys):
    link = chainer.links.Linear(2, 2)
    good, bad = (str(tmp_path / f'snapshot_iter_{i}') for i in (3, 6))
    save_npz(good, link)
    (tmp_path / 'snapshot_iter_6').write_bytes((tmp_path / 'snapshot_iter_3').read_bytes()[:-9])
    expected, link.W.array[...] = link.W.array.copy(), 0
    assert restore(link, run_directory.snapshots(str(tmp_path))) == good
    np.testing.assert_array_equal(link.W.array, expected)
    said = capsys.readouterr().err
    assert bad in said and 'the one before it is taken' in said and said.count('\n') == 1
    os.remove(good)
    with pytest.raises(Invalid, match=f'{bad} cannot be read: .*; remove it to begin anew'):
        restore(link, run_directory.snapshots(str(tmp_path)))
    assert restore(link, []) is None


# The log

class Observed:
    """What an extension asks a Trainer for."""

    def __init__(self, out, loss, epoch=1, validation=0.):
        self.out, self.updater, self.elapsed_time, self.is_before_training = out, self, 1., False
        self.observation = {'main/loss': chainer.Variable(np.array(loss, np.float32)),
                            'validation/main/loss': validation}
        self.epoch = self.epoch_detail = self.iteration = epoch
        self.is_new_epoch = True


def test_the_log_is_strict_json(tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.move', pytest.fail)  # by which Chainer would write it
    log = Log()
    log._trigger = lambda trainer: True
    for epoch, loss in enumerate([1, float('nan'), float('inf')], 1):
        log(Observed(str(tmp_path), loss, epoch))
    assert os.listdir(tmp_path) == ['log']
    entries = json.loads((tmp_path / 'log').read_text(), parse_constant=pytest.fail)
    assert [entry['main/loss'] for entry in entries] == [1, None, None]
    assert [entry['epoch'] for entry in entries] == [1, 2, 3]


@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_ends_the_run(loss):
    StopWhenNotFinite(2)(Observed('', 1e30, validation=loss))  # weights may yet recover
    with pytest.raises(Invalid, match=f'main/loss is {loss} at iteration 1, .* lower --learnrate'):
        StopWhenNotFinite(2)(Observed('', loss))
    with pytest.raises(Invalid, match=f'validation/main/loss is {loss} at iteration 2'):
        StopWhenNotFinite(2)(Observed('', 1., epoch=2, validation=loss))


def test_a_diverged_run_is_neither_finished_nor_logged_as_a_number(tmp_path, capsys, monkeypatch):
    for split in 'train', 'test':
        for name, colour in ('cat', (9, 8, 7)), ('dog', (70, 80, 90)):
            write_image(tmp_path / split / name / 'a.png', colour=colour)
    message = refused(
        capsys, monkeypatch, '--device', 'cpu', '--dataset', tmp_path, '--size', '8',
        '--batchsize', '2', '--epoch', '3', '--optimizer', 'sgd', '--learnrate', '1e30',
        '--snapshot-every', '2', '--out', tmp_path / 'a', script=train_baseline)
    assert 'main/loss is nan at iteration 2, in epoch 2.00' in message
    assert not {'model.npz', 'snapshot_iter_2'} & set(os.listdir(tmp_path / 'a'))
    entry, = json.loads((tmp_path / 'a' / 'log').read_text(), parse_constant=pytest.fail)
    assert entry['epoch'] == 1 and entry['validation/main/loss'] is None


