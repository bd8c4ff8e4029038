"""compare.py, run as a user does: what it computes, says, draws and refuses."""
import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib import colors, font_manager, image

import compare
from comparison.picture import COLOURS, looks
from comparison.records import DEFAULTS, SCRIPTS
from comparison.runs import method_of, row_name, seconds_per_epoch
from comparison.statistics import paired_difference
from experiment.run_directory import EARLIER

SCRIPT = Path(compare.__file__)
OPTIONS = {
    'dataset': 'cifar10', 'data_archive': None, 'size': 32, 'arch': 'resnet50', 'stem': 'cifar',
    'pretrained': None, 'recipe': 'blog', 'epoch': 3, 'batchsize': 128, 'optimizer': 'sgd',
    'learnrate': 0.1, 'weight_decay': 1e-4, 'schedule': 'step', 'augment': 'standard',
    'normalize': 'standard', 'device': '0', 'dtype': 'float32', 'engine': 'stock', 'graph': 'off',
    'autotune': False, 'snapshot_every': 10}


def data(train='train', test='test', images=12):
    """A run's record of its data, with fingerprints made of words."""
    return {'classes': ['ant', 'bee'], **{
        split: {'images': images, 'per_class': [images // 2] * 2,
                'sha256': hashlib.sha256(word.encode()).hexdigest()}
        for split, word in (('train', train), ('test', test))}}


def make_run(directory, method, last, seed=0, accuracies=None, elapsed=None, data=None,
             **options):
    """Write a finished run of three epochs whose last validation accuracy is `last` (0 to 1)."""
    if method == 'manifoldmixup':
        options = {'mixup_alpha': 0.2, 'lam_per': 'batch', 'layer_mix': list(range(6)), **options}
    accuracies = accuracies or [0.3, 0.5, last]
    elapsed = elapsed or [20. + 10 * epoch for epoch in range(len(accuracies))]
    log = [{'epoch': epoch, 'iteration': 390 * epoch, 'elapsed_time': seconds, 'main/loss': 1.5,
            'main/accuracy': 0.4, 'validation/main/loss': 1.2,
            'validation/main/accuracy': accuracy, 'lr': 0.1}
           for epoch, (accuracy, seconds) in enumerate(zip(accuracies, elapsed), 1)]
    record = {'method': method,
              'options': {**OPTIONS, 'seed': seed, 'out': str(directory), **options},
              'starts': [{'command': f'python train_{method}.py', 'commit': 'abc',
                          'device': 'GPU 0', 'versions': {'chainer': '7.8.1', 'numpy': '2.1'}}]}
    if data:
        record['data'] = data
    directory.mkdir(parents=True)
    (directory / 'run.json').write_text(json.dumps(record))
    (directory / 'log').write_text(json.dumps(log))
    return directory


def change(path, function):
    """Rewrite a JSON file by `function`, which changes its content in place."""
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def make_pair(directory, **options):
    """Write a baseline and a mixup run of a seed below a directory."""
    make_run(directory / 'base', 'baseline', 0.70, **options)
    make_run(directory / 'mix', 'manifoldmixup', 0.72, **options)
    return directory


@pytest.fixture
def pair(tmp_path):
    return make_pair(tmp_path)


BASELINE, MIXUP = [0.780, 0.791, 0.786], [0.801, 0.805, 0.811]  # last epoch, seeds 0 to 2


@pytest.fixture
def three_pairs(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f'base-{seed}', 'baseline', BASELINE[seed], seed)
        make_run(tmp_path / f'mix-{seed}', 'manifoldmixup', MIXUP[seed], seed)
    return tmp_path


def compare_runs(capsys, *arguments):
    """Run the script here: its standard output, and comparison.json's only group."""
    compare.main([str(argument) for argument in arguments])
    text = capsys.readouterr().out
    out = Path(text.split('Written to ')[1].split(':')[0])
    [group] = json.loads((out / 'comparison.json').read_text())['groups']
    return text, group


def refusal(capsys, *arguments):
    """The one line by which the script refuses; nothing is printed beside it, or written."""
    before = set(SCRIPT.parent.glob('comparison.*'))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == ''
    assert printed.err.startswith('compare.py: error: ') and printed.err.count('\n') == 1
    for argument in arguments:
        assert not list(Path(argument).glob('*comparison*'))
    assert set(SCRIPT.parent.glob('comparison.*')) == before
    return printed.err


# The script as a user runs it

def test_a_parent_directory_is_compared_and_holds_the_results(three_pairs):
    done = subprocess.run([sys.executable, SCRIPT, three_pairs], capture_output=True, text=True,
                          encoding='utf-8', env={'PYTHONIOENCODING': 'utf-8'}, check=True)
    assert done.stderr == ''
    written = (three_pairs / 'comparison.md').read_text(encoding='utf-8')
    assert done.stdout.startswith(written)
    assert sorted(path.name for path in three_pairs.iterdir() if path.is_file()) == [
        'comparison.json', 'comparison.md', 'comparison.png']


def test_run_directories_are_compared_in_the_current_directory(pair, tmp_path):
    (tmp_path / 'here').mkdir()
    subprocess.run([sys.executable, SCRIPT, '../base', '../mix'], cwd=tmp_path / 'here',
                   env={'PYTHONIOENCODING': 'ascii'}, capture_output=True, check=True)
    assert (tmp_path / 'here' / 'comparison.png').exists()
    group = json.loads((tmp_path / 'here' / 'comparison.json').read_text())['groups'][0]
    assert [row['runs'][0]['directory'] for row in group['rows']] == ['../base', '../mix']


def test_a_refusal_is_one_line_and_exit_status_2(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('compare.py: error: ') and done.stderr.count('\n') == 1


def test_chainer_is_never_imported(pair):
    code = ('import sys, compare; compare.main(sys.argv[1:]); '
            'assert not {"chainer", "experiment", "model", "mixup", "matplotlib.pyplot"} '
            '& set(sys.modules)')
    subprocess.run([sys.executable, '-c', code, pair], cwd=SCRIPT.parent, check=True,
                   capture_output=True)


def test_out_is_made_and_a_later_comparison_replaces_an_older_one(pair, capsys):
    out = pair / 'new' / 'folder'
    for _ in range(2):
        compare_runs(capsys, pair, '--out', out)
    assert sorted(path.name for path in out.iterdir()) == [
        'comparison.json', 'comparison.md', 'comparison.png']
    assert not (pair / 'comparison.md').exists()


# What it computes

def test_the_paired_interval_is_that_of_scipy(three_pairs, capsys):
    _, group = compare_runs(capsys, three_pairs)
    difference = group['rows'][1]['difference']
    expected = scipy.stats.ttest_rel(MIXUP, BASELINE).confidence_interval(0.95)
    np.testing.assert_allclose(difference['interval_95'], 100 * np.array(expected), rtol=1e-10)
    assert difference['mean'] == pytest.approx(2.0)
    assert difference['per_seed'] == pytest.approx({'0': 2.1, '1': 1.4, '2': 2.5})


def test_the_interval_of_numbers_worked_by_hand():
    # Differences 1, 2, 3: mean 2, std 1; t(0.975; 2) = 4.302653, so 2 ± 4.302653 / sqrt(3).
    result = paired_difference([10, 20, 30], [11, 22, 33])
    assert (result['mean'], result['std']) == (2, 1)
    assert result['interval_95'] == pytest.approx([-0.484138, 4.484138], abs=1e-6)


def test_mean_and_sample_standard_deviation_of_last_and_best_epoch(tmp_path, capsys):
    curves = {0: [0.2, 0.8, 0.7], 1: [0.2, 0.6, 0.74]}
    for seed, curve in curves.items():
        make_run(tmp_path / f'b{seed}', 'baseline', None, seed, accuracies=curve)
        make_run(tmp_path / f'm{seed}', 'manifoldmixup', 0.9, seed)
    text, group = compare_runs(capsys, tmp_path)
    row = group['rows'][0]
    for key, mean, std in (('accuracy_last_epoch', 72, 2.828427),
                           ('error_last_epoch', 28, 2.828427),
                           ('accuracy_best_epoch', 77, 4.242641),
                           ('error_best_epoch', 23, 4.242641)):
        assert row[key] == pytest.approx({'mean': mean, 'std': std}, abs=1e-6)
    assert [run['best_epoch'] for run in row['runs']] == [2, 3]
    assert '72.00 ± 2.83' in text and '77.00 ± 4.24' in text
    assert 'best epoch, chosen on the test data' in text


def test_one_pair_has_neither_interval_nor_standard_deviation_and_says_so(pair, capsys):
    text, group = compare_runs(capsys, pair)
    assert group['rows'][1]['difference']['interval_95'] is None
    assert group['rows'][1]['accuracy_last_epoch']['std'] is None
    assert 'no interval, so no verdict beyond these two runs' in text
    assert '| 72.00 ' in text and '| +2.00 [one pair: none] ' in text
    assert '±' not in text.split('\n\n')[2]  # the table


@pytest.mark.parametrize('mixup, said', [
    (MIXUP, 'Manifold Mixup (alpha 0.2, layers 0–5) is better than baseline by 2.00 points'),
    ([0.770, 0.780, 0.776], 'is worse than baseline by 1.03 points (95 % interval -1.18 to -0.89'),
    ([0.781, 0.790, 0.787], 'no difference is shown: the 95 % interval, -0.25 to +0.32, includes'),
    (BASELINE, 'no difference is shown'),
])
def test_the_verdict_in_words(tmp_path, capsys, mixup, said):
    for seed in range(3):
        make_run(tmp_path / f'b{seed}', 'baseline', BASELINE[seed], seed)
        make_run(tmp_path / f'm{seed}', 'manifoldmixup', mixup[seed], seed)
    assert said in compare_runs(capsys, tmp_path)[0]


@pytest.mark.parametrize('elapsed, seconds', [
    ([17], 17),
    ([50, 60, 70], 10),                 # the first epoch also warms up
    ([10, 20, 500, 511, 521], 10.5),    # interrupted for a while
    ([10, 20, 7, 17], 10),              # the clock began anew
    ([10, 4], 4),
])
def test_time_per_epoch_is_the_median_between_entries(elapsed, seconds):
    assert seconds_per_epoch(elapsed) == seconds


# What is compared with what

@pytest.mark.parametrize('alpha, layers, name', [
    (0.2, [0, 1, 2, 3, 4, 5], 'Manifold Mixup (alpha 0.2, layers 0–5)'),
    (2.0, [2, 0, 1], 'Manifold Mixup (alpha 2, layers 0–2)'),
    (1.0, [0], 'input mixup (alpha 1, layer 0)'),
    (1, [3], 'Manifold Mixup (alpha 1, layer 3)'),
    (0.25, [0, 1], 'Manifold Mixup (alpha 0.25, layers 0, 1)'),
    (0.25, [0, 2, 5], 'Manifold Mixup (alpha 0.25, layers 0, 2, 5)'),
])
def test_a_row_is_named_by_alpha_and_layers(alpha, layers, name):
    options = {'mixup_alpha': alpha, 'lam_per': 'batch', 'layer_mix': layers}
    method = method_of({'method': 'manifoldmixup', 'options': options})
    assert row_name(method, options) == name
    options['lam_per'] = 'example'
    alpha = name.split(',')[0]
    assert row_name(method, options) == name.replace(alpha, f'{alpha}, one lam per example')


def test_one_lam_per_example_is_a_row_of_its_own(pair, capsys):
    make_run(pair / 'example', 'manifoldmixup', 0.71, lam_per='example')
    assert [row['name'] for row in compare_runs(capsys, pair)[1]['rows']] == [
        'baseline', 'Manifold Mixup (alpha 0.2, layers 0–5)',
        'Manifold Mixup (alpha 0.2, one lam per example, layers 0–5)']


def test_each_mixup_variant_is_a_row_paired_with_the_baselines_of_its_seeds(three_pairs, capsys):
    for seed in (1, 2):
        make_run(three_pairs / f'input-{seed}', 'manifoldmixup', BASELINE[seed] + 0.01, seed,
                 mixup_alpha=1.0, layer_mix=[0])
    text, group = compare_runs(capsys, three_pairs)
    assert [(row['name'], [run['seed'] for run in row['runs']]) for row in group['rows']] == [
        ('baseline', [0, 1, 2]), ('input mixup (alpha 1, layer 0)', [1, 2]),
        ('Manifold Mixup (alpha 0.2, layers 0–5)', [0, 1, 2])]
    assert group['rows'][1]['difference']['per_seed'] == pytest.approx({'1': 1.0, '2': 1.0})
    assert '2 seeds' in text and '3 seeds' in text


INPUT = [0.790, 0.789, 0.796]  # input mixup's, seeds 0 to 2


@pytest.fixture
def three_methods(three_pairs):
    for seed in range(3):
        make_run(three_pairs / f'input-{seed}', 'manifoldmixup', INPUT[seed], seed,
                 mixup_alpha=1.0, layer_mix=[0])
    return three_pairs


def test_manifold_mixup_is_also_compared_with_input_mixup(three_methods, capsys):
    text, group = compare_runs(capsys, three_methods)
    [between] = group['between_mixups']
    assert (between['manifold_mixup'], between['input_mixup']) == tuple(
        group['rows'][row]['name'] for row in (2, 1))
    expected = scipy.stats.ttest_rel(MIXUP, INPUT)
    low, high = 100 * np.array(expected.confidence_interval(0.95))
    assert between['difference']['interval_95'] == pytest.approx([low, high])
    assert between['difference']['per_seed'] == pytest.approx({'0': 1.1, '1': 1.6, '2': 1.5})
    assert ('| alpha 0.2, layers 0–5 | alpha 1, layer 0 | 3     | '
            f'+1.40 [{low:+.2f}, {high:+.2f}]') in text
    assert ('\n\nManifold Mixup (alpha 0.2, layers 0–5) is better than input mixup (alpha 1, layer '
            f'0) by 1.40 points (95 % interval {low:+.2f} to {high:+.2f}, 3 seeds).\n') in text


def test_each_manifold_mixup_is_compared_with_each_input_mixup(pair, capsys):
    for name, alpha, layers in ('in-1', 1.0, [0]), ('in-2', 2.0, [0]), ('two', 2.0, [0, 2, 3]):
        make_run(pair / name, 'manifoldmixup', 0.7, mixup_alpha=alpha, layer_mix=layers)
    _, group = compare_runs(capsys, pair)
    assert [(each['manifold_mixup'][16:25], each['input_mixup'][13:20])
            for each in group['between_mixups']] == [
        ('alpha 0.2', 'alpha 1'), ('alpha 0.2', 'alpha 2'), ('alpha 2, ', 'alpha 1'),
        ('alpha 2, ', 'alpha 2')]


@pytest.mark.parametrize('missing, baseline_pairs, mixup_pairs, between_pairs', [
    ('base-1', '02', '02', '012'), ('mix-1', '012', '02', '02'), ('input-1', '02', '012', '02')])
def test_a_run_that_is_missing_takes_no_other_out_of_the_comparison(
        three_methods, capsys, missing, baseline_pairs, mixup_pairs, between_pairs):
    shutil.rmtree(three_methods / missing)
    text, group = compare_runs(capsys, three_methods)
    assert sum(len(row['runs']) for row in group['rows']) == 8
    assert [''.join(each['difference']['per_seed']) for each in (
        group['rows'][1], group['rows'][2], *group['between_mixups'])] == [
            baseline_pairs, mixup_pairs, between_pairs]
    assert text.count(', 2 pairs') == 2 * (missing == 'base-1')  # of three seeds in those rows
    assert left_out(three_methods) == {}


def test_mixups_without_a_common_seed_are_each_compared_with_the_baseline(three_pairs, capsys):
    make_run(three_pairs / 'mix-3', 'manifoldmixup', 0.8, 3, layer_mix=[0])
    make_run(three_pairs / 'base-3', 'baseline', 0.8, 3)
    _, group = compare_runs(capsys, three_pairs)
    assert group['between_mixups'] == [] and 'difference' in group['rows'][1]


def test_mixups_are_compared_where_there_is_no_baseline(three_methods, capsys):
    given = [three_methods / f'{name}-{seed}' for name in ('mix', 'input') for seed in range(3)]
    text, group = compare_runs(capsys, *given, '--out', three_methods)
    assert [row['name'].split(' (')[0] for row in group['rows']] == [
        'input mixup', 'Manifold Mixup']
    assert not any('difference' in row for row in group['rows'])
    assert group['between_mixups'][0]['difference']['mean'] == pytest.approx(1.4)


def test_options_that_change_nothing_do_not_part_a_group(pair, capsys):
    change(pair / 'mix' / 'run.json', lambda record: record['options'].update(
        device='cpu', engine='fast', snapshot_every=0))
    compare_runs(capsys, pair)


def test_groups_have_a_table_each_headed_by_what_differs(tmp_path, capsys):
    for size in (128, 256):
        make_run(tmp_path / f'b{size}', 'baseline', 0.7, batchsize=size)
        make_run(tmp_path / f'm{size}', 'manifoldmixup', 0.8, batchsize=size)
    compare.main([str(tmp_path)])
    text = capsys.readouterr().out
    for size in (128, 256):
        assert f'\n## dataset cifar10, arch resnet50, epoch 3, batchsize {size}\n' in text
    assert text.count('| method ') == 2


def test_runs_are_found_at_any_depth_and_one_given_twice_counts_once(tmp_path, capsys):
    base = make_run(tmp_path / 'deep' / 'down' / 'b', 'baseline', 0.7)
    make_run(tmp_path / 'm', 'manifoldmixup', 0.8)
    _, group = compare_runs(capsys, tmp_path, base, '--out', tmp_path)
    assert [len(row['runs']) for row in group['rows']] == [1, 1]


def test_runs_are_found_through_links_and_a_link_back_is_no_loop(tmp_path, capsys):
    make_pair(tmp_path / 'elsewhere')
    make_run(tmp_path / 'above', 'baseline', 0.7, seed=7)
    (tmp_path / 'runs' / 'deep').mkdir(parents=True)
    for name in ('base', 'mix'):
        (tmp_path / 'runs' / name).symlink_to(tmp_path / 'elsewhere' / name)
    (tmp_path / 'runs' / 'deep' / 'back').symlink_to(tmp_path / 'runs')
    (tmp_path / 'runs' / 'up').symlink_to(tmp_path)
    _, group = compare_runs(capsys, tmp_path / 'runs')
    assert [[Path(run['directory']).name for run in row['runs']] for row in group['rows']] == [
        ['base'], ['mix']]


def test_numbers_that_are_not_finite_are_null_in_the_json_file(pair, capsys):
    for run in ('base', 'mix'):
        change(pair / run / 'run.json', lambda record: record['options'].update(
            learnrate=float('nan'), weight_decay=-float('inf')))
    compare_runs(capsys, pair)
    setting = json.loads((pair / 'comparison.json').read_text(),
                         parse_constant=pytest.fail)['groups'][0]['setting']
    assert setting['learnrate'] is None and setting['weight_decay'] is None


def test_records_from_before_lam_could_be_per_example_are_read(pair, capsys):
    change(pair / 'mix' / 'run.json', lambda record: record['options'].pop('lam_per'))
    _, group = compare_runs(capsys, pair)
    assert group['rows'][1]['name'] == 'Manifold Mixup (alpha 0.2, layers 0–5)'


NEWER = {'train_size': None, 'validate_on': 'test', 'warmup': 0.0, 'loss': 'ce'}


@pytest.mark.parametrize('newer', ['base', 'mix'])
def test_a_record_from_before_there_was_an_option_has_its_default(pair, capsys, newer):
    change(pair / newer / 'run.json', lambda record: record['options'].update(NEWER))
    _, group = compare_runs(capsys, pair)
    assert {option: group['setting'][option] for option in NEWER} == NEWER
    make_pair(pair / 'ints', seed=1, **{**NEWER, 'warmup': 0})
    _, group = compare_runs(capsys, pair)
    assert [len(row['runs']) for row in group['rows']] == [2, 2]


def test_the_scripts_take_the_same_of_an_older_record():
    assert DEFAULTS == EARLIER


def test_another_value_than_the_default_parts_a_newer_record_from_an_older_one(pair, capsys):
    change(pair / 'mix' / 'run.json', lambda record: record['options'].update(NEWER, warmup=5))
    assert 'differs in warmup (0 here, 5 there)' in refusal(capsys, pair)


def test_the_notes_say_on_which_images_the_best_epoch_is_chosen(tmp_path, capsys):
    make_pair(tmp_path / 'rest', validate_on='rest')
    text, _ = compare_runs(capsys, tmp_path)
    assert 'chosen on held-out training images' in text and 'test data' not in text
    make_pair(tmp_path / 'test')
    make_pair(tmp_path / 'folder', validate_on='my\nphotos')
    compare.main([str(tmp_path)])
    assert ('best epoch, chosen on the images of my?photos, or held-out training images, or the '
            'test data; ') in capsys.readouterr().out


def test_the_table_has_aligned_columns(three_pairs, capsys):
    lines = [line for line in compare_runs(capsys, three_pairs)[0].splitlines() if '|' in line]
    assert len(lines) == 4
    bars = [[place for place, letter in enumerate(line) if letter == '|'] for line in lines]
    assert bars == [bars[0]] * 4


@pytest.mark.parametrize('key, value, said', [
    ('device', 'CPU', 'Caution: the runs differ in device: CPU; GPU 0.'),
    ('commit', None, 'Caution: the runs differ in commit: None; abc.'),
    ('versions', {'chainer': '7.8.1', 'numpy': '2.3'}, 'the runs differ in numpy: 2.1; 2.3.'),
])
def test_other_code_or_another_machine_is_mentioned(pair, capsys, key, value, said):
    assert 'Caution' not in compare_runs(capsys, pair)[0]
    change(pair / 'mix' / 'run.json',
           lambda record: record['starts'].append({**record['starts'][0], key: value}))
    assert said in compare_runs(capsys, pair)[0]


@pytest.mark.parametrize('loss', [float('nan'), None])
def test_a_run_that_diverged_is_mentioned(pair, capsys, loss):
    change(pair / 'base' / 'log', lambda log: log[-1].update({'main/loss': loss}))
    assert f'Caution: {pair / "base"} diverged' in compare_runs(capsys, pair)[0]


# Which data are the same

@pytest.mark.parametrize('options', [
    {'dataset': 'pets/'}, {'dataset': './pets'}, {'dataset': '/abs/pets'}, {'dataset': 'dogs'},
    {'dataset': 'pets', 'data_archive': 'pets.tar.gz'}])
def test_data_are_the_same_if_their_fingerprints_are(tmp_path, capsys, options):
    make_run(tmp_path / 'base', 'baseline', 0.7, dataset='pets', data=data())
    make_run(tmp_path / 'mix', 'manifoldmixup', 0.8, **options, data=data())
    text, group = compare_runs(capsys, tmp_path)
    assert 'Caution' not in text and group['setting']['training data']['images'] == 12
    assert '\n## dataset pets, arch resnet50, epoch 3\n' in text


@pytest.mark.parametrize('other, said', [
    (data('other', images=14), 'training data (12 images here, 14 images there)'),
    (data('other'), 'training data (both 12 images, other pixels or labels)'),
    (data(test='other'), 'test data (both 12 images, other pixels or labels)'),
])
def test_data_of_one_name_and_other_fingerprints_are_told_apart_in_words(
        tmp_path, capsys, other, said):
    make_run(tmp_path / 'base', 'baseline', 0.7, data=data())
    make_run(tmp_path / 'mix', 'manifoldmixup', 0.8, data=other)
    refused = refusal(capsys, tmp_path)
    assert said in refused and not re.search('[0-9a-f]{8}', refused.split('differs in')[1])


@pytest.mark.parametrize('options, cautious', [
    ({'dataset': 'pets'}, False), ({'dataset': 'pets/'}, True), ({'dataset': './pets'}, True),
    ({'dataset': 'pets', 'data_archive': 'pets.tar.gz'}, True)])
def test_where_data_are_not_recorded_their_name_counts(tmp_path, capsys, options, cautious):
    base = make_run(tmp_path / 'base', 'baseline', 0.7, dataset='pets')
    mix = make_run(tmp_path / 'mix', 'manifoldmixup', 0.8, **options)
    caution = ('Caution: matched by the name of the dataset, as their data are not recorded: '
               f'{base}, {mix}.')
    assert (caution in compare_runs(capsys, tmp_path)[0]) is cautious
    change(mix / 'run.json', lambda record: record['options'].update(dataset='dogs'))
    assert 'differs in dataset (pets here, dogs there)' in refusal(capsys, base, mix)


def test_a_run_that_does_not_record_its_data_joins_those_of_its_name(tmp_path, capsys):
    old = make_run(tmp_path / 'old', 'baseline', 0.7)
    make_run(tmp_path / 'mix-0', 'manifoldmixup', 0.8, data=data())
    make_run(tmp_path / 'base-1', 'baseline', 0.8, 1, data=data())
    make_run(tmp_path / 'mix-1', 'manifoldmixup', 0.8, 1, data=data())
    make_pair(tmp_path / 'larger', data=data('larger'), size=64)
    compare.main([str(tmp_path)])
    text = capsys.readouterr().out
    assert f'as their data are not recorded: {old}.\n' in text
    assert [len(group['rows'][0]['runs']) for group in json.loads(
        (tmp_path / 'comparison.json').read_text())['groups']] == [1, 2]


def test_a_name_that_stands_for_several_data_says_nothing_about_a_run(tmp_path, capsys):
    make_run(tmp_path / 'old', 'baseline', 0.7, 1)
    for word in ('one', 'two'):
        make_pair(tmp_path / word, data=data(word))
    make_run(tmp_path / 'mix', 'manifoldmixup', 0.7, 1, data=data('one'))
    assert 'training data (12 images here, not recorded there)' in refusal(
        capsys, tmp_path / 'mix', tmp_path / 'old', tmp_path / 'two')


def test_groups_that_differ_in_their_data_alone_have_other_titles(tmp_path, capsys):
    for word in ('one', 'two'):
        make_pair(tmp_path / word, data=data(word))
    make_pair(tmp_path / 'dogs', dataset='dogs', data=data('dogs'))
    compare.main([str(tmp_path)])
    text = capsys.readouterr().out
    for word in ('one', 'two'):
        assert ('\n## dataset cifar10, arch resnet50, epoch 3, training data 12 images '
                f'({data(word)["train"]["sha256"][:8]})\n') in text
    assert '\n## dataset dogs, arch resnet50, epoch 3\n' in text


# What it leaves out

def left_out(directory):
    """{name of the run directory: why}, which comparison.md says too."""
    found = json.loads((directory / 'comparison.json').read_text())['left_out']
    written = (directory / 'comparison.md').read_text(encoding='utf-8')
    for entry in found:
        assert f'\n\nLeft out: {entry["directory"]}, {entry["reason"]}\n\n' in written
    return {Path(entry['directory']).name: entry['reason'] for entry in found}


@pytest.mark.parametrize('length', [None, 0, 2])
def test_an_unfinished_run_and_its_partner_are_left_out_and_the_others_compared(
        three_pairs, capsys, length):
    log = three_pairs / 'mix-1' / 'log'
    if length is None:
        log.unlink()
    else:
        change(log, lambda entries: entries.__delitem__(slice(length, None)))
    _, group = compare_runs(capsys, three_pairs)
    assert group['rows'][1]['difference']['per_seed'] == pytest.approx({'0': 2.1, '2': 2.5})
    assert left_out(three_pairs) == {
        'mix-1': f'unfinished: {length or 0} of 3 epochs; go on with --resume',
        'base-1': f'its partner {three_pairs / "mix-1"} is left out'}


def test_both_mixups_of_an_unfinished_baseline_are_still_compared(three_methods, capsys):
    (three_methods / 'base-1' / 'log').unlink()
    _, group = compare_runs(capsys, three_methods)
    assert left_out(three_methods).keys() == {'base-1'}
    assert len(group['between_mixups'][0]['difference']['per_seed']) == 3


def test_a_baseline_with_another_finished_mixup_stays(three_pairs, capsys):
    make_run(three_pairs / 'input-1', 'manifoldmixup', 0.7, 1, layer_mix=[0])
    (three_pairs / 'mix-1' / 'log').unlink()
    _, group = compare_runs(capsys, three_pairs)
    assert left_out(three_pairs).keys() == {'mix-1'}
    assert [len(row['runs']) for row in group['rows']] == [3, 1, 2]


def test_an_unfinished_run_without_any_partner_does_not_disturb(three_pairs, capsys):
    make_run(three_pairs / 'next', 'baseline', 0.7, 3, accuracies=[0.5])
    compare_runs(capsys, three_pairs)
    assert left_out(three_pairs).keys() == {'next'}


def test_a_run_whose_accuracy_is_no_number_diverged_and_is_left_out(three_pairs, capsys):
    for seed, value in ((0, None), (1, float('nan'))):
        change(three_pairs / f'mix-{seed}' / 'log',
               lambda log: log[1].update({'validation/main/accuracy': value}))
    compare_runs(capsys, three_pairs)
    assert left_out(three_pairs)['mix-0'] == left_out(three_pairs)['mix-1'] == (
        'diverged: its validation accuracy in epoch 2 is no finite number')


def test_a_damaged_log_is_named_among_whole_ones(three_pairs, capsys):
    (three_pairs / 'mix-1' / 'log').write_text('[{"epoch": 1')
    compare_runs(capsys, three_pairs)
    assert left_out(three_pairs)['mix-1'].startswith(
        f'unusable: {three_pairs / "mix-1" / "log"} cannot be read as JSON (')
    assert left_out(three_pairs)['base-1'] == f'its partner {three_pairs / "mix-1"} is left out'


def test_a_damaged_record_is_named_and_with_it_what_may_have_been_its_partner(
        three_pairs, capsys):
    (three_pairs / 'mix-1' / 'run.json').write_text('{"method"')
    compare_runs(capsys, three_pairs)
    assert 'run.json cannot be read as JSON (' in left_out(three_pairs)['mix-1']
    assert left_out(three_pairs)['base-1'] == 'without a partner among the runs that can be read'


def test_a_folder_that_cannot_be_looked_into_is_named(three_pairs, capsys, monkeypatch):
    (three_pairs / 'closed').mkdir()
    scandir = os.scandir

    def closed(path):
        if path == str(three_pairs / 'closed'):
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    compare_runs(capsys, three_pairs)
    assert left_out(three_pairs) == {'closed': 'unusable: it cannot be read (Permission denied)'}


# Names from anywhere

NAMES = ['/data/犬と猫', 'قطط و كلاب', '🐶👩\u200d👩\u200d👧', 'fu\u0308r\u0489\u20dd',
         'a\nb\t\x1b[31mc\u2028', 'a\u202eb', '\0', '', '$\\frac{$', '\udcff\udcfe caf\udce9',
         'long name ' * 30, '犬' * 300]


@pytest.mark.parametrize('name', NAMES, ids=ascii)
def test_any_name_of_a_dataset_is_drawn_without_a_warning_and_written_in_one_line(
        tmp_path, capsys, name):
    make_pair(tmp_path, dataset=name)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        compare.main([str(tmp_path)])
    assert capsys.readouterr().err == ''
    lines = (tmp_path / 'comparison.md').read_bytes().decode().split('\n')
    assert lines[2].startswith('## dataset ') and lines[2].endswith(', arch resnet50, epoch 3')
    assert not re.search('[\x00-\x1f\u2028-\u202e]', lines[2])


@pytest.mark.slow
@pytest.mark.parametrize('coding', ['ascii', 'shift-jis'])
def test_no_name_is_an_error_whatever_the_terminal_shows(tmp_path, coding):
    made = make_pair(tmp_path / os.fsdecode('犬\x1b\n'.encode() + b'\xff'), dataset='犬と猫')
    make_run(made / 'next', 'baseline', 0.7, 1, accuracies=[0.5])
    done = subprocess.run([sys.executable, SCRIPT, made], capture_output=True,
                          env={'PYTHONIOENCODING': coding, 'PYTHONUTF8': '1'})
    assert done.returncode == 0 and done.stderr == b''
    text = (made / 'comparison.md').read_bytes().decode()
    assert '## dataset 犬と猫,' in text and '犬???/next, unfinished' in text


# The plot

def drawn_title(directory):
    """The title of the only panel, and the families of fonts that show it."""
    groups = compare.group_runs(compare.find_runs([directory])[0])
    figure = compare.draw(groups, [compare.summarize(group) for group in groups])
    [axis] = figure.axes
    return axis.get_title(), axis.title.get_fontfamily()


STAR_EQUAL = '\u2a6e'  # STIX has it, DejaVu Sans does not; Matplotlib brings both


def test_a_letter_that_the_default_font_lacks_is_of_one_that_has_it(tmp_path):
    make_pair(tmp_path, dataset=f'a{STAR_EQUAL}')
    title, families = drawn_title(tmp_path)
    assert title.startswith(f'dataset a{STAR_EQUAL},')
    assert families[0] == 'sans-serif' and families[1:] == ['STIXGeneral']
    font = font_manager.get_font(font_manager.findfont(
        font_manager.FontProperties(family=families[1:])))
    assert ord(STAR_EQUAL) in font.get_charmap()


def test_a_letter_that_no_font_has_is_a_question_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, 'ttflist', [
        font for font in font_manager.fontManager.ttflist if font.name == 'DejaVu Sans'])
    make_pair(tmp_path, dataset=f'a{STAR_EQUAL}e\u20dd犬')
    assert drawn_title(tmp_path) == ('dataset a???, arch resnet50, epoch 3', ['sans-serif'])


def test_other_fonts_are_opened_only_where_they_are_needed(pair, monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, 'ttflist', None)
    assert drawn_title(pair)[1] == ['sans-serif']


def test_japanese_is_shown_where_a_font_can(tmp_path):
    make_pair(tmp_path, dataset='犬と猫')
    title, families = drawn_title(tmp_path)
    if '?' in title:
        pytest.skip('no font with Japanese letters is installed')
    assert '犬と猫' in title and len(families) > 1


def test_of_a_long_name_the_plot_shows_the_end(tmp_path):
    make_pair(tmp_path, dataset='long/' * 50 + 'end')
    assert re.match('dataset ….{36}end, arch', drawn_title(tmp_path)[0])


def has_colour(picture, name):
    return (np.abs(picture[..., :3] - colors.to_rgb(name)).max(axis=-1) < 0.02).sum() > 50


def test_the_plot_shows_a_curve_for_each_row_in_each_panel(tmp_path, capsys):
    for size in (64, 128, 256):
        make_run(tmp_path / f'b{size}', 'baseline', 0.7, batchsize=size)
        make_run(tmp_path / f'm{size}', 'manifoldmixup', 0.8, batchsize=size)
        make_run(tmp_path / f'i{size}', 'manifoldmixup', 0.75, batchsize=size, layer_mix=[0])
    compare.main([str(tmp_path)])
    content = (tmp_path / 'comparison.png').read_bytes()
    assert content.startswith(b'\x89PNG\r\n\x1a\n')
    picture = image.imread(io.BytesIO(content), format='png')
    middle, centre = picture.shape[0] // 2, picture.shape[1] // 2
    panels = [picture[:middle, :centre], picture[:middle, centre:], picture[middle:, :centre]]
    for panel in panels:
        assert all(has_colour(panel, colour) for colour, *_ in COLOURS.values())
    assert (picture[middle:, centre:, :3] > 0.99).all()  # no fourth group


def test_a_row_has_its_method_s_colours_and_in_each_panel_the_same_line():
    groups = [[('baseline', 0), ('input mixup', 1), ('Manifold Mixup', 2)],
              [('baseline', 0), ('Manifold Mixup', 2), ('Manifold Mixup', 3),
               ('Manifold Mixup', 4), ('Manifold Mixup', 5)]]
    found = looks([{f'{method} {alpha}': [types.SimpleNamespace(method=method)]
                    for method, alpha in group} for group in groups])
    assert len(set(found.values())) == len(found) == 6
    for name, (colour, style) in found.items():
        assert colour in COLOURS[name[:-2]] and (style == '--') == name.startswith('baseline')
    assert found['Manifold Mixup 2'][0] == COLOURS['Manifold Mixup'][0]
    assert found['Manifold Mixup 5'] == (COLOURS['Manifold Mixup'][0], '-.')


def test_the_plot_holds_mean_band_and_last_value_with_names_and_units(three_pairs):
    groups = compare.group_runs(compare.find_runs([three_pairs])[0])
    figure = compare.draw(groups, [compare.summarize(group) for group in groups])
    [axis] = figure.axes
    assert axis.get_title() == 'dataset cifar10, arch resnet50, epoch 3'
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('epoch', 'validation accuracy (%)')
    baseline, _, mixup, _ = axis.lines  # each curve is followed by its last point
    np.testing.assert_allclose(baseline.get_ydata(), [30, 50, 100 * np.mean(BASELINE)])
    np.testing.assert_allclose(mixup.get_ydata(), [30, 50, 100 * np.mean(MIXUP)])
    last = [band.get_paths()[0].vertices for band in axis.collections]
    assert [points[points[:, 0] == 3][:, 1].max() for points in last] == pytest.approx(
        [100 * max(BASELINE), 100 * max(MIXUP)])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        'baseline: 78.57 ± 0.55 %', 'Manifold Mixup (alpha 0.2, layers 0–5): 80.57 ± 0.50 %']


