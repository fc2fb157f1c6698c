"""The wheel, as users install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def build(repo: Path, folder: Path) -> Path:
    """The wheel of the checkout, built into `folder` by what is installed here."""
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repo)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel
