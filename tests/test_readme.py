"""What the documents say about the code holds: names, links, defaults and figures.

A failure about a table shows the line that the records give, so that it can be pasted.
"""
import contextlib
import functools
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import chainer
import numpy as np
import pytest

from experiment.optimizer import OPTIMIZERS
from experiment.recipes import RECIPES, text
from experiment.supported_python import NEWEST, OLDEST
from mixup import ManifoldMixupClassifier
from tests.test_layout import RULES

ROOT = Path(__file__).resolve().parent.parent
FRONT_PAGES = 'README.md', 'README.ja.md'
DOCUMENTS = (*FRONT_PAGES, 'CONTRIBUTING.md', 'engine/README.md', 'install/README.md')
MOST_WORDS = 1100  # of README.md
# Files that CONTRIBUTING.md has the reader write, and files of the blog post.
EXAMPLES = {'model/tiny.py', 'engine/cpu/X.py', 'engine/gpu/X.py', 'engine/gpu/X.cu'}
OF_THE_POST = {'train_resnet.py', 'model/resnet_fine_manifoldmixup.py'}

PROGRAMS = ('train_baseline.py', 'train_manifoldmixup.py', 'compare.py', 'experiment/grid.py',
            'benchmarks/gpu_check.py')


def read(document):
    return (ROOT / document).read_text(encoding='utf-8')


def code(text):
    """The code of a document: the blocks, indented or fenced, and what stands in backticks."""
    rest = without_fenced(text)
    indented = re.findall(r'(?<=\n\n)((?: {4}.*\n)+)', rest)
    return [*fenced(text), *indented, *re.findall(r'`([^`\n]+)`', rest)]


FENCED = re.compile(r'^( *)```\w*\n(.*?)^\1```', re.MULTILINE | re.DOTALL)


def fenced(text):
    """The fenced blocks of code of a document."""
    return [textwrap.dedent(block) for _, block in FENCED.findall(text)]


def without_fenced(text):
    return FENCED.sub('', text)


def commands(text):
    """The lines of the code of a document, without their comments."""
    return [re.sub(r'\s#.*', '', each).strip() for block in code(text)
            for each in block.splitlines()]


def tables(text):
    """The tables of a document: lists of rows of cells, without the line below the head."""
    return [[[cell.strip() for cell in row.strip()[1:-1].split('|')] for row in table.splitlines()
             if not re.fullmatch(r'[| :]*-[| :-]*', row)]
            for table in re.findall(r'^((?:\|.*\|\n)+)', text, re.MULTILINE)]


@functools.cache
def help_of(program):
    """What a program prints with --help, on one line."""
    text, argv = io.StringIO(), sys.argv
    sys.argv = [program, '--help']
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            runpy.run_path(str(ROOT / program), run_name='__main__')
    finally:
        sys.argv = argv
    return ' '.join(text.getvalue().split())


def options(program):
    """The options that a program lists with --help."""
    found = {'--help', *re.findall(r'--[a-z][a-z-]*', help_of(program))}
    assert len(found) > 1, f'{program} --help lists no options'
    return found


# Links

def anchors(document):
    """The anchors of a document's headings, as GitHub makes them."""
    text = without_fenced(read(document))
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
            for heading in re.findall(r'^#+ +(.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('document', DOCUMENTS)
def test_links_lead_to_files_and_headings_that_exist(document):
    for link in re.findall(r'\]\(([^)\s]+)\)', read(document)):
        if re.match(r'https?://', link):
            continue
        path, _, anchor = link.partition('#')
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT)), link


def test_front_pages_link_to_each_other_and_to_the_same_places():
    english, japanese = map(read, FRONT_PAGES)
    assert '](README.ja.md)' in english and '](README.md)' in japanese

    def links(text):
        return {link for link in re.findall(r'\]\(([^)\s]+)\)', text)
                if not link.startswith(('#', 'README'))}
    assert links(english) == links(japanese)


