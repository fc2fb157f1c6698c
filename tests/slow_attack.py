"""An attack of one's own that waits until two processes share it, for tests of who helps whom."""

from __future__ import annotations

SLOW = """\
import os, time
from pathlib import Path
from advbench.attacks.base import Attack

class Slow(Attack):
    name = "slow"
    paper = "a test"
    everywhere = False

    def run(self, model, x, y, threat, noise):
        print("pid", os.getpid(), flush=True)
        if "PAIR" in os.environ:  # until somebody helps
            here = Path(os.environ["PAIR"])
            (here / f"here-{os.getpid()}").touch()
            end = time.monotonic() + 60
            while len(list(here.glob("here-*"))) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.2)
        return threat.random_start(x, noise)
"""
