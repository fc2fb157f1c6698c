"""A defense that two processes share, for tests of launchers: where it is in its training, and how it may die."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEAD = """\
import os, signal, time
from pathlib import Path
from advbench.attacks.pgd import ascend
from advbench.defense import Defense

class Pair(Defense):
    name = "pair"
    paper = "a test"
    processes: int = 2
    trouble: str = ""
    pause: float = 0

    def workers(self):
        return self.processes

    def passes(self):
        return 3, 3
"""
"""A file may go on with another loss."""
LOSS = """
    def loss(self, state, x, y):
        if self.trouble and state.epoch == 1 and state.group.rank == 1:
            if self.trouble == "raise":
                raise ValueError("rank one does not like epoch 1")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.pause:
            print(f"in epoch {state.epoch}", flush=True)  # in one piece: several processes write
            time.sleep(self.pause)
        start = state.threat.random_start(x, state.noise)
        x_adv = ascend(state.model, x, y, state.threat, start=start, steps=2, step_size=state.threat.eps / 2)
        return state.cross_entropy(state.model(x_adv), y)
"""
PAIR = HEAD + LOSS
STANDARD = '[[defense]]\nname = "standard"\n'


def suite(folder: Path, tiny: Any, fields: str = "", more: str = "", epochs: int = 3) -> Path:
    (folder / "pair.py").write_text(PAIR, encoding="utf-8")
    return tiny(
        folder,
        "t",
        ("epochs = 1", f'epochs = {epochs}\nprecision = "fp32"'),
        ('name = "standard"', f'file = "pair.py"\n{fields}'),
        more=more,
    )


def said(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.txt").read_text(encoding="utf-8")
