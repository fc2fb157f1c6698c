"""Part by part: how large they are, with which seeds, and what is known after each and after all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from advbench.external import drawn
from advbench.ledger import STANDING
from advbench.seeds import derive
from advbench.task import Evaluation
from advbench.until import Rule, Until, Watch, climb_until


def test_points_are_hundredths() -> None:
    against = Path("x")

    assert Until.of(None, None, None, None) is None
    assert Until.of("decided", against, 5.0, 20.0) == Until(against, 0.05, 0.2)
    assert Until.of("decided", against, 0.0, None) == Until(against, 0, None)
    assert Until.of("decided", None, None, 0.01) == Until(None, None, 0.0001)
    assert Until.of("decided", None, None, 100.0) == Until(None, None, 1)


def watched(until: Until, *, theirs: bool = True) -> Watch:
    """All of four examples: one is robust here, and two by the other record."""
    watch = Watch(Rule(until, np.array([True, True, False, False]) if theirs else None, {}), 4)
    assert (watch.why, watch.plain()["stopped"], watch.plain()["robust"]) == (None, "masked gradient", [0, 1])
    watch.add(np.array([2, 0]), np.array([False, True]))
    assert (watch.why, watch.taken) == (None, 2)
    watch.add(np.array([1, 3]), np.array([False, False]))
    return watch


@pytest.mark.parametrize(
    ("margin", "width", "why"),
    [
        (0.3, None, "above -margin"),
        (0.2, None, "below -margin"),
        (0.25, None, "all examples"),  # it lies there
        (0.25, 0.0, "narrow enough"),
        (None, None, "all examples"),
    ],
)
def test_when_all_are_taken_nothing_is_open(margin: float | None, width: float | None, why: str) -> None:
    watch = watched(Until(Path("o"), margin, width))

    assert watch.plain() == {
        "stopped": why,
        "examples": 4,
        "of": 4,
        "robust": [0.25, 0.25],
        "difference": [-0.25, -0.25],
        "against": "o",
    }
    assert watch.said() == "4 of 4 examples: robust 25.0 % to 25.0 %, difference -25.00 to -25.00 points"


def test_without_another_record_there_is_no_difference() -> None:
    watch = watched(Until(width=0.0), theirs=False)

    assert watch.plain() == {"stopped": "narrow enough", "examples": 4, "of": 4, "robust": [0.25, 0.25]}
    assert watch.said() == "4 of 4 examples: robust 25.0 % to 25.0 %"


@pytest.mark.parametrize(("block", "sizes"), [(500, [11] * 18 + [7]), (100, [11] * 18 + [7]), (10, [10] * 20 + [5])])
@pytest.mark.parametrize("masked", [False, True])
def test_a_part_is_a_twentieth_or_a_block_with_a_seed_of_its_own(
    monkeypatch: pytest.MonkeyPatch, blobs: Any, block: int, sizes: list[int], masked: bool
) -> None:
    met: list[Any] = []
    told: list[Any] = []

    def climb(_job: Any, _net: Any, _key: str, part: Any, _attacks: Any, how: Evaluation, *rest: Any) -> Any:
        _classes, folder, tell = rest
        tell("pgd", 3, 7, "words")
        met.append((part.index.tolist(), how, folder.name))
        verdicts = torch.full((len(part),), STANDING)
        return SimpleNamespace(stopped=("x",) * masked, ledger=SimpleNamespace(broken_by=verdicts))

    monkeypatch.setattr("advbench.until.climb", climb)
    monkeypatch.setattr("advbench.until._joined", lambda found, *_: len(found))
    monkeypatch.setattr("advbench.until.ladder", lambda *_: [])
    how = Evaluation(block=block, seed=3, corruptions=("fog",))
    job: Any = SimpleNamespace(evaluation=how, journal_id="j")
    rule, test, model = Rule(Until(), None, {}), blobs(205), cast(Any, SimpleNamespace(network=None))
    count, watch = climb_until(
        rule,
        job,
        model,
        test,
        3,
        Path(),
        Path("j"),
        lambda *news: told.append(news),  # type: ignore[arg-type]
    )

    expected = sizes[:1] if masked else sizes
    assert [len(rows) for rows, _, _ in met] == expected
    assert [row for rows, _, _ in met for row in rows] == drawn(205, 3)[: sum(expected)].tolist()
    assert (count, watch.taken) == (len(expected), 0 if masked else 205)
    for number, (_, asked, folder) in enumerate(met):
        # What the model shows of itself, and attacks alone, are looked at in the first part.
        later = {"alone": 0, "stop": False} if number else {}
        changes = {"seed": derive(3, "until", number), "corruptions": None, **later}
        assert (asked, folder) == (how.model_copy(update=changes), str(number))
    assert told[0] == ("pgd", 0, 205, "first examples; words")
    if not masked:
        size = sizes[0]
        assert told[1][:3] == ("pgd", size, 205)
        assert told[1][3].startswith(f"{size} of 205 examples: robust ")
        assert told[1][3].endswith(" %; words")
