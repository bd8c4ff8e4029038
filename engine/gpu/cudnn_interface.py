"""cuDNN's Python interface, nvidia-cudnn-frontend."""
import sys


def load():
    """Import the module ``cudnn`` without PyTorch, and return it.

    Where PyTorch is installed ``cudnn`` imports it, which takes seconds, but does not need it.

    Raises:
        ImportError: If the interface is not installed.
    """
    hide = 'torch' not in sys.modules
    if hide:
        sys.modules['torch'] = None  # importing it raises ImportError
    try:
        import cudnn
    finally:
        if hide:
            del sys.modules['torch']
    return cudnn