def test_one_epoch_of_equal_runs_and_a_title_like_a_formula_can_be_drawn(tmp_path):
    for method in SCRIPTS:
        make_run(tmp_path / method, method, None, accuracies=[0.1], epoch=1, dataset='$a_$b^$')
    compare.main([str(tmp_path)])
    assert (tmp_path / 'comparison.png').stat().st_size > 5000


# What it refuses

def test_a_run_without_a_partner_names_the_option_in_which_the_nearest_differs(pair, capsys):
    make_run(pair / 'other', 'manifoldmixup', 0.7, batchsize=256)
    make_run(pair / 'far', 'baseline', 0.7, batchsize=512, learnrate=0.5)
    said = refusal(capsys, pair / 'base', pair / 'far', pair / 'other')
    assert f'{pair / "base"} (baseline, seed 0) has no Manifold Mixup partner' in said
    assert f'{pair / "other"}, differs in batchsize (128 here, 256 there); train' in said


def test_a_seed_without_a_partner_is_named(pair, capsys):
    make_run(pair / 'mix-7', 'manifoldmixup', 0.7, seed=7)
    said = refusal(capsys, pair)
    assert 'mix-7' in said and 'differs in seed (7 here, 0 there)' in said


def test_an_unknown_option_counts(pair, capsys):
    change(pair / 'mix' / 'run.json', lambda record: record['options'].update(colour='grey'))
    assert 'differs in colour (not recorded here, grey there)' in refusal(capsys, pair)


