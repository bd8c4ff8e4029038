"""Compute ``values.npz``, what PyTorch says about each case, for machines without PyTorch.

    python -m tests.reference.make_values          needs torch; run in the repository's root
"""
import os

import numpy as np

from tests.reference.cases import CASES, LAM, batch_of, digest, weights
from tests.reference.networks_torch import loss_and_gradients
from tests.test_network_against_torch import shapes

PATH = os.path.join(os.path.dirname(__file__), 'values.npz')


def main():
    values = {}
    for architecture, stem, layer_mix in CASES:
        x, t, index = batch_of(architecture, stem)
        loss, y, gradients, statistics = loss_and_gradients(
            architecture, weights(shapes(architecture, stem)), x, t, stem, layer_mix, LAM, index)
        case = f'{architecture} {stem} {layer_mix} '
        values[case + 'loss'] = loss
        values[case + 'logits'] = y
        values[case + 'digests'] = np.array(
            [digest(value) for _, value in sorted({**gradients, **statistics}.items())])
    np.savez_compressed(PATH, **values)
    print(f'{PATH}: {len(CASES)} cases')


if __name__ == '__main__':
    main()
