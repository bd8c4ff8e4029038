"""How fast a training step could be at best: its operations and bytes, kernel by kernel.

    python -m benchmarks.floor                       a table of all networks, for a batch of 128

They are counted on the network in PyTorch, with shapes alone and no numbers.  A step is taken to be
these kernels, in order, each of which reads what it needs once and writes its results once:

    convolution, linear   forward: reads x and W, writes y; for W's gradient: reads x and gy, writes
                          gW; for x's: reads gy and W, writes gx.  2 operations a multiply-add,
                          the same number in each of the three.  Images have no gradient.
    BN, sum and ReLU      are one kernel.  Forward: reads y twice, since the statistics have to be
                          known before it can be normalized, and the shortcut, writes z.  Backward:
                          reads gz and y twice, writes gy.  The sign that ReLU needs is computed
                          anew or is one bit.
    sum of a block        the kernels beside it read the shortcut and the gradient that meets
                          another one at the block's input; behind a ReLU the masked gradient is
                          written for the shortcut.
    pooling               forward: reads x, writes y; backward: reads gy, writes gx.
    Adam                  reads w, g, m, v and writes w, m, v; with float16 g is half as large, and
                          w is written in half precision too.

Feature maps and their gradients are float32 (tf32) or float16.  The floor is the sum over the
kernels of the longer of operations / matrix rate and bytes / memory bandwidth, both as measured on
the device.  It holds for kernels that are fused as above and pass everything through the GPU's
memory.  A step whose feature maps stay in the cache between two kernels, or that fuses more, can go
below it, as small batches on a large cache may.
"""
import contextlib

import torch
from torch import nn

from benchmarks import networks_torch

ITEMSIZE = {'tf32': 4, 'fp16': 2}


def kernels(architecture, stem, batch, precision, side=32):
    """``(operations, bytes)`` of each kernel of a step on images of ``side`` x ``side``."""
    with torch.device('meta'):
        network = networks_torch.network(architecture, stem)
        return count(network, torch.empty(batch, 3, side, side), ITEMSIZE[precision])


def count(network, x, itemsize):
    """The kernels of any network of the layers described above, as :func:`kernels` gives them."""
    found = []

    def add(elements, multiply_adds=0):
        found.append((2 * multiply_adds, elements * itemsize))

    def matmul(module, inputs, y):
        x, W = inputs[0].numel(), module.weight.numel()
        multiply_adds = y.numel() * W // module.weight.shape[0]
        has_gradient = inputs[0] is not images
        for _ in range(2 + has_gradient):
            add(x + W + y.numel(), multiply_adds)

    def normalization(module, inputs, z):
        add(2 * z.numel() + z.numel())
        add(4 * z.numel() + z.numel())

    def pooling(module, inputs, y):
        for _ in 'forward', 'backward':
            add(inputs[0].numel() + y.numel())

    def block(module, inputs, y):
        add(y.numel())
        add(inputs[0].numel() + y.numel() * isinstance(module, networks_torch.Block))

    hooks = {nn.Conv2d: matmul, nn.Linear: matmul, nn.BatchNorm2d: normalization,
             nn.MaxPool2d: pooling, nn.AdaptiveAvgPool2d: pooling,
             networks_torch.Block: block, networks_torch.PreAct: block}
    images = x
    with contextlib.ExitStack() as stack, torch.no_grad():
        for module in network.modules():
            for kind, hook in hooks.items():
                if isinstance(module, kind):
                    stack.callback(module.register_forward_hook(hook).remove)
        network(images)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    found.append((0, parameters * 28))  # 7 x 4 bytes, or 6 x 4 + 2 + 2
    return found


def total(found):
    """The operations and the bytes of all kernels together."""
    return tuple(sum(values) for values in zip(*found))


def milliseconds(found, tflops, gb_per_s):
    """The floor of these kernels in milliseconds, at the rates of a device."""
    return 1e3 * sum(max(operations / (tflops * 1e12), size / (gb_per_s * 1e9))
                     for operations, size in found)


def main():
    from benchmarks.contestants import CASES
    print(f'{"batch 128":<20}{"GFLOP":>10}{"GB tf32":>10}{"GB fp16":>10}')
    for case, (architecture, stem) in CASES.items():
        operations, tf32 = total(kernels(architecture, stem, 128, 'tf32'))
        _, fp16 = total(kernels(architecture, stem, 128, 'fp16'))
        print(f'{case:<20}{operations / 1e9:>10,.0f}{tf32 / 1e9:>10.2f}{fp16 / 1e9:>10.2f}')


if __name__ == '__main__':
    main()
