"""What computes on the device of a run: the dtype, the engine, CUDA graphs, cuDNN's algorithms."""
import chainer
import numpy as np

import engine
from experiment.device import describe, find_cudnn, has_nvidia_gpu, why_no_gpu
from experiment.errors import Invalid

DTYPES = {'float32': np.dtype(np.float32), 'mixed16': chainer.mixed16}  # --dtype


def use_dtype(args, device):
    """Make ``--dtype`` the dtype of batches and of networks made from now on.

    Raises:
        Invalid: If mixed16 is to be used on a CPU.
    """
    if args.dtype == 'mixed16' and device.xp is np:
        raise Invalid('--dtype: given mixed16, which needs a GPU; valid on a CPU: float32')
    chainer.global_config.dtype = DTYPES[args.dtype]


def choose_engine(args, device):
    """Decide what ``--engine`` and ``--graph`` leave to ``auto``, and print what will compute.

    Nothing is switched on before :func:`use_engine`.

    Args:
        args: Afterwards its ``engine`` is ``'fast'`` or ``'stock'``, its ``graph`` ``'on'`` or
            ``'off'``.
        device (chainer.backend.Device): What :func:`experiment.device.use_device` returned.

    Raises:
        Invalid: If the device lacks what ``--engine``, ``--graph`` or ``--autotune`` needs.
    """
    on_gpu = device.xp is not np
    version, why_not = find_cudnn() if on_gpu else (None, None)
    if args.engine == 'auto':
        args.engine = 'stock' if on_gpu and version is None else 'fast'
    fast_on_gpu = on_gpu and args.engine == 'fast'
    if fast_on_gpu and version is None:
        raise Invalid(f'--engine: given fast, but there is no cuDNN ({why_not}); install '
                      'requirements-gpu.txt, or take --engine stock')
    if args.graph == 'auto':
        args.graph = 'on' if fast_on_gpu else 'off'
    if args.graph == 'on' and not fast_on_gpu:
        raise Invalid('--graph: given on, which needs --engine fast on a GPU; valid without: '
                      'off or auto')
    if args.autotune and not fast_on_gpu:
        raise Invalid('--autotune: valid with --engine fast on a GPU')
    print(f'Device: {describe(device)}, {args.dtype}, engine {args.engine}'
          f'{advice(args, on_gpu, version)}', flush=True)


def advice(args, on_gpu, cudnn):
    """Return what the line about the device adds on graphs, or on how to be faster."""
    if args.graph == 'on':
        return ', graph on'
    if on_gpu and args.engine == 'stock':
        return ' (slow: convolutions without cuDNN' + (
            ')' if cudnn else ', which requirements-gpu.txt has)')
    if not on_gpu and args.device == 'auto' and has_nvidia_gpu():
        return '; there is a GPU, but {}: {}'.format(*why_no_gpu())
    return ''


def use_engine(args, model, evaluator):
    """Let Chainer's functions be computed as ``--engine``, ``--graph`` and ``--autotune`` say.

    Args:
        args: As :func:`choose_engine` has left it.
        model (chainer.Link): What will be trained, on its device.
        evaluator (ExactEvaluator): With ``--graph on`` its evaluations are recorded and replayed.
    """
    chainer.global_config.autotune = args.autotune
    chainer.global_config.cudnn_deterministic = not args.autotune  # the same bits in each run
    engine.use(args.engine, model, graph=args.graph == 'on')
    if args.graph == 'on':
        from engine.gpu.evaluation import GraphedEvaluation
        evaluator.eval_func = GraphedEvaluation(model)
