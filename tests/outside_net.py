"""A file of another code base, with a network for the tiny task."""

from __future__ import annotations


def nets(*first: str) -> str:
    """The file; in a forward pass its network does `first`, line by line, before it answers."""
    return HEAD + "".join(f"        {line}\n" for line in first) + "        return self.head(x.flatten(1))\n"


HEAD = """\
import time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 4)
    def forward(self, x):
"""
NETS = nets()
