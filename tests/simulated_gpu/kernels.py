"""Kernels in CUDA C, compiled by g++ and run on the host."""
import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
import types

import numpy as np

from tests.simulated_gpu import runtime
from tests.simulated_gpu.arrays import allocate, ndarray, raw
from tests.simulated_gpu.runtime import do

FOLDER = os.path.dirname(os.path.abspath(__file__))
HEADERS = [os.path.join(FOLDER, name) for name in ('cuda_on_host.h', 'cuda_fp16.h')]
C_TYPES = {'int': 'i', 'float': 'f', 'double': 'd', 'long long': 'q', 'unsigned int': 'I',
           'unsigned char': 'B', 'size_t': 'Q', 'bool': '?'}
NAMES = {'bool': 'bool', 'int8': 'signed char', 'uint8': 'unsigned char', 'int32': 'int',
         'int64': 'long long', 'uint64': 'unsigned long long', 'float32': 'float',
         'float64': 'double', 'uint32': 'unsigned int', 'float16': 'Half'}
# Sums of products are fused as CUDA's compiler fuses them.
FLAGS = ('-O2', '-shared', '-fPIC', '-std=c++17', '-ffp-contract=fast', '-mfma', '-w',
         '-U_FORTIFY_SOURCE')
loaded = set()  # CUDA loads a kernel at its first launch


def compiled(code):
    """The shared library of a source, which is kept for other processes."""
    headers = ''
    for path in HEADERS:
        with open(path) as file:
            headers += file.read()
    key = hashlib.sha256((headers + code + str(FLAGS)).encode()).hexdigest()
    folder = os.path.join(tempfile.gettempdir(), f'simulated_gpu-{os.getuid()}')
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, key + '.so')
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source = os.path.join(work, 'kernel.cpp')
            with open(source, 'w') as file:
                file.write(f'#include "{HEADERS[0]}"\n{code}')
            subprocess.run(
                ['g++', *FLAGS, f'-I{FOLDER}', source, '-o', os.path.join(work, 'kernel.so')],
                check=True)
            os.replace(os.path.join(work, 'kernel.so'), path)
    return ctypes.CDLL(path)


def load(kernel, name):
    if kernel not in loaded and runtime.is_capturing():
        raise runtime.CUDARuntimeError(f'{name} is loaded while a stream is captured')
    loaded.add(kernel)


class RawModule:

    def __init__(self, code=None, *, options=(), **kwargs):
        self.code = code

    def get_function(self, name):
        return RawKernel(self.code, name)


class RawKernel:

    def __init__(self, code, name, options=(), **kwargs):
        self.name = name
        plain = re.sub(r'//[^\n]*|/\*.*?\*/', '', code, flags=re.S)
        declared = re.search(rf'__global__\s+void\s+{name}\s*\(([^)]*)\)', plain).group(1)
        self.types = [re.sub(r'\w+$', '', parameter.strip()).strip()
                      for parameter in declared.split(',')]
        arguments = ', '.join(f'*({t} *)arguments[{i}]' for i, t in enumerate(self.types))
        barriers = 'true' if '__syncthreads' in plain else 'false'
        self.code = code + f'''
extern "C" void run(const unsigned *grid, const unsigned *block, void **arguments) {{
    run_grid(grid, block, {barriers}, [&] {{ {name}({arguments}); }});
}}'''
        self.library = None

    def load(self):
        load((self.code, self.name), self.name)
        self.library = self.library or compiled(self.code)

    @property
    def kernel(self):
        """The loaded function."""
        self.load()
        return types.SimpleNamespace(ptr=ctypes.cast(self.library.run, ctypes.c_void_p).value)

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        self.load()
        grid, block = (tuple(map(int, (*size, 1, 1)))[:3] for size in (grid, block))
        if not (0 < np.prod(block) <= 1024 and 0 < grid[0] < 2 ** 31
                and 0 < grid[1] < 2 ** 16 and 0 < grid[2] < 2 ** 16):
            raise runtime.CUDARuntimeError(f'{self.name}: invalid launch of {grid} blocks {block}')
        if len(args) != len(self.types):
            raise TypeError(f'{self.name} takes {len(self.types)} arguments, given {len(args)}')
        values = [self.value(*pair) for pair in zip(self.types, args)]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))

        def run():
            self.library.run((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), pointers)
        run.keep = values
        do('kernel', self.name, run)

    def value(self, kind, argument):
        """An argument's bytes; what a GPU would read as something else is an error."""
        if '*' in kind:
            if isinstance(argument, ndarray):
                return np.array(argument.data.ptr, np.uint64)
            if isinstance(argument, np.intp) and argument == 0:
                return np.array(0, np.uint64)
        elif isinstance(argument, np.generic) and argument.dtype.char == C_TYPES[kind]:
            return np.array(argument)
        raise TypeError(f'{self.name}: {kind} is given {argument!r} of {type(argument)}')