# Names

@pytest.mark.parametrize('document', DOCUMENTS)
def test_files_that_are_named_exist(document):
    folders = 'model', 'experiment', 'engine', 'install', 'benchmarks', 'results', 'tests'
    text = '\n'.join(code(read(document)))
    named = re.findall(rf'(?<![\w./-])((?:{"|".join(folders)})/[\w./-]*[\w/]'
                       r'|[\w-]+\.py|requirements[\w-]*\.txt|pyproject\.toml)(?![\w*])', text)
    for name in set(named) - EXAMPLES - OF_THE_POST:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize('document', DOCUMENTS)
def test_make_targets_that_are_named_exist(document):
    named = {target for command in commands(read(document))
             for target in re.findall(r'\bmake ([a-z][a-z-]*)', command)}
    rules = re.findall(r'^([^\s:=#][^:=]*):(?!=)', read('Makefile'), re.MULTILINE)
    assert named <= {target for rule in rules for target in rule.split()}


@pytest.mark.parametrize('document', DOCUMENTS)
def test_variables_of_make_that_are_named_exist(document):
    named = {name for command in commands(read(document))
             for name in re.findall(r'(?:^|\s)([A-Z]{2,})=', command)}
    for name in named:
        assert re.search(rf'\b{name}\b', read('Makefile')), name


@pytest.mark.parametrize('document', DOCUMENTS)
def test_options_that_are_named_exist(document):
    every = set().union(*map(options, PROGRAMS))
    for command in commands(read(document)):
        if re.search(r'\b(pip|git|pytest) ', command):
            continue
        program = re.match(r'\S*python (\w+\.py)\b', command)
        named = set(re.findall(r'(?<![\w-])--[a-z][a-z-]*', command))
        assert named <= (options(program[1]) if program else every), command


@pytest.mark.parametrize('document', DOCUMENTS)
def test_modules_that_are_run_exist(document):
    for command in commands(read(document)):
        for module in re.findall(r'python -m ([a-z]\w*\.\w+)', command):
            assert (ROOT / module.replace('.', '/')).with_suffix('.py').exists(), module


@pytest.mark.parametrize('document', FRONT_PAGES)
def test_names_on_the_front_pages_are_those_of_the_code(document):
    mixup, resnet50 = read('mixup.py'), read('model/resnet50.py')
    text = read(document)
    for name, source in (
            ('mixup_data', mixup), ('ManifoldMixupNetwork', mixup),
            ('ManifoldMixupClassifier', mixup), ('BaseResNet50', resnet50), ('ResNet50', resnet50)):
        assert f'`{name}`' in text
        assert re.search(rf'^(class|def) {name}\b', source, re.MULTILINE), name


def test_supported_pythons_are_the_same_everywhere():
    (_, first), (_, last) = OLDEST, NEWEST
    on_gpu = re.search(r'^NEWEST = 3, (\d+)', read('install/gpu.py'), re.MULTILINE)[1]
    for document in 'README.md', 'README.ja.md', 'install/README.md', 'requirements.txt':
        ranges = re.findall(r'Python 3\.(\d+)(?: to |〜|から)3\.(\d+)', read(document))
        assert ranges and set(ranges) == {(str(first), str(last))}, document
    for document in 'install/README.md', 'requirements-gpu.txt':
        assert f'up to 3.{on_gpu}' in read(document)
    for package in 'chainer', 'chainercv':
        edits = read(f'install/{package}/edits.toml')
        assert f"python_requires='>=3.{first},<3.{last + 1}'" in edits
    assert f'target-version = "py3{first}"' in read('pyproject.toml')
    workflow = read('.github/workflows/tests.yml')
    assert re.search(r'python: \[(.*)\]', workflow)[1] == \
        ', '.join(f'"3.{minor}"' for minor in range(first, last + 1))


# Length

def test_the_front_page_is_short():
    assert len(read('README.md').split()) <= MOST_WORDS


