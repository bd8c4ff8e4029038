"""What make installs for a GPU, and when: the real Makefile, with stand-ins for what it calls.

Nothing but those stand-ins and a shell is on PATH, so that a GPU of this machine is not seen.
"""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from experiment import device
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='needs make')

FOR_12 = ['cupy-cuda12x', 'nvidia-cudnn-frontend', 'nvidia-cudnn-cu12']
FOR_13 = ['cupy-cuda13x', 'nvidia-cudnn-frontend', 'nvidia-cudnn-cu13']
SUPPORTED_PYTHON = 'experiment/supported_python.py'
MAKE = shutil.which('make')
LOG = 'with open(os.environ["LOG"], "a") as log: print({}, file=log)\n'
# As `python3 -m venv --clear .venv` does, but with the pip below.
VENV = f'''\
#!/bin/sh
[ "$1" = -m ] || exec '{sys._base_executable}' "$@"
echo venv "$@" >>"$LOG"
site=.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages
rm -rf .venv
mkdir -p .venv/bin $site
ln -s '{sys._base_executable}' .venv/bin/python
echo 'home = {os.path.dirname(sys._base_executable)}' >.venv/pyvenv.cfg
echo 'include-system-site-packages = false' >>.venv/pyvenv.cfg
printf '%s' "$PIP" >$site/pip.py
'''
# Installs a package as a name.
PIP = f'''\
import os, re, sys
from pathlib import Path
names = [re.match(r'[-.\\w/]+', line)[0]
         for option, path in zip(sys.argv, sys.argv[1:]) if option == '-r'
         for line in Path(path).read_text().splitlines() if line and line[0] != '#']
{LOG.format('"pip", sys.argv[1], *names')}
if 'index' in sys.argv and 'PIP_INDEX_FAILS' in os.environ:
    sys.exit(os.environ['PIP_INDEX_FAILS'])
if 'PIP_FAILS' in os.environ:
    sys.exit('no network')
for name in names:
    if name[0] != '.':
        info = Path(__file__).with_name(name.replace('-', '_') + '-1.dist-info')
        info.mkdir(exist_ok=True)
        (info / 'METADATA').write_text(f'Name: {{name}}\\nVersion: 1\\n')
'''
PROGRAM = 'import os, sys\n' + LOG.format(
    '"run", os.environ.get("GPU"), os.environ.get("CUDA_VISIBLE_DEVICES"), *sys.argv')
PROGRAMS = ['pytest.py', 'ruff.py', 'experiment/grid.py', *(f'benchmarks/{name}.py' for name in (
    'gpu_check', 'training_step', 'augmentation'))]

HEADER = '| NVIDIA-SMI 580.95.05    Driver Version: 580.95.05    CUDA Version: {:8} |'
RENAMED = '| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02    CUDA UMD Version: 13.3 |'
FAILURE = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
NVIDIA_SMI = '''\
#!/bin/sh
echo "nvidia-smi $*" >>"$LOG"
echo noise >&2
case "$*" in
    -L) echo "{gpus}" ;;
    '') echo "Thu Nov 26 20:32:10 2026"; echo "{header}" ;;
    '--query-gpu=compute_cap --format=csv,noheader') echo '{capability}' ;;
esac
exit {status}
'''


