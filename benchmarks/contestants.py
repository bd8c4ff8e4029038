"""The contestants of training_step.py; each lives in a process of its own.

All take the same step: forward pass, loss, backward pass and Adam, on one batch of 32x32 images of
10 classes that lies on the device.  Chainer's compute the accuracy too, as the training scripts do.

    engine graph              the engine, each step replayed from one CUDA graph
    engine                    the engine
    engine graph autotune     the same two with the fastest of cuDNN's algorithms, as measured;
    engine autotune           without "autotune" they give the same bits in each run
    chainer                   stock Chainer: on NumPy, or on CuPy without cuDNN
    pytorch channels-last     eager
    pytorch                   eager, contiguous feature maps
    pytorch graph             eager and channels-last, the whole step replayed from one CUDA graph
    compile                   torch.compile of forward pass and loss, and so of their gradients;
                              channels-last
    compile graph             the same, the whole step replayed from one CUDA graph
    compile reduce-overhead   its mode of this name, CUDA graphs of forward and backward pass
    compile max-autotune      likewise, and its choice of kernels is measured

With ``float32`` all is float32.  With ``tf32`` matrix products round their operands to TF32 in all
of them (CuPy's own by CUPY_TF32=1); a CPU has no TF32.  With ``fp16`` PyTorch has autocast and a
GradScaler, Chainer mixed16, updates in float32 and dynamic loss scaling.  PyTorch's Adam is the
fused one, and its algorithms of cuDNN are measured (``cudnn.benchmark``).
"""
import json
import math
import os
import re
import tempfile

from benchmarks import devices
from benchmarks.workers import Unsupported, serve

# A worker imports nothing that it does not measure, and the engine before NumPy: so this module
# imports the standard library alone, and everything else where it is used.

CASES = {  # a network: architecture and stem
    'resnet50-imagenet': ('resnet50', 'imagenet'), 'resnet50-cifar': ('resnet50', 'cifar'),
    'preactresnet18': ('preactresnet18', 'cifar'), 'wrn28-10': ('wrn28-10', 'cifar'),
    'resnet18-cifar': ('resnet18', 'cifar'), 'resnet18-imagenet': ('resnet18', 'imagenet'),
    'preactresnet34': ('preactresnet34', 'cifar'), 'preactresnet50': ('preactresnet50', 'cifar')}
EAGER = 'pytorch channels-last', 'pytorch'
COMPILED = 'compile', 'compile graph', 'compile reduce-overhead', 'compile max-autotune'
PYTORCH = *EAGER, 'pytorch graph', *COMPILED
ENGINE = 'engine graph autotune', 'engine graph', 'engine autotune', 'engine'
# In the order in which they are prepared: what matters most and takes least comes first.
CONTESTANTS = (*ENGINE[:2], EAGER[0], 'pytorch graph', 'compile graph', *ENGINE[2:], 'chainer',
               EAGER[1], 'compile', 'compile reduce-overhead', 'compile max-autotune')
ON_CPU = 'engine', 'chainer', *EAGER, 'compile'
CAPTURE_WARM_UP = 5  # steps of PyTorch's before they are captured


def work(name, case, batch, precision, device):
    serve(lambda: (PyTorch if name in PYTORCH else Chainer)(name, case, batch, precision, device))


class Contestant:
    """A network and its optimizer, ready to take steps.

    Subclasses import their libraries when they are made, and nothing more.  Their ``build`` sets
    ``device``, as of devices.py, and ``step``, a function that takes one step and returns its
    loss; ``parameters`` is the number of the network's, once a step has been taken.
    """

    def __init__(self, name, case, batch, precision, device):
        self.name, self.batch, self.device_name = name, batch, device
        self.architecture, self.stem = CASES[case]
        self.half = precision == 'fp16'
        self.on_gpu = device != 'cpu'

    def prepare(self):
        self.build()
        for _ in range(self.device.WARM_UP):
            self.step()
        return {'ms': self.turn(self.device.FEWEST)['wall_ms'], 'parameters': self.parameters,
                'free': self.device.free(), 'peak': self.device.peak()}

    def turn(self, steps):
        """The times of some steps as the device takes them, and its peak memory in bytes."""
        taken = self.device.turn(self.step, steps)
        loss = float(taken.pop('last'))
        if not math.isfinite(loss):
            raise ArithmeticError(f'the loss is {loss}')
        return {**taken, 'loss': loss, 'peak': self.device.peak()}

    def profile(self):
        """The numbers of a step's kernels, and of calls that launched them: a graph takes one.

        The profiler of PyTorch sees those of CuPy in the same process too.
        """
        if not self.on_gpu:
            raise Unsupported('kernels are counted on a GPU')
        import torch
        torch.cuda.set_device(int(self.device_name))
        return counts(traced(lambda: (self.step(), self.device.synchronize())))