def parameters(text):
    """(is raw, type, name) of each parameter of an elementwise or reduction kernel."""
    found = [re.match(r'\s*(raw\s+)?(\w+)\s+(\w+)\s*$', p) for p in text.split(',') if p.strip()]
    return [(bool(m.group(1)), m.group(2), m.group(3)) for m in found]


class ElementwiseKernel:

    def __init__(self, in_params, out_params, operation, name='kernel', preamble='', **kwargs):
        self.inputs, self.outputs = parameters(in_params), parameters(out_params)
        self.operation, self.name, self.preamble = operation, name, preamble

    def __call__(self, *args, size=None, **kwargs):
        declared = self.inputs + self.outputs
        given = args[len(self.inputs):]
        types = bound_types(self.name, declared, args)
        shapes = [a.shape for (is_raw, _, _), a in zip(declared, args)
                  if isinstance(a, ndarray) and not is_raw]
        shape = (size,) if size is not None else np.broadcast_shapes(*shapes)
        outputs = given or [allocate(shape, types[t]) for _, t, _ in self.outputs]
        code = self.code(declared, types, [*args[:len(self.inputs)], *outputs])
        load(code, self.name)
        library = compiled(code)
        inputs = [raw(a) if isinstance(a, ndarray) else np.array(a, types[t])
                  for (_, t, _), a in zip(self.inputs, args)]

        def run():
            arrays = [np.ascontiguousarray(
                a if r or not a.ndim else np.broadcast_to(a, shape))
                for (r, _, _), a in zip(self.inputs, inputs)]
            arrays += [np.ascontiguousarray(raw(a)) for a in outputs]
            pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
            library.run(ctypes.c_longlong(int(np.prod(shape, dtype=np.int64))), pointers)
            for out, array in zip(outputs, arrays[len(inputs):]):
                if not np.shares_memory(raw(out), array):
                    raw(out)[...] = array
        do('kernel', self.name, run)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def code(self, declared, types, args):
        lines = [f'typedef {NAMES[dtype.name]} {t};' for t, dtype in types.items()
                 if t not in NAMES]
        body = []
        for k, ((is_raw, t, name), a) in enumerate(zip(declared, args)):
            pointer = f'(({NAMES[types[t].name]} *)arguments[{k}])'
            one = not isinstance(a, ndarray) or a.ndim == 0
            body.append(f'auto {name} = {pointer};' if is_raw else
                        f'auto &{name} = {pointer}[{0 if one else "i"}];')
        return f'''{self.preamble}
extern "C" void run(long long n, void **arguments) {{
    {' '.join(lines)}
    for (long long i = 0; i < n; ++i) {{
        {' '.join(body)}
        {self.operation};
    }}
}}'''


class ReductionKernel:
    """Reductions of whole arrays, of which the sum is written ``a + b``."""

    def __init__(self, in_params, out_params, map_expr, reduce_expr, post_map_expr, identity,
                 name='reduce', **kwargs):
        assert reduce_expr == 'a + b' and identity in ('0', 0)
        (_, self.kind, _), = parameters(out_params)
        sum_ = f'{in_params}, raw {self.kind} total, raw {self.kind} out_'
        self.sum = ElementwiseKernel(
            sum_, f'{self.kind} unused', f'''const long long _j = i;
            if (i == 0) total[0] = 0;
            total[0] += {map_expr};
            if (i == n - 1) {{
                {self.kind} a = total[0], &out = out_[0];
                {post_map_expr};
            }}''', name)

    def __call__(self, *args, axis=None, **kwargs):
        assert axis is None
        types = bound_types(self.sum.name, self.sum.inputs, args)
        total, out = allocate((1,), types[self.kind]), allocate((), types[self.kind])
        self.sum(*args, total, out)
        return out


def bound_types(name, declared, args):
    """The dtype of each type that the parameters name, as CuPy decides it."""
    types = {}
    for (_, t, parameter), a in zip(declared, args):
        if isinstance(a, np.ndarray):
            raise TypeError(f'{name}: {parameter} is a NumPy array')
        if t in NAMES:
            types[t] = np.dtype(t)
        if isinstance(a, ndarray) and types.setdefault(t, a.dtype) != a.dtype:
            raise TypeError(f'{name}: {parameter} is {a.dtype}, not {types[t]}')
    for (_, t, _), a in zip(declared, args):
        types.setdefault(t, a.dtype if isinstance(a, ndarray) else np.asarray(a).dtype)
    return types