class Project:
    """A folder with the Makefile and what it reads; what it calls only writes down that it ran."""

    def __init__(self, folder):
        self.folder = folder / 'project'
        self.path = folder / 'bin'
        self.log = folder / 'log'
        shutil.copytree(os.path.join(ROOT, 'install'), self.folder / 'install',
                        ignore=shutil.ignore_patterns('__pycache__'))
        for path in 'Makefile', 'requirements.txt', 'requirements-gpu.txt':
            shutil.copy(os.path.join(ROOT, path), self.folder)
        (self.folder / 'experiment').mkdir()
        shutil.copy(os.path.join(ROOT, SUPPORTED_PYTHON), self.folder / SUPPORTED_PYTHON)
        self.newest_for_gpu('3, 99')  # whichever Python this is
        for path in PROGRAMS:
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_text(PROGRAM)
        self.path.mkdir()
        for name in 'sh', 'cat', 'ln', 'mkdir', 'rm':
            (self.path / name).symlink_to(shutil.which(name))
        for name in 'python3', 'python3.13':
            self.command(name, VENV)

    def command(self, name, code):
        (self.path / name).write_text(code)
        (self.path / name).chmod(0o755)

    def newest_for_gpu(self, version):
        file = self.folder / 'install' / 'gpu.py'
        file.write_text(re.sub('^NEWEST = .*', f'NEWEST = {version}', file.read_text(), flags=re.M))

    def nvidia_smi(self, header='', capability='9.0', status=0,
                   gpus='GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'):
        self.command('nvidia-smi', NVIDIA_SMI.format(
            gpus=gpus, header=header, capability=capability, status=status))

    def make(self, *arguments, fails=False, **environment):
        """What make printed that is about a GPU, and the calls: venv, pip, nvidia-smi, run."""
        self.log.write_text('')
        done = subprocess.run(
            [MAKE, '--no-print-directory', *arguments], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={'PATH': str(self.path), 'LOG': str(self.log), 'PIP': PIP, **environment})
        assert bool(done.returncode) == fails, done.stdout
        for noise in 'Traceback', 'noise', 'NVIDIA-SMI':
            assert noise not in done.stdout, done.stdout
        calls = [line.split(' ') for line in self.log.read_text().splitlines()]
        return types.SimpleNamespace(
            said=[line for line in done.stdout.splitlines()
                  if line.startswith('GPU: ') or 'GPU=no leaves' in line],
            printed=done.stdout,
            asked_index=[call for call in calls if call[:2] == ['pip', '--retries']],
            venv=[call for call in calls if call[0] == 'venv'],
            asked=[call for call in calls if call[0] == 'nvidia-smi'],
            installed=[call[2:] for call in calls if call[:2] == ['pip', 'install']],
            ran=[call[1:] for call in calls if call[0] == 'run'])


@pytest.fixture
def project(tmp_path):
    """The project on a machine without nvidia-smi."""
    return Project(tmp_path)


@pytest.fixture
def completed(project):
    """The project with a .venv that was made before the machine had a GPU."""
    without = project.make('demo')
    assert len(without.installed) == 1 and 'numpy' in without.installed[0]
    assert not set(without.installed[0]) & {*FOR_12, *FOR_13}
    project.nvidia_smi(HEADER.format('13.0'))
    return project


# Where there is a GPU


@pytest.mark.parametrize('target', ['demo', 'train', 'test', 'test-slow'])
def test_a_driver_that_shows_a_gpu_gets_what_it_needs_and_one_line_says_so(project, target):
    project.nvidia_smi(HEADER.format('12.8'))
    made = project.make(target)
    general, for_gpu = made.installed
    assert 'numpy' in general and for_gpu == FOR_12
    assert made.said == ['GPU: NVIDIA H100 80GB HBM3 (driver for CUDA 12.8): installing '
                         'requirements-gpu.txt too; GPU=no leaves it out']
    assert len(made.venv) == len(made.ran) == 1
    assert made.ran[0][:2] == ['None', 'None']  # what runs may use the GPU
    for again in project.make(target), project.make(target, CUDA_VISIBLE_DEVICES='0'):
        assert len(again.ran) == 1
        assert not (again.installed or again.venv or again.asked or again.said)


@pytest.mark.parametrize('header, expected', [
    (HEADER.format('12.0'), FOR_12), (HEADER.format('13.0'), FOR_13), (RENAMED, FOR_13)],
    ids=['12', '13', '13-renamed'])
def test_the_drivers_own_word_decides_between_cuda_12_and_13(project, header, expected):
    project.nvidia_smi(header)
    assert project.make('demo').installed[1:] == [expected]


@pytest.mark.parametrize('capability, expected', [
    ('7.0', FOR_12), ('9.0\n6.1', FOR_12), ('7.5\n10.0', FOR_13)])
