"""Images a second on one CPU core, by augmentation: gathered, augmented, made float32.

    python -m benchmarks.augmentation

Generated images of CIFAR's size and number; the median of some rounds and their range, the
augmentations taking turns.  Seconds are those of the processor that this process used, so other
programs on the machine count little.  A table, then one line of JSON.

On one core of an AMD EPYC (Zen 3, a virtual machine; Python 3.11, NumPy 2.4), batches of 128:
blog 184,000, standard 260,000, none 580,000 images/s.
"""
import argparse
import json
import os
import platform
import statistics
import time

for variable in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(variable, '1')  # read when NumPy is imported

import numpy as np  # noqa: E402

from experiment.augmentation import AUGMENTATIONS  # noqa: E402
from experiment.batches import BatchConverter, Normalization  # noqa: E402
from experiment.dataset import LabeledImages  # noqa: E402
from experiment.device import cpu_model  # noqa: E402


def use_one_core():
    """The number of cores that this process may use: one where the system lets it choose."""
    if not hasattr(os, 'sched_setaffinity'):
        return os.cpu_count()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return 1


def seconds(converter, batches):
    start = time.process_time()
    for batch in batches:
        converter(batch)
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15, help='of each (default: %(default)s)')
    parser.add_argument('--images', type=int, default=12800, metavar='N',
                        help='in a round (default: %(default)s)')
    args = parser.parse_args()
    machine = {'cpu': cpu_model(), 'cores': use_one_core(), 'python': platform.python_version(),
               'numpy': np.__version__}

    random_state = np.random.RandomState(0)
    dataset = LabeledImages(random_state.randint(0, 256, (50000, 3, 32, 32), dtype=np.uint8),
                            random_state.randint(0, 10, 50000).astype(np.int32),
                            tuple('0123456789'))
    normalization = Normalization('standard', dataset.images)
    print(f'{machine["cpu"]}, {machine["cores"]} core(s), '
          f'Python {machine["python"]}, NumPy {machine["numpy"]}')
    print(f'{"augmentation":<14}{"batch":>6}{"images/s":>12}{"lowest":>12}{"highest":>12}')
    results = []
    for batchsize in (128, 256):
        converters = {name: BatchConverter(dataset, normalization, augmentation(), random_state)
                      for name, augmentation in AUGMENTATIONS.items()}
        order = random_state.permutation(50000)[:args.images].tolist()
        batches = [order[i:i + batchsize] for i in range(0, len(order), batchsize)]
        for converter in converters.values():
            seconds(converter, batches)  # warm-up; the converter prepares the set
        rates = {name: [] for name in converters}
        for _ in range(args.rounds):
            for name, converter in converters.items():
                rates[name].append(len(order) / seconds(converter, batches))
        for name, values in rates.items():
            row = {'augmentation': name, 'batchsize': batchsize,
                   'images_per_second': round(statistics.median(values)),
                   'lowest': round(min(values)), 'highest': round(max(values))}
            results.append(row)
            print('{augmentation:<14}{batchsize:>6}{images_per_second:>12,}{lowest:>12,}'
                  '{highest:>12,}'.format(**row))
    print(json.dumps({**machine, 'rounds': args.rounds, 'results': results}))


if __name__ == '__main__':
    main()
