"""What can be tested of the GPU code without a GPU: kernels compile, and cuDNN makes the plans.

Needs requirements-gpu.txt, and is skipped without it.  cuDNN asks for the driver's library, which
only a machine with a GPU has; an empty one stands in, for nothing is run.
"""
import glob
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

SOURCES = sorted(glob.glob(os.path.join(ROOT, 'engine', 'gpu', '*.cu'))
                 + glob.glob(os.path.join(ROOT, 'experiment', '*.cu')))
NEEDED = ['cuGetErrorString', 'cuModuleGetFunction', 'cuModuleLoadData', 'cuModuleUnload',
          'cuTensorMapEncodeIm2col', 'cuTensorMapEncodeTiled']
H200 = {  # as cuDNN describes a device
    'deviceName': 'NVIDIA H200', 'deviceVer': 900, 'multiProcessorCount': 132, 'warpSize': 32,
    'maxGridSize': [2147483647, 65535, 65535], 'maxBlockSize': [1024, 1024, 64],
    'regsPerBlock': 65536, 'maxRegistersPerSM': 65536, 'maxCtasPerSM': 32,
    'maxThreadsPerBlock': 1024, 'maxThreadsPerSM': 2048, 'maxSharedMemoryPerBlock': 49152,
    'maxSharedMemoryPerBlockOptin': 232448, 'reservedSharedMemoryPerBlock': 1024,
    'pciDeviceId': 0x2335, 'isTccDriver': 0, 'supportCoopLaunch': 1, 'cudaDeviceId': 0,
    'totalGlobalMem': 150754820096, 'l2CacheSize': 62914560, 'smClockRateKHz': 1980000,
    'memClockRateKHz': 3201000, 'memoryBusWidth': 6144, 'driverVer': 13000}
DEVICES = {
    'H200': H200,
    'H100': {**H200, 'deviceName': 'NVIDIA H100', 'pciDeviceId': 0x2330,
             'totalGlobalMem': 80 * 10 ** 9, 'l2CacheSize': 52428800, 'memClockRateKHz': 2619000,
             'memoryBusWidth': 5120},
    'A100': {**H200, 'deviceName': 'NVIDIA A100', 'deviceVer': 800, 'multiProcessorCount': 108,
             'pciDeviceId': 0x20b2, 'maxSharedMemoryPerBlockOptin': 166912,
             'l2CacheSize': 41943040, 'totalGlobalMem': 42 * 10 ** 9, 'memoryBusWidth': 5120,
             'smClockRateKHz': 1410000, 'memClockRateKHz': 1215000},
    'RTX 4090': {**H200, 'deviceName': 'NVIDIA GeForce RTX 4090', 'deviceVer': 890,
                 'multiProcessorCount': 128, 'maxSharedMemoryPerBlockOptin': 101376,
                 'maxThreadsPerSM': 1536, 'maxCtasPerSM': 24, 'l2CacheSize': 75497472,
                 'totalGlobalMem': 25 * 10 ** 9, 'memoryBusWidth': 384},
    'B200': {**H200, 'deviceName': 'NVIDIA B200', 'deviceVer': 1000, 'multiProcessorCount': 148,
             'l2CacheSize': 132644864, 'totalGlobalMem': 190 * 10 ** 9, 'memoryBusWidth': 8192}}
COMPILE = '''
import os, sys
import engine
import numpy as np
from cupy._core import core
from cupy.cuda import compiler
from engine.gpu import kernels
path, architecture = sys.argv[1:]
folder, name = os.path.split(path[:-3])
sources = [kernels.source(name, np.dtype(char)) for char in kernels.DTYPES] \
    if folder == os.path.dirname(kernels.__file__) else [open(path).read()]
for source in sources:
    compiler._NVRTCProgram(source, name).compile((  # as CuPy does by itself
        *core.assemble_cupy_compiler_options(()), '-ftz=true', f'-arch={architecture}',
        '--device-as-default-execution-space'))
'''
PLAN = '''
import itertools, json, sys
import engine
import cudnn
from engine.gpu import plans
device = cudnn.create_device_properties(sys.argv[1])

def sizes(kind, dtype, shapes, how):
    graph = plans.describe(kind, dtype, *shapes, device_property=device)
    built = plans.Plans(graph, *how).built()
    return [size for _, size in itertools.islice(built, plans.CANDIDATES)]
print(json.dumps([
    [sizes(kind, dtype, shapes, how) for kind in ('fprop', 'dgrad', 'wgrad')
     for dtype, *how in (('f', False, False), ('f', True, False), ('f', True, True),
                         ('e', False, False), ('e', True, False))]
    for shapes in json.loads(sys.argv[2])]))
'''