def test_a_gpu_that_cuda_13_no_longer_serves_gets_cuda_12(project, capability, expected):
    project.nvidia_smi(HEADER.format('13.0'), capability)
    assert project.make('demo').installed[1:] == [expected]


@pytest.mark.parametrize('header, version', [
    (HEADER.format('11.4'), '11.4'), (HEADER.format('N/A'), 'unknown')], ids=['11', 'unknown'])
def test_an_older_driver_is_named_with_what_is_needed_and_make_goes_on(project, header, version):
    project.nvidia_smi(header)
    made = project.make('demo')
    assert len(made.installed) == len(made.ran) == 1
    assert made.said == [f'GPU: NVIDIA H100 80GB HBM3 (driver for CUDA {version}): '
                         'requirements-gpu.txt needs a driver for CUDA 12 or later and is left out']


def test_a_venv_made_without_is_completed_and_not_thrown_away(completed):
    (completed.folder / '.venv/mine').touch()
    made = completed.make('train')
    assert made.installed == [FOR_13] and not made.venv
    assert (completed.folder / '.venv/mine').exists()
    made = completed.make('train', 'VENV=python3.13')  # another Python: made anew, with both
    assert made.venv == [['venv', '-m', 'venv', '--clear', '.venv']]
    assert not (completed.folder / '.venv/mine').exists()
    assert 'numpy' in made.installed[0] and made.installed[1:] == [FOR_13]


@pytest.mark.parametrize('there, driver', [(FOR_12, '13.0'), (FOR_13, '12.4')])
def test_a_cupy_that_is_there_stays_and_never_gets_the_other_beside_it(completed, there, driver):
    site, = completed.folder.glob('.venv/lib/python*/site-packages')
    (completed.folder / 'by-hand.txt').write_text(there[0] + '\n')
    subprocess.run([completed.folder / '.venv/bin/python', '-m', 'pip', 'install', '-r',
                    'by-hand.txt'], cwd=completed.folder, check=True,
                   env={'LOG': str(completed.log)})
    completed.nvidia_smi(HEADER.format(driver))
    assert completed.make('demo').installed == [there]
    assert len(list(site.glob('cupy_cuda*'))) == 1
    assert not completed.make('demo').installed


def test_other_requirements_for_a_gpu_are_added_to_the_same_venv(completed):
    completed.make('demo')
    with open(completed.folder / 'requirements-gpu.txt', 'a') as file:
        file.write('another>=1\n')
    made = completed.make('demo')
    assert made.installed == [[*FOR_13, 'another']] and not made.venv
    assert not completed.make('demo').installed


def test_an_installation_that_fails_stops_make_and_is_tried_again(completed):
    made = completed.make('demo', fails=True, PIP_FAILS='yes')
    assert made.installed == [FOR_13] and not made.ran
    assert ('requirements-gpu.txt could not be installed, see above; GPU=no leaves it out'
            in made.said)
    assert completed.make('demo', 'GPU=no').ran
    made = completed.make('demo')
    assert made.installed == [FOR_13] and made.ran


def test_a_python_that_cupy_has_no_wheels_for_is_named_and_make_goes_on(project):
    project.nvidia_smi(HEADER.format('13.0'))
    project.newest_for_gpu('3, 5')
    made = project.make('demo')
    assert len(made.installed) == len(made.ran) == 1
    assert made.said == ['GPU: NVIDIA H100 80GB HBM3 (driver for CUDA 13.0): requirements-gpu.txt '
                         'is for Python up to 3.5 (make VENV=python3.5) and is left out']
    made = project.make('gpu-check', fails=True)
    assert not made.ran and 'up to 3.5 (make VENV=python3.5)' in made.said[0]


# Where there is none, or it is not wanted