def traced(work):
    """The events that PyTorch's profiler notes in a call of ``work``; it is called twice."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, 'trace.json')
        for _ in range(2):  # in the first one the profiler starts up
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                work()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
        profiler.export_chrome_trace(path)
        with open(path) as file:
            return json.load(file)['traceEvents']


def counts(events):
    """The numbers of kernels and launches in the events of a trace, as a dictionary."""
    kernels = sum(event.get('cat') == 'kernel' for event in events)
    launches = sum(event.get('cat') in ('cuda_runtime', 'cuda_driver')
                   and bool(re.search('(Kernel|Graph)', event['name']))
                   and 'Launch' in event['name'] for event in events)
    if not kernels:
        raise LookupError('the profiler saw no kernels')
    return {'kernels': kernels, 'launches': launches}


class Chainer(Contestant):

    def __init__(self, name, *args):
        super().__init__(name, *args)
        if name != 'chainer':
            import engine  # noqa: F401
        import chainer  # noqa: F401

        import mixup  # noqa: F401
        import model  # noqa: F401

    def build(self):
        import chainer
        import numpy as np

        from mixup import ManifoldMixupClassifier
        from model import ARCHITECTURES

        self.device = devices.use(self.device_name, devices.Cupy)
        device = chainer.get_device(f'@cupy:{self.device_name}' if self.on_gpu else '@numpy')
        device.use()
        # As the scripts do: the fastest algorithms, or the same bits in each run.
        chainer.global_config.autotune = 'autotune' in self.name
        chainer.global_config.cudnn_deterministic = 'autotune' not in self.name
        if self.half:
            chainer.global_config.dtype = chainer.mixed16
        np.random.seed(0)
        network = ARCHITECTURES[self.architecture](10, self.stem)
        model = ManifoldMixupClassifier(network, mixup_hidden=False)
        model.to_device(device)
        optimizer = chainer.optimizers.Adam().setup(model)
        if self.half:
            optimizer.use_fp32_update()
            optimizer.loss_scaling()
        x = device.send(np.random.rand(self.batch, 3, 32, 32).astype('e' if self.half else 'f'))
        t = device.send(np.random.randint(0, 10, self.batch).astype(np.int32))

        losses = []

        def loss(x, t):
            value = model(x, t)
            losses.append(value.array)
            return value
        self.step = lambda: optimizer.update(loss, x, t) or losses.pop()
        if self.name != 'chainer':
            import engine
            self.check(engine, device.xp.ndarray)
            engine.use('fast', model)
        if 'graph' in self.name:
            from engine.gpu import graphs
            recorded = graphs.GraphedStep(optimizer)
            self.device.pools.append(recorded.recorder.pool)
            self.step = lambda: recorded(x, t)
        self.model = model

    @property
    def parameters(self):
        return self.model.count_params()

    def check(self, engine, kind):
        """Raise Unsupported where the engine would leave the work to Chainer, which is another."""
        if 'graph' in self.name and not self.on_gpu:
            raise Unsupported('a CPU has no CUDA graphs')
        if 'autotune' in self.name and not self.on_gpu:
            raise Unsupported("cuDNN's algorithms are measured on a GPU")
        if self.on_gpu:
            engine.backends.use_gpu()
        covered = engine.backends.BACKENDS[kind].dtypes
        if self.half and 'e' not in covered:
            raise Unsupported(f'the engine has no float16 here (it covers {covered!r})')


class PyTorch(Contestant):

    def __init__(self, *args):
        super().__init__(*args)
        import torch  # noqa: F401

        from benchmarks import networks_torch  # noqa: F401

    def build(self):
        import torch

        from benchmarks.networks_torch import network

        graph = self.name in ('pytorch graph', 'compile graph')
        if not self.on_gpu and self.name not in ON_CPU:
            raise Unsupported('a CPU has no CUDA graphs')
        self.device = devices.use(self.device_name, devices.Torch)
        where = torch.device(f'cuda:{self.device_name}' if self.on_gpu else 'cpu')
        # The older one of two interfaces: the compiler still asks for it and refuses a mixture.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        layout = torch.contiguous_format if self.name == 'pytorch' else torch.channels_last
        model = network(self.architecture, self.stem).to(where, memory_format=layout)
        self.model = model
        optimizer = torch.optim.Adam(model.parameters(), fused=True, capturable=graph)
        scaler = torch.amp.GradScaler(where.type, enabled=self.half)
        x = torch.rand(self.batch, 3, 32, 32).to(where, memory_format=layout)
        t = torch.randint(0, 10, (self.batch,)).to(where)

        def forward(x, t):
            return torch.nn.functional.cross_entropy(model(x), t)
        mode = self.name.split()[-1]
        if self.name in COMPILED:
            forward = torch.compile(forward, dynamic=False,
                                    mode='default' if mode in ('compile', 'graph') else mode)

        def step():
            optimizer.zero_grad()
            if mode in ('reduce-overhead', 'max-autotune'):
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(where.type, torch.float16, enabled=self.half):
                loss = forward(x, t)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()
        self.step = captured(torch, step) if graph else step
        if self.name in COMPILED and not self.on_gpu:
            try:
                self.step()
            except torch._dynamo.exc.BackendCompilerFailed as error:
                reason = str(error).strip().splitlines()[0]
                raise Unsupported(f'torch.compile fails: {reason}') from None

    @property
    def parameters(self):
        return sum(parameter.numel() for parameter in self.model.parameters())


def captured(torch, step):
    """A function that replays ``step`` from one CUDA graph, recorded by PyTorch's own recipe."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss
    return replay