def run(code, *arguments, **environment):
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, *arguments], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, 'GPU': '', **environment})
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.fixture
def real_cupy():
    try:
        run('import cupy, cudnn')
    except AssertionError:
        pytest.skip('needs requirements-gpu.txt')


def test_cudnn_is_imported_without_pytorch(real_cupy):
    run('import sys; from engine.gpu import plans; assert plans.cudnn.pygraph; '
        'assert "torch" not in sys.modules')


@pytest.mark.parametrize('architecture', ['sm_80', 'sm_90', 'sm_100'])
@pytest.mark.parametrize('source', SOURCES, ids=os.path.basename)
def test_kernels_compile(real_cupy, source, architecture):
    run(COMPILE, source, architecture)


def convolutions():
    """x, W, y, stride and pad of ResNet-50 with both stems on 32x32 images, batch 128."""
    def shapes(size, channels, out, kernel, stride=1):
        pad = kernel // 2
        made = (size + 2 * pad - kernel) // stride + 1
        return ((128, size, size, channels), (out, kernel, kernel, channels),
                (128, made, made, out), (stride, stride), (pad, pad))
    found = [shapes(32, 3, 64, 7, 2), shapes(32, 3, 64, 3), shapes(1, 2048, 10, 1)]
    for first in 8, 32:
        size, channels = first, 64
        for middle, stride in (64, 1), (128, 2), (256, 2), (512, 2):
            out = 4 * middle
            found += [shapes(size, channels, middle, 1, stride),
                      shapes(size, channels, out, 1, stride)]
            size, channels = (size - 1) // stride + 1, out
            found += [shapes(size, middle, middle, 3), shapes(size, middle, out, 1),
                      shapes(size, out, middle, 1)]
    return found


def odd_convolutions():
    """Convolutions of few channels, with kernels, strides and padding of all kinds."""
    random = np.random.RandomState(0)
    found = []
    for _ in range(30):
        kernel, stride, pad = (
            random.randint(low, high, 2) for low, high in ((1, 6), (1, 4), (0, 4)))
        size = [random.randint(max(1, k - 2 * p), 10) for k, p in zip(kernel, pad)]
        n, channels, out = random.randint(1, 7, 3)
        made = (size + 2 * pad - kernel) // stride + 1
        found.append([[int(value) for value in values] for values in (
            (n, *size, channels), (out, *kernel, channels), (n, *made, out), stride, pad)])
    return found


@pytest.mark.parametrize('name', DEVICES)
def test_cudnn_makes_every_plan(real_cupy, tmp_path, name):
    """Plans of any kind, deterministic ones, and ones without TF32, in float32 and in float16."""
    shapes = [*convolutions(), *odd_convolutions()]
    stub = tmp_path / 'libcuda.c'
    stub.write_text('\n'.join(f'int {name}(void) {{ return 3; }}' for name in NEEDED))
    subprocess.run(['gcc', '-shared', '-o', tmp_path / 'libcuda.so.1',
                    '-Wl,-soname,libcuda.so.1', stub], check=True)
    sizes = json.loads(run(PLAN, json.dumps(DEVICES[name]), json.dumps(shapes),
                           LD_LIBRARY_PATH=str(tmp_path)))
    assert len(sizes) == len(shapes) and all(len(row) == 15 for row in sizes)
    assert all(candidates and max(candidates) <= 2 ** 30 for row in sizes for candidates in row)