@pytest.mark.parametrize('nvidia_smi', [
    None, {'gpus': FAILURE, 'header': FAILURE, 'status': 9},
    {'gpus': 'No devices found.', 'header': 'No devices were found', 'status': 6},
    {'gpus': 'Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error',
     'header': HEADER.format('13.0'), 'status': 255}],
    ids=['is-not-there', 'fails', 'shows-none', 'shows-a-broken-one'])
def test_without_a_gpu_nothing_is_installed_for_one_and_nothing_said(project, nvidia_smi):
    if nvidia_smi:
        project.nvidia_smi(**nvidia_smi)
    made = project.make('demo')
    assert bool(made.asked) == bool(nvidia_smi)
    assert len(made.installed) == len(made.ran) == 1
    assert not set(made.installed[0]) & {*FOR_12, *FOR_13} and not made.said


def test_an_nvidia_smi_that_cannot_be_started_is_as_none(project):
    project.command('nvidia-smi', 'no program')
    made = project.make('demo')
    assert len(made.installed) == len(made.ran) == 1 and not made.said


def test_a_gpu_that_cuda_visible_devices_hides_is_left_alone(completed):
    for value in '', '-1':
        for made in (completed.make('demo', CUDA_VISIBLE_DEVICES=value),
                     completed.make('demo', f'CUDA_VISIBLE_DEVICES={value}')):
            assert made.ran[0][1] == value
            assert not (made.installed or made.asked or made.said)
    assert completed.make('demo', CUDA_VISIBLE_DEVICES='1').installed == [FOR_13]


@pytest.mark.parametrize('value', [None, '', '-1', '0', '1,0'])
def test_make_and_the_scripts_agree_on_what_is_hidden(monkeypatch, value):
    spec = importlib.util.spec_from_file_location('gpu', os.path.join(ROOT, 'install', 'gpu.py'))
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if value is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', value)
    monkeypatch.setattr(device.glob, 'glob', lambda path: ['/dev/nvidia0'])
    assert gpu.hidden() is not device.has_nvidia_gpu()


def test_gpu_no_leaves_it_out_and_runs_on_the_cpu(completed):
    for made in (completed.make('demo', 'GPU=no'), completed.make('demo', GPU='no'),
                 completed.make('train', 'GPU=no'), completed.make('test', 'GPU=no'),
                 completed.make('test-slow', 'GPU=no')):
        assert made.ran[0][:2] == ['no', '']  # CUDA_VISIBLE_DEVICES is empty: hidden
        assert not (made.installed or made.venv or made.asked or made.said)
    assert completed.make('demo').installed == [FOR_13]
    made = completed.make('demo', 'GPU=no')  # what is there stays
    assert made.ran[0][1] == '' and not (made.installed or made.venv)


@pytest.mark.parametrize('given', ['requirements.txt', 'requirements.txt requirements-gpu.txt'])
def test_requirements_that_are_given_are_all_that_is_installed(project, given):
    project.nvidia_smi(HEADER.format('13.0'))
    for made in project.make('demo', f'REQUIREMENTS={given}'), project.make(
            'train', 'VENV=python3.13', REQUIREMENTS=given):
        (names,) = made.installed
        assert 'numpy' in names and ('cupy-cuda12x' in names) == ('gpu' in given)
        assert made.ran and not (made.asked or made.said)
    again = project.make('train', 'VENV=python3.13', REQUIREMENTS=given)
    assert again.ran and not (again.installed or again.venv)


def test_an_interpreter_that_is_given_gets_nothing(project):
    project.nvidia_smi(HEADER.format('13.0'))
    for target in 'demo', 'train', 'test', 'gpu-check':
        made = project.make(target, f'PYTHON={sys.executable}')
        assert made.ran and not (made.installed or made.venv or made.asked or made.said)
    assert not (project.folder / '.venv').exists()


# Before anything is installed


def test_a_python_that_is_not_supported_is_refused_before_the_venv_is_made_anew(project):
    project.make('lint')
    file = project.folder / SUPPORTED_PYTHON
    file.write_text(re.sub('OLDEST, NEWEST = .*', 'OLDEST, NEWEST = (3, 5), (3, 6)',
                           file.read_text()))
    made = project.make('lint', 'VENV=python3.13', fails=True)
    assert not (made.venv or made.asked_index or made.installed or made.ran)
    assert 'not supported; valid: 3.5 to 3.6; make VENV=python3.13 makes .venv' in made.printed


