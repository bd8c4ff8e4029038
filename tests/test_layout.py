"""Who imports whom."""
import ast
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = {'mixup', 'model', 'experiment', 'engine', 'install', 'benchmarks', 'compare',
        'comparison', 'tests', 'train_baseline', 'train_manifoldmixup'}

# Part of the house, what of ours it may import, what of others (None: anything).
RULES = [
    ('mixup.py', set(), {'chainer', 'numpy'}),
    ('model', {'mixup', 'model'}, {'chainer', 'numpy', 'collections'}),
    ('train_baseline.py', {'mixup', 'model', 'experiment'}, {'chainer'}),
    ('train_manifoldmixup.py', {'mixup', 'model', 'experiment'}, {'chainer'}),
    ('engine', {'engine'}, None),
    ('experiment', {'experiment', 'engine'}, None),
    ('compare.py', {'comparison'}, None),
    ('comparison', {'comparison'}, None),
]


def sources(part):
    path = os.path.join(ROOT, part)
    if part.endswith('.py'):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path)
            for name in names if name.endswith('.py')]


def imported(path):
    """Top-level names of the modules that a file imports, anywhere in it."""
    with open(path) as file:
        tree = ast.parse(file.read())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names.add(node.module.split('.')[0])
    return names


@pytest.mark.parametrize('part, ours, others', RULES)
def test_imports_keep_their_direction(part, ours, others):
    found = set().union(*(imported(path) for path in sources(part)))
    assert found & OURS <= ours
    if others is not None:
        assert found - OURS <= others


@pytest.mark.parametrize('part', ['compare.py', 'comparison'])
def test_the_comparison_reads_files_and_never_chainer(part):
    for path in sources(part):
        assert not imported(path) & {'chainer', 'chainercv', 'cupy'}