# Defaults of the recipes

def values(cell):
    """What stands in backticks or begins an item of a cell; numbers as floats."""
    cell = re.sub(r'\([^)]*\)|（[^）]*）|\[[^\]]*\]', '', cell).strip()
    found = re.findall(r'`([^`]+)`|(?:^|, )([\w.-]+)', cell)
    return [quoted or number(word) for quoted, word in found]


def number(word):
    """A word as a float, if it is one."""
    with contextlib.suppress(ValueError):
        return float(word)
    return word


@pytest.mark.parametrize('document', FRONT_PAGES)
def test_defaults_of_the_recipes_are_those_of_the_options(document):
    (head, *rows), = [table for table in tables(read(document)) if '--recipe' in ''.join(table[0])]
    recipes = [re.search(r'--recipe (\w+)', cell)[1] for cell in head[1:]]
    assert recipes == list(RECIPES)
    told = set()
    for first, *cells in rows:
        names = [name.replace('-', '_') for name in re.findall(r'--([a-z-]+)', first)]
        told.update(names)
        for recipe, cell in zip(recipes, cells, strict=True):
            assert values(cell)[:len(names)] == [default(recipe, name) for name in names], first
    assert told >= set().union(*RECIPES.values())


def default(recipe, name):
    """What an option is under a recipe where neither it nor another one is given."""
    chosen = RECIPES[recipe]
    if name == 'learnrate':
        return OPTIMIZERS[chosen['optimizer']]
    if name == 'normalize':
        return 'standard' if chosen['augment'] == 'standard' else 'unit'
    return number(text(chosen[name]))


@pytest.mark.parametrize('document', FRONT_PAGES)
def test_defaults_of_the_mixup_are_those_of_the_options(document):
    text = help_of('train_manifoldmixup.py').partition('mixup: ')[2]
    for option in '--lam-per', '--loss':  # the others are in the table of the recipes
        default = re.search(rf'{option} .*?\(default: ([^) ]*)', text)[1]
        assert re.search(rf'`{option}`[ （(]+`{default}`', read(document))


def test_the_demo_is_as_long_as_told():
    seeds, epochs = re.search(r'^demo:.*?--seeds ([\d ]+) .*?--epoch (\d+)', read('Makefile'),
                              re.MULTILINE | re.DOTALL).groups()
    words = {1: 'one', 2: 'two', 3: 'three', 4: 'four', 5: 'five'}
    told = f'{words[int(epochs)]} epochs with {words[len(seeds.split())]} seed'
    assert told.capitalize() in ' '.join(read('README.md').split())
    assert f'{len(seeds.split())}シード、{epochs}エポック' in read('README.ja.md')


# Tables of results

COLUMNS = {
    'method': 'method', '手法': 'method', 'seeds': 'seeds', 'シード数': 'seeds',
    'accuracy %': 'accuracy_last_epoch', '正解率 %': 'accuracy_last_epoch',
    'error %': 'error_last_epoch', '誤り率 %': 'error_last_epoch',
    'best* accuracy %': 'accuracy_best_epoch',
    'best* error %': 'error_best_epoch',
    'difference [95 % interval]': 'difference', '差 [95 %信頼区間]': 'difference',
    's/epoch': 'seconds_per_epoch'}


def shown(row, column):
    """A cell of compare.py's table, from a row of its comparison.json."""
    if column == 'method':
        return row['name']
    if column == 'seeds':
        return str(len(row['runs']))
    if column == 'difference':
        if not (difference := row.get('difference')):
            return '–'
        interval = difference['interval_95']
        return f'{difference["mean"]:+.2f} ' + (
            '[one pair: none]' if interval is None else '[{:+.2f}, {:+.2f}]'.format(*interval))
    value = row[column]
    if column == 'seconds_per_epoch':
        return f'{value["mean"]:.1f}'
    return f'{value["mean"]:.2f}' + ('' if value['std'] is None else f' ± {value["std"]:.2f}')