def test_the_same_setting_and_seed_twice_names_both_directories(pair, capsys):
    again = make_run(pair / 'again', 'manifoldmixup', 0.7, layer_mix=[0, 1, 2, 3, 4, 5])
    said = refusal(capsys, pair)
    assert f'{again} and {pair / "mix"}' in said or f'{pair / "mix"} and {again}' in said
    assert 'the same seed, 0' in said


@pytest.mark.parametrize('given, script', [('base', 'train_manifoldmixup.py'),
                                           ('mix', 'train_baseline.py')])
def test_runs_of_one_method_alone_are_no_comparison(pair, capsys, given, script):
    said = refusal(capsys, pair / given)
    assert said.startswith('compare.py: error: only ') and script in said


def test_no_directory_and_a_directory_without_runs(tmp_path, capsys):
    assert 'nowhere is not a directory that can be read (No such file' in refusal(
        capsys, tmp_path / 'nowhere')
    assert 'holds no run' in refusal(capsys, tmp_path)


@pytest.mark.parametrize('length', [0, 2])
def test_where_nothing_is_left_to_compare_the_unfinished_run_is_named(pair, capsys, length):
    change(pair / 'mix' / 'log', lambda log: log.__delitem__(slice(length, None)))
    said = refusal(capsys, pair)
    assert said.startswith('compare.py: error: nothing is left to compare; left out: ')
    assert f'{pair / "mix"}, unfinished: {length} of 3 epochs; go on with --resume; ' in said
    assert f'{pair / "base"}, its partner {pair / "mix"} is left out' in said


