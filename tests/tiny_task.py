"""A whole task of a second, for tests that want the real thing in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TINY = """\
version = 1
title = "Tiny"

[data]
name = "npz"
path = "tiny.npz"

[model]
name = "linear"

[threat]
norm = "Linf"
eps = "1/10"

[training]
epochs = 1
batch = 16
seeds = [0]

[evaluation]
attacks = ["fgsm"]

[[defense]]
name = "standard"
"""
"""A whole task of a second. Tests write it with pieces replaced."""


def write(folder: Path, name: str = "tiny", *changes: tuple[str, str], more: str = "") -> Path:
    """`folder/NAME.toml`, with its data beside it; each (old, new) replaces a piece, `more` is added."""
    data = folder / "data" / "tiny.npz"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        arrays = {}
        for split, n in (("train", 64), ("test", 32)):
            labels = np.arange(n) % 4
            images = rng.integers(0, 100, (n, 4, 4), dtype=np.uint8)
            images[np.arange(n), labels] += 120  # class c: a bright row c
            arrays |= {f"x_{split}": images, f"y_{split}": labels}
        np.savez(data, **arrays)
    text = TINY
    for old, new in changes:
        assert old in text, f"the tiny task has no {old!r} to replace"
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text + more, encoding="utf-8")
    return path
