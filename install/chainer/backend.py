"""The way from here to the shared backend: pip allows no `backend-path` outside the folder."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edited_release import build_sdist, build_wheel  # noqa: F401