@pytest.mark.parametrize('content', [
    b'', b'[{"epoch": 1', b'{}', b'[1]', b'null', b'\xff', pytest.param(b'[' * 99999, id='deep')])
def test_a_malformed_log_is_named(pair, capsys, content):
    (pair / 'mix' / 'log').write_bytes(content)
    assert str(pair / 'mix' / 'log') in refusal(capsys, pair)


@pytest.mark.parametrize('key, value, said', [
    ('validation/main/accuracy', 71.3, 'is 71.3, but a number from 0 to 1 is needed'),
    ('validation/main/accuracy', True, 'is True'),
    ('elapsed_time', '12 s', "is '12 s'"),
    ('elapsed_time', float('inf'), 'is None'),
    ('elapsed_time', 10 ** 400, 'is 10000'),
    ('epoch', 1, 'is 1, but each from 1 to 3 once is needed'),
])
def test_a_log_entry_that_is_no_measurement_is_named(pair, capsys, key, value, said):
    change(pair / 'mix' / 'log', lambda log: log[1].update({key: value}))
    assert f'{pair / "mix" / "log"}, entry 2: {key} {said}' in refusal(capsys, pair)


def test_a_log_entry_without_accuracy_and_a_log_longer_than_the_run(pair, capsys):
    for run in ('base', 'mix'):
        change(pair / run / 'run.json', lambda record: record['options'].update(epoch=2))
    assert 'entry 3: epoch is 3, but each from 1 to 2 once' in refusal(capsys, pair)
    change(pair / 'mix' / 'log', lambda log: log[0].pop('validation/main/accuracy'))
    assert 'entry 1: validation/main/accuracy is missing' in refusal(capsys, pair)


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"options": 3}', '{"method": "baseline"}'])
def test_a_malformed_record_is_named(pair, capsys, content):
    (pair / 'mix' / 'run.json').write_text(content)
    assert str(pair / 'mix' / 'run.json') in refusal(capsys, pair)