def test_the_index_is_asked_first_and_where_there_is_none_nothing_is_installed(project):
    made = project.make('lint', fails=True, PIP_INDEX_FAILS='ERROR: No matching distribution found')
    assert made.asked_index and not (made.installed or made.ran)
    assert 'make PYTHON=/path/to/python uses an interpreter as it is' in made.printed
    made = project.make('lint', PIP_INDEX_FAILS='ERROR: unknown command "index"')
    assert made.installed and made.ran
    (project.folder / 'own.txt').write_text('ruff\n')
    made = project.make('lint', 'REQUIREMENTS=own.txt')
    assert made.installed and not made.asked_index  # Chainer is not among them


# What asks for a GPU, or for none


@pytest.mark.parametrize('arguments, header, found, expected', [
    (['gpu-check'], None, 'none found (driver for CUDA unknown)', FOR_12),
    (['gpu-check'], HEADER.format('11.4'), 'NVIDIA H100 80GB HBM3 (driver for CUDA 11.4)', FOR_12),
    (['bench', 'DEVICE=0'], RENAMED, 'NVIDIA H100 80GB HBM3 (driver for CUDA 13.3)', FOR_13)],
    ids=['none', '11', '13'])
def test_what_asks_for_a_gpu_gets_what_it_needs(project, arguments, header, found, expected):
    project.make('.venv/installed')
    if header:
        project.nvidia_smi(header)
    made = project.make(*arguments, GPU='no', CUDA_VISIBLE_DEVICES='2')
    assert made.installed == [expected] and not made.venv
    assert made.said == [f'GPU: {found}: installing requirements-gpu.txt too']
    assert made.ran[0][:2] == ['no', '2']
    assert not project.make(*arguments).installed


def test_what_needs_no_gpu_does_not_look_for_one(completed):
    simulated = completed.make('test-gpu', 'GPU=no')
    assert simulated.ran[0][0] == 'simulated'
    for made in (simulated, completed.make('test-gpu'), completed.make('bench'),
                 completed.make('lint')):
        assert made.ran and not (made.installed or made.asked or made.said)


# Which tests


def test_test_all_runs_the_quick_the_slow_and_those_for_a_gpu_once(project):
    made = project.make('test-all', 'TEST=-x -rs')
    assert [[gpu, *arguments] for gpu, _, _, *arguments in made.ran] == [
        ['None', '-x', '-rs'], ['None', '-m', 'slow', '-x', '-rs'],
        ['simulated', '-m', 'gpu', '-x', '-rs']]


def test_a_test_that_fails_in_one_of_the_three_stops_test_all(project):
    (project.folder / 'pytest.py').write_text(PROGRAM + 'sys.exit("slow" in sys.argv)')
    assert len(project.make('test-all', fails=True).ran) == 2


# requirements-gpu.txt


def test_cuda_13_differs_from_cuda_12_in_the_names_alone(completed):
    completed.make('demo')
    for_12 = (completed.folder / 'requirements-gpu.txt').read_text()
    for_13 = (completed.folder / '.venv/requirements-gpu.txt').read_text()
    assert for_12 != for_13 == for_12.replace('cuda12x', 'cuda13x').replace('cu12', 'cu13')


def test_releases_of_cupy_that_do_not_get_on_with_pytorch_are_ruled_out():
    text = Path(ROOT, 'requirements-gpu.txt').read_text()
    cupy = Requirement(re.search('^cupy.*', text, re.MULTILINE)[0])
    valid = {'13.6.0': False, '14.0.0': False, '14.0.1': True, '14.1.0': False, '14.1.1': True,
             '14.2.0': True, '15.0.0': False}
    assert {version: version in cupy.specifier for version in valid} == valid
    assert cupy.extras == {'ctk'}
