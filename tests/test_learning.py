"""The scripts learn: 300 iterations of batch 16 on CIFAR-10 images."""
import pytest

from tests.test_scripts import read_log, run


@pytest.mark.slow
@pytest.mark.parametrize('method', ['baseline', 'manifoldmixup'])
def test_300_iterations_lower_the_loss_clearly(cifar10_images, tmp_path, method):
    images = cifar10_images(tmp_path / 'images', 1600, 200)
    process = run(f'train_{method}.py', '--dataset', images, '--batchsize', '16', '--epoch', '3',
                  '--device', 'cpu', '--out', str(tmp_path / 'out'))
    assert process.returncode == 0, process.stderr
    log = read_log(tmp_path / 'out')
    assert log[-1]['iteration'] == 300
    loss = [entry['main/loss'] for entry in log]
    print(loss)
    assert loss[2] < loss[0] - 0.2
    assert log[-1]['main/accuracy'] > 0.15
