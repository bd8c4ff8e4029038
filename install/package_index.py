"""Asks pip for Chainer's sdist; make runs this first, to end soon where there is no index.

    .venv/bin/python install/package_index.py
"""
import subprocess
import sys
from pathlib import Path

from edited_release import explain, read


def main():
    release, _ = read(Path(__file__).resolve().parent / 'chainer' / 'edits.toml')
    asked = subprocess.run(
        [sys.executable, '-m', 'pip', '--retries', '1', 'index', 'versions', release['name'],
         '--no-binary', release['name']],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    # Another failure is left to the installation: pip may change this command.
    if asked.returncode and 'No matching distribution' in asked.stdout:
        print('{} cannot be fetched: {}'.format(release['name'], explain(asked.stdout)),
              file=sys.stderr)
        raise SystemExit(2)


if __name__ == '__main__':
    main()
