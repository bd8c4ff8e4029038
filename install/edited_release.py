"""Builds a wheel of an official release with a few edits: the PEP 517 backend of both folders.

Each folder holds an `edits.toml`: which release, the hash of its sdist, and the edits, each with
its reason. pip and uv call `build_wheel` in that folder; nothing is written there.
"""
import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

SUPPORTED = [(3, 11), (3, 12), (3, 13)]


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
    if sys.version_info[:2] not in SUPPORTED:
        sys.exit(
            'Python {}.{} is not supported: the edits that make this release work were tested on '
            'Python {} only. Please install with one of these.'.format(
                *sys.version_info[:2], ', '.join('{}.{}'.format(*v) for v in SUPPORTED)))
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
        errors = [line.strip() for line in pip.stdout.splitlines() if 'error' in line.lower()]
        sys.exit(
            'The sdist of {} could not be fetched: pip says "{}". A network connection to a '
            'package index is needed here, or PIP_FIND_LINKS naming a folder with the sdist. '
            "pip's configuration and its PIP_* variables for index, proxy and certificates hold, "
            'options on the command line do not.'.format(name, (errors or ['nothing'])[0]))
    sdist, = directory.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = lambda member, path: member  # its hash was verified
        archive.extractall(directory)
    return directory / sdist.name.removesuffix('.tar.gz')


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
