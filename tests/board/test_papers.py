"""A record says whose defense it is by the digest of its file, and nothing else can claim that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advbench.board.papers import paper
from advbench.identity import code


def test_the_paper_is_that_of_the_very_file(make: Any, repo: Path):
    digest = code((repo / "baselines" / "fast_at.py").read_bytes())

    def said(**table: Any) -> str | None:
        record = make("fast-at")
        return paper(record.model_copy(update={"job": {**record.job, "defense": table}}))

    assert said(name="fast-at", file=None, sha256=digest) == "Wong, Rice, Kolter, ICLR 2020, arXiv 2001.03994"
    assert said(name="fast-at", file=None, sha256="0" * 64) is None
    assert said(name="fast-at") is None
    assert said(name="fast-at", sha256=["a"]) is None