def line(cells):
    return '| ' + ' | '.join(cells) + ' |'


def recorded(path):
    """The rows of one comparison.json."""
    groups = json.loads(path.read_text(encoding='utf-8'))['groups']
    return [row for group in groups for row in group['rows']]


def tables_of_results(text):
    """(columns, rows of cells) of each table that has a row for each method."""
    for head, *rows in tables(text):
        if COLUMNS.get(head[0]) == 'method':
            yield [COLUMNS[name] for name in head], rows  # a KeyError: enter the column above


RECORDS = sorted(ROOT.glob('results/*/comparison.json'))


@pytest.mark.parametrize('document', FRONT_PAGES)
def test_tables_of_results_are_those_of_the_records(document):
    for columns, rows in tables_of_results(read(document)):
        known = [[shown(row, column) for column in columns]
                 for path in RECORDS for row in recorded(path)]
        for row in rows:
            assert row in known, '\n'.join(
                [f'{line(row)} is in no results/*/comparison.json, which give', *map(line, known)])


def test_both_front_pages_show_the_same_results():
    english, japanese = ([(columns, rows) for columns, rows in tables_of_results(read(document))]
                         for document in FRONT_PAGES)
    assert english == japanese


@pytest.mark.parametrize('path', RECORDS, ids=lambda path: path.parent.name)
def test_a_recorded_table_is_that_of_its_record(path):
    found = list(tables_of_results(path.with_suffix('.md').read_text(encoding='utf-8')))
    assert [row for _, rows in found for row in rows] == [
        [shown(row, column) for column in found[0][0]] for row in recorded(path)]


# The table of speed

NETWORKS = {'resnet50-imagenet': "ResNet-50, ImageNet's stem",
            'resnet50-cifar': "ResNet-50, CIFAR's stem", 'preactresnet18': 'PreActResNet-18',
            'resnet18-cifar': "ResNet-18, CIFAR's stem", 'wrn28-10': 'WRN-28-10'}
ON_CPU = 'results/bench/training_step-cpu.json'


def row_of(measured):
    """The row of the table for one row of the benchmark's record."""
    network = NETWORKS[measured['case']]
    chainer, engine, pytorch = (
        min((result for name, result in measured['results'].items() if name.startswith(kinds)),
            key=lambda result: result.get('ms', math.inf))
        for kinds in ('chainer', 'engine', ('pytorch', 'compile')))
    cells = [f'{r["ms"] / 1e3:.2f} s, {r["peak_mib"]:,} MiB' for r in (chainer, engine, pytorch)]
    return [f'{network}, batch {measured["batch"]}', *cells, f'{pytorch["ms"] / engine["ms"]:.2f}']


def test_the_table_of_speed_is_that_of_the_record():
    record = json.loads(read(ON_CPU))
    found = next(rows for head, *rows in tables(read('engine/README.md')) if 'PyTorch' in head)
    expected = [row_of(measured) for measured in record['rows']]
    assert found == expected, '\n'.join([f'{ON_CPU} gives', *map(line, expected)])


def test_the_machine_of_the_table_of_speed_is_that_of_the_record():
    machine, text = json.loads(read(ON_CPU))['made_by'], ' '.join(read('engine/README.md').split())
    numbers = {1: 'one core', 2: 'two cores', 4: 'four cores', 8: 'eight cores'}
    assert f'{numbers[machine["cores"]]} of an {machine["device"]}' in text
    assert f'NumPy {machine["numpy"]}' in text
    assert f'PyTorch {machine["torch"].partition("+")[0]}' in text


CONTESTANTS = {
    'this engine, `--autotune`': 'engine graph autotune', 'this engine': 'engine graph',
    'this engine, `--graph off`': 'engine', 'Chainer as it is': 'chainer',
    'PyTorch, `torch.compile`, the whole step as one CUDA graph': 'compile graph',
    'PyTorch, the whole step as one CUDA graph': 'pytorch graph',
    'PyTorch, eager': 'pytorch channels-last'}
