"""What the board knows of the suite's own defenses, and that it runs none of them to know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advbench.board.defenses import adversarial, paper
from advbench.defense import Defense
from advbench.identity import code
from advbench.load import own
from advbench.wrapper import Wrapper


def test_the_paper_is_that_of_the_very_file(make: Any, repo: Path):
    digest = code((repo / "baselines" / "fast_at.py").read_bytes())

    def said(**table: Any) -> str | None:
        record = make("fast-at")
        return paper(record.model_copy(update={"job": {**record.job, "defense": table}}))

    assert said(name="fast-at", file=None, sha256=digest) == "Wong, Rice, Kolter, ICLR 2020, arXiv 2001.03994"
    assert said(name="fast-at", file=None, sha256="0" * 64) is None
    assert said(name="fast-at") is None
    assert said(name="fast-at", sha256=["a"]) is None


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "baselines").glob("*.py")), ids=lambda p: p.stem)
def test_of_each_baseline_it_knows_what_its_class_says(make: Any, file: Path):
    made = own(Defense, file)
    table = {"name": made.name, "base": {"name": "pgd-at"}} if issubclass(made, Wrapper) else {"name": made.name}
    record = make(made.name)
    found = adversarial(record.model_copy(update={"job": {**record.job, "defense": table}}))
    assert found == made().adversarial


def test_a_wrapper_is_what_its_base_is(make: Any):
    record = make("sam-at", job={"defense": {"base": {"name": "standard"}}})
    assert not adversarial(record)


def test_any_other_defense_says_it_by_the_checkpoint_that_was_kept(trained: Any):
    record = trained("mine", [0.4, 0.1, 0.3], clean=[0.5, 0.9, 0.8])
    kept = [record.model_copy(update={"best_epoch": epoch}) for epoch in (1, 2, None)]
    assert [adversarial(one) for one in kept] == [True, False, True]
    # Where both rules choose the same epoch it tells nothing.
    assert adversarial(trained("mine", [0.1, 0.4]).model_copy(update={"best_epoch": 2}))
    # Nor does one without a history.
    assert adversarial(trained("mine", []))
