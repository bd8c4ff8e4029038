"""Builds a wheel of an official release with a few edits: the PEP 517 backend of both folders.

Each folder holds an `edits.toml`: which release, the hash of its sdist, and the edits, each with
its reason. pip and uv call `build_wheel` in that folder; nothing is written there.
"""
import contextlib
import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

SUPPORTED_PYTHON = Path(__file__).resolve().parent.parent / 'experiment' / 'supported_python.py'


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    release, edits = read(Path('edits.toml'))
    with tempfile.TemporaryDirectory() as directory:
        source = fetch(release, Path(directory))
        for edit in edits:
            apply(edit, source)
        return build(source, wheel_directory)


def build_sdist(sdist_directory, config_settings=None):
    sys.exit('This folder only builds a wheel; the sdist is the official one that it fetches.')


def read(path):
    runpy.run_path(str(SUPPORTED_PYTHON))  # refuses any other
    import tomllib  # new in Python 3.11
    contents = tomllib.loads(path.read_text(encoding='utf-8'))
    return contents['release'], contents['edit']


def fetch(release, directory):
    """The unpacked sdist. pip verifies the hash before anything of the sdist runs."""
    name = '{name}=={version}'.format(**release)
    requirement = directory / 'requirement.txt'
    requirement.write_text('{} --hash=sha256:{}\n'.format(name, release['sha256']))
    # Some of the variables tell this build where its backend is: pip below looks for another one.
    environment = {variable: value for variable, value in os.environ.items()
                   if not variable.startswith(('_PYPROJECT_HOOKS_', 'PEP517_'))}
    pip = subprocess.run(
        [sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', release['name'],
         '--no-build-isolation', '--require-hashes', '-r', requirement, '-d', directory],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors='replace')
    if 'DO NOT MATCH THE HASHES' in pip.stdout:
        sys.exit(
            'The sdist of {} that the package index served is not the official one: its SHA-256 '
            'is not {}. Nothing of it was run. Look at the index or mirror that pip is set to '
            '(`pip config list`).'.format(name, release['sha256']))
    if pip.returncode:
        sys.exit(f'The sdist of {name} could not be fetched: {explain(pip.stdout)}')
    sdist, = directory.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = lambda member, path: member  # its hash was verified
        archive.extractall(directory)
    return directory / sdist.name.removesuffix('.tar.gz')


def explain(output):
    """What pip says of its failure, and what helps where it found no index or no sdist there."""
    lines = [line.strip() for line in output.splitlines()]
    broken = [line for line in lines if 'connection broken' in line]
    errors = [line for line in lines if line.lower().startswith('error')]
    said = 'pip says "{}".'.format((broken[:1] or errors[-1:] or ['nothing'])[0])
    if not broken and 'No matching distribution' not in output:
        return said
    return said + (
        ' Needed is a package index within reach (PIP_INDEX_URL or pip.conf names it; options on '
        'the command line do not count), or PIP_FIND_LINKS naming a folder with the sdist; '
        'make PYTHON=/path/to/python uses an interpreter as it is, without a network.')


def apply(edit, source):
    path = source / edit['file']
    text = path.read_text(encoding='utf-8')
    count = text.count(edit['old'])
    if count != 1:
        sys.exit(
            'An edit does not fit: in {file} this text was to occur once and occurs {} times.\n'
            '{old}'.format(count, **edit))
    path.write_text(text.replace(edit['old'], edit['new']), encoding='utf-8')


def build(source, wheel_directory):
    from setuptools import build_meta
    # An old setup.py brings deprecation warnings, which pip would show.
    with contextlib.chdir(source), warnings.catch_warnings(action='ignore'):
        return build_meta.__legacy__.build_wheel(wheel_directory)