ON_GPU = 'results/bench/training_step-h100.json'


def test_the_table_of_speed_on_a_gpu_is_that_of_the_record():
    record, text = json.loads(read(ON_GPU)), ' '.join(read('engine/README.md').split())
    head, *rows = next(table for table in tables(read('engine/README.md'))
                       if table[1][0] in CONTESTANTS)
    measured = [next(row['results'] for row in record['rows']
                     if NETWORKS[row['case']] == network and row['batch'] == 128)
                for network in head[1:]]
    expected = [[label, *('{ms:.2f} ms, {peak_mib:,} MiB'.format(**results[name])
                          if name in results else 'not measured' for results in measured)]
                for label, name in CONTESTANTS.items()]
    assert sorted(rows) == sorted(expected), '\n'.join([f'{ON_GPU} gives', *map(line, expected)])
    machine, epoch = record['made_by'], record['epoch']
    for told in (machine['device'], f'CuPy {machine["cupy-cuda13x"]}', f'cuDNN {machine["cudnn"]}',
                 f'PyTorch {machine["torch"]}', f'takes {epoch["seconds"]:.2f} s'):
        assert told in text


# Who may import whom

def test_import_rules_are_those_that_are_tested():
    expected = {part: ours for part, ours, _ in RULES}
    head, *rows = next(table for table in tables(read('CONTRIBUTING.md')) if 'of ours' in table[0])
    told = {part: set(re.findall(r'`([\w.]+)`', ours))
            for parts, ours, _ in rows for part in re.findall(r'`([\w.]+)`', parts)}
    assert told == expected


# The examples of CONTRIBUTING.md

def example(file):
    """The block of code that is to be put into a file, whose path is its first line."""
    return next(block for block in fenced(read('CONTRIBUTING.md'))
                if block.split('\n', 1)[0].lstrip('#/ ') == file)


def test_the_example_of_a_network_trains_with_every_layer():
    network = {}
    exec(example('model/tiny.py'), network)
    np.random.seed(0)
    model = ManifoldMixupClassifier(network['Tiny'](10))
    optimizer = chainer.optimizers.Adam().setup(model)
    x, t = np.random.rand(4, 3, 32, 32).astype('f'), np.arange(4, dtype='i')
    assert len(model.predictor.stages) == len(model.predictor.layers)
    for layer in model.predictor.layers:
        before = model.predictor.conv1.W.array.copy()
        optimizer.update(model, x, t, .5, layer)
        assert (model.predictor.conv1.W.array != before).any()
    with chainer.using_config('train', False):
        assert model.predictor(x).shape == (4, 10)


CHANGED = ('engine/functions.py', 'engine/cpu/activation.py', 'engine/gpu/activation.py',
           'engine/gpu/activation.cu', 'tests/test_operations.py')


def pass_with_the_example_of_an_operation(folder, *arguments):
    """Whether the example's test passes in a copy of the code to which the example was added."""
    for part in 'engine', 'experiment', 'model', 'tests':
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns('__pycache__'))
    for part in 'mixup.py', 'pyproject.toml':
        shutil.copy(ROOT / part, folder)
    for file in CHANGED:
        with open(folder / file, 'a', encoding='utf-8') as opened:
            opened.write('\n\n' + example(file))
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/test_operations.py',
         '-k', 'leaky', *arguments], cwd=folder, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items()
             if not name.startswith('PYTEST_')})  # it is no worker of the pytest that runs this
    return done.returncode == 0 or done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
def test_the_example_of_an_operation_works_on_a_cpu(tmp_path):
    assert pass_with_the_example_of_an_operation(tmp_path) is True


@pytest.mark.gpu
def test_the_example_of_an_operation_works_on_a_gpu(tmp_path):
    assert pass_with_the_example_of_an_operation(tmp_path, '-m', 'gpu') is True