@pytest.mark.parametrize('option, value', [
    ('seed', None), ('seed', 1.5), ('epoch', 0), ('epoch', '3'), ('mixup_alpha', 'strong'),
    ('validate_on', None),
    ('lam_per', 'image'), ('lam_per', ['batch']), ('lam_per', None),
    ('layer_mix', 'all'), ('layer_mix', []), ('layer_mix', [0.5]), ('layer_mix', None)])
def test_an_option_that_cannot_be_read_is_named(pair, capsys, option, value):
    change(pair / 'mix' / 'run.json', lambda record: record['options'].update({option: value}))
    assert f'run.json: {option} is {value!r}, but ' in refusal(capsys, pair)


@pytest.mark.parametrize('value', [
    None, [], {}, {**data(), 'train': [1]}, {'train': data()['train']}, {**data(), 'test': None},
    {**data(), 'test': {'images': 12}}, {**data(), 'test': {**data()['test'], 'sha256': 'abc'}},
    {**data(), 'test': {**data()['test'], 'images': '12'}}])
def test_a_malformed_record_of_the_data_is_named(pair, capsys, value):
    change(pair / 'mix' / 'run.json', lambda record: record.update(data=value))
    said = refusal(capsys, pair)
    assert f'{pair / "mix" / "run.json"}: data is ' in said
    assert 'but a record of images and sha256 for train and test is needed' in said


