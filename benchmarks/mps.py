"""NVIDIA's Multi-Process Service, by which a GPU runs kernels of several processes side by side.

Without it a GPU works for one process at a time, in turns.  It comes with the driver:
https://docs.nvidia.com/deploy/mps
"""
import contextlib
import os
import shutil
import subprocess
import tempfile

CONTROL = 'nvidia-cuda-mps-control'
TIMEOUT = 10  # seconds in which it has to start, and to end


@contextlib.contextmanager
def service(logs):
    """Run the service in a ``with`` block.

    Args:
        logs (str): A folder, which is made for its logs.

    Yields:
        dict: The environment of processes that are to use it; None where there is no service.
    """
    with contextlib.ExitStack() as stack:
        environment = None
        if shutil.which(CONTROL):
            pipes = stack.enter_context(
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            os.makedirs(logs)
            environment = {'CUDA_MPS_PIPE_DIRECTORY': pipes, 'CUDA_MPS_LOG_DIRECTORY': logs}
            stack.callback(control, environment, commands='quit\n')
            if not control(environment, '-d'):
                environment = None
        yield environment


def control(environment, *arguments, commands=''):
    """Call the control program; whether it did what it was asked to."""
    try:  # a daemon would keep a pipe for its output open
        done = subprocess.run([CONTROL, *arguments], input=commands, text=True, timeout=TIMEOUT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              env={**os.environ, **environment})
        return done.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
