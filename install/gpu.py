"""Completes .venv with requirements-gpu.txt, for the CUDA that the driver names; make runs it.

    .venv/bin/python install/gpu.py             # where the driver shows a GPU
    .venv/bin/python install/gpu.py --always

What is installed stays: a driver for CUDA 13 runs CUDA 12's packages.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements-gpu.txt'
NEWEST = 3, 14  # the newest Python that CuPy has wheels for
INSTALLED = Path(sys.prefix) / 'requirements-gpu.txt'  # a copy, once all of it is


def main(always):
    lists = {12: REQUIREMENTS.read_text(encoding='utf-8')}
    lists[13] = re.sub('(cuda|cu)12', r'\g<1>13', lists[12])  # the names of the packages
    if INSTALLED.exists() and INSTALLED.read_text(encoding='utf-8') in lists.values():
        return
    if hidden() and not always:
        return
    gpu, cuda = driver()
    if gpu is None and not always:
        return
    found = '{} (driver for CUDA {})'.format(
        gpu or 'none found', '{}.{}'.format(*cuda) if cuda else 'unknown')
    if (cuda is None or cuda < (12, 0)) and not always:
        print(f'GPU: {found}: requirements-gpu.txt needs a driver for CUDA 12 or later and is '
              'left out', flush=True)
        return
    if sys.version_info[:2] > NEWEST:
        beyond = (f'requirements-gpu.txt is for Python up to {NEWEST[0]}.{NEWEST[1]} '
                  f'(make VENV=python{NEWEST[0]}.{NEWEST[1]})')
        if always:
            sys.exit(f'GPU: {found}: {beyond}')
        print(f'GPU: {found}: {beyond} and is left out', flush=True)
        return
    leave_out = '' if always else '; GPU=no leaves it out'
    print(f'GPU: {found}: installing requirements-gpu.txt too{leave_out}', flush=True)
    major = installed() or (13 if cuda and cuda >= (13, 0) and not older_than_turing() else 12)
    unfinished = INSTALLED.with_suffix('.unfinished')
    unfinished.write_text(lists[major], encoding='utf-8')
    if subprocess.run([sys.executable, '-m', 'pip', 'install', '--disable-pip-version-check',
                       '--no-compile', '-r', unfinished]).returncode:
        sys.exit(f'requirements-gpu.txt could not be installed, see above{leave_out}')
    unfinished.replace(INSTALLED)


def hidden():
    """Whether the user hides the GPUs; experiment/device.py asks the same."""
    return os.environ.get('CUDA_VISIBLE_DEVICES', '0') in ('', '-1')


def driver():
    """The first GPU's name and the newest CUDA that the driver is for, (13, 0); None: not known."""
    gpu = re.search(r'^GPU \d+ *: (.+?)(?: \(UUID.*)?$', nvidia_smi('-L'), re.MULTILINE)
    # 'CUDA Version: 13.0', from driver 610 on 'CUDA UMD Version: 13.3', without libcuda 'N/A'.
    cuda = re.search(r'CUDA (?:UMD )?Version *: *(\d+)\.(\d+)', nvidia_smi())
    return gpu and gpu[1], cuda and (int(cuda[1]), int(cuda[2]))


def older_than_turing():
    """Whether a GPU is older than Turing: CUDA 13's compiler no longer supports those."""
    found = nvidia_smi('--query-gpu=compute_cap', '--format=csv,noheader')
    return any((int(major), int(minor)) < (7, 5)
               for major, minor in re.findall(r'^(\d+)\.(\d+)$', found, re.MULTILINE))


def nvidia_smi(*arguments):
    """The output of nvidia-smi; empty where it is missing, hangs or fails."""
    try:
        return subprocess.run(['nvidia-smi', *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60,
                              text=True, errors='replace').stdout
    except (OSError, subprocess.TimeoutExpired):
        return ''


def installed():
    """The CUDA version of an installed CuPy, or None; two CuPys in one environment do not work."""
    found = [re.match('cupy_cuda(12|13)x-', path.name) for folder in sys.path
             for path in Path(folder).glob('cupy_cuda*.dist-info')]
    return next((int(match[1]) for match in found if match), None)


if __name__ == '__main__':
    main('--always' in sys.argv[1:])