@pytest.mark.parametrize('method', ['cutmix', None, [], {}])
def test_an_unknown_method_is_named(pair, capsys, method):
    change(pair / 'mix' / 'run.json', lambda record: record.update(method=method))
    assert f'method is {method!r}, but baseline or manifoldmixup' in refusal(capsys, pair)


def test_a_command_line_without_runs_or_with_an_unknown_option(pair, capsys):
    assert 'required: RUN; see --help' in refusal(capsys)
    assert 'unrecognized arguments: --plot' in refusal(capsys, pair, '--plot')


def test_an_output_directory_that_cannot_be_written(pair, capsys):
    said = refusal(capsys, pair, '--out', pair / 'mix' / 'log')
    assert f'{pair / "mix" / "log"} cannot be written' in said and '--out' in said


def test_a_disk_that_is_full_and_memory_that_runs_out(pair, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', full)
        assert f'{pair} cannot be written (No space left on device): ' in refusal(capsys, pair)

    def large(group):
        raise MemoryError

    monkeypatch.setattr(compare, 'summarize', large)
    assert 'memory ran out: give fewer runs' in refusal(capsys, pair)


@pytest.mark.slow
def test_a_closed_pipe_ends_it_in_silence_and_a_full_device_in_one_line(pair):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, SCRIPT, pair], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b'')
    assert (pair / 'comparison.md').exists()
    with open('/dev/full', 'w') as device:
        done = subprocess.run([sys.executable, SCRIPT, pair], stdout=device,
                              stderr=subprocess.PIPE)
    assert done.returncode == 2 and done.stderr.count(b'\n') == 1
    assert b'standard output cannot be written (No space left on device)' in done.stderr
    done = subprocess.run(['sh', '-c', '"$@" >&-', 'sh', sys.executable, SCRIPT, pair],
                          stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b'')


RESULTS = sorted(Path(__file__).parents[1].glob('results/*/comparison.md'))


def settings(directory):
    groups = json.loads((directory / 'comparison.json').read_text())['groups']
    return [group['setting'] for group in groups]


@pytest.mark.parametrize('published', RESULTS, ids=lambda path: path.parent.name)
def test_a_published_comparison_is_that_of_the_runs_beside_it(published, tmp_path):
    compare.main([str(published.parent), '--out', str(tmp_path)])
    assert (tmp_path / 'comparison.md').read_text() == published.read_text()
    assert settings(tmp_path) == settings(published.parent)
