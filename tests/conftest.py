"""CIFAR-10 for the tests (real pixels where they are, otherwise a set of the same format); GPU.

``GPU=simulated pytest -m gpu`` runs the tests that need a GPU on one that is simulated.
"""
import http.server
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading

if os.environ.get('GPU') == 'simulated':  # before Chainer
    from tests import simulated_gpu
    simulated_gpu.install()

import engine  # isort: skip  # before NumPy, whose BLAS reads its settings once
import chainer
import numpy as np
import pytest
from PIL import Image

from experiment import cifar, svhn

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PIXELS = os.environ.get('CIFAR10_PIXELS', os.path.join(ROOT, '..', 'shared', 'cifar10'))
BUILD = os.path.join(PIXELS, 'build.py')


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not chainer.backends.cuda.available:
        pytest.skip('needs an NVIDIA GPU and CuPy')


@pytest.fixture(autouse=True)
def stock_chainer():
    """A test leaves Chainer as it found it, whatever a script has chosen."""
    before = {name: getattr(chainer.global_config, name)
              for name in ('autotune', 'cudnn_deterministic', 'dtype')}
    yield
    engine.switch(False)
    for name, value in before.items():
        setattr(chainer.global_config, name, value)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty dataset folder of Chainer's."""
    root = tmp_path / 'root'
    monkeypatch.setattr(chainer.dataset.download, '_dataset_root', str(root))
    return root


@pytest.fixture
def serve(monkeypatch):
    """A function that makes the server of CIFAR and SVHN answer with a content, or a part of it.

    The content may be a dictionary of them, by the names of the files.
    """
    servers = []

    def start(content, sent=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = content[self.path[1:]] if isinstance(content, dict) else content
                self.send_response(status)
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[:sent])

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(.01,)).start()
        for module in cifar, svhn:
            monkeypatch.setattr(module, 'URL', f'http://127.0.0.1:{server.server_port}/')

    monkeypatch.setenv('no_proxy', '*')
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope='session')
def cifar10_is_real():
    """Whether cifar10_root holds the real images."""
    return os.path.exists(BUILD)


@pytest.fixture(scope='session')
def cifar10_root(cifar10_is_real, tmp_path_factory):
    """A folder for CHAINER_DATASET_ROOT with cifar-10.npz in it: 50,000 + 10,000 images."""
    root = tmp_path_factory.mktemp('dataset')
    if cifar10_is_real:
        subprocess.run([sys.executable, BUILD, root], check=True, stdout=subprocess.DEVNULL)
        return str(root)
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 192, (10, 3, 1), np.uint8)  # of each class, hence learnable
    arrays = {}
    for split, n in (('train', 50000), ('test', 10000)):
        labels = (rng.permutation(n) % 10).astype(np.uint8)
        noise = rng.integers(0, 64, (n, 3, 1024), np.uint8)
        arrays[f'{split}_x'] = (colour[labels] + noise).reshape(n, 3072)
        arrays[f'{split}_y'] = labels
    path = root / 'pfnet' / 'chainer' / 'cifar' / 'cifar-10.npz'
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)
    return str(root)


@pytest.fixture(scope='session')
def cifar10_archive(cifar10_root):
    """A function that writes an archive of the official layout: six batches of n images."""
    def write(path, n):
        with np.load(os.path.join(cifar10_root, 'pfnet/chainer/cifar/cifar-10.npz')) as npz, \
                tarfile.open(path, 'w:gz') as tar:
            for i, name in enumerate([*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']):
                part = slice(i * n, (i + 1) * n)
                batch = pickle.dumps({'data': npz['train_x'][part],
                                      'labels': npz['train_y'][part].tolist()}, protocol=2)
                info = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
                info.size = len(batch)
                tar.addfile(info, io.BytesIO(batch))
        return str(path)
    return write


@pytest.fixture(scope='session')
def cifar10_images(cifar10_root):
    """A function that writes CIFAR-10 images as train/CLASS/*.png and test/CLASS/*.png."""
    def write(folder, n_train, n_test):
        path = os.path.join(cifar10_root, 'pfnet', 'chainer', 'cifar', 'cifar-10.npz')
        with np.load(path) as npz:
            for split, n in ('train', n_train), ('test', n_test):
                images = npz[f'{split}_x'][:n].reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)
                for i, (image, label) in enumerate(zip(images, npz[f'{split}_y'])):
                    path = folder / split / str(label) / f'{i:05}.png'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
        return str(folder)
    return write
