"""What a second attack, a digest and a few answers say of a record, with numbers that are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from advbench.audit import examine
from advbench.audit.examine import Bench, _told, clean, digest, places
from advbench.audit.repeat import Repeat
from advbench.data.base import Examples
from advbench.external import External, drawn
from advbench.outside import CLOSE

SEEN = next(share for share in np.arange(0.1, 0.2, 1e-5) if binom.sf(7, 100, share) >= 0.95)
"""Where 95 % of audits of 100 find the eight that refute."""
LUCK = "the luck of an attack explains no more than that in"
TOLD = {
    "refuted": (Repeat(100, 60, 8, 0, 0), f"{LUCK} 0.0039 of audits"),
    "refuted by what stood": (Repeat(100, 60, 1, 12, 11), f"{LUCK} 0.0032 of audits"),
    "few": (Repeat(4, 2, 0, 1, 0), "too few to refute anything; --examples 16 says more"),
    "doubtful": (Repeat(100, 60, 6, 0, 0), "as much by luck in 0.016 of audits; --examples 120 says more"),
    "doubtful to the end": (Repeat(120, 60, 6, 0, 0), "as much by luck in 0.016 of audits; there are no more examples"),
    "confirmed": (
        Repeat(100, 60, 0, 0, 0),
        f"{100 * SEEN:.1f} points too many would have been refuted in 95 % of audits",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_two_attacks_say_of_a_record_of_120(case: str):
    repeat, why = TOLD[case]

    found = _told(repeat, 120)

    fell = f"{repeat.fell} of {repeat.robust} that it calls robust fell to fresh randomness"
    assert found.said == f"{fell}, {repeat.stood} that it calls broken stood; {why}"
    assert (found.name, found.verdict) == ("attack", repeat.verdict)
    numbers = found.numbers
    counts = ("examples", "robust", "fell", "stood")
    assert [numbers[name] for name in counts] == [getattr(repeat, name) for name in counts]
    assert numbers["p_inflated"] == pytest.approx(binom.sf(repeat.fell - 1, repeat.fell + repeat.stood, 0.5))
    assert numbers["p_deflated"] == pytest.approx(binom.sf(repeat.unproven - 1, repeat.fell + repeat.unproven, 0.5))
    assert (numbers["unproven"], numbers["sees"]) == (repeat.unproven, repeat.sees)


@pytest.mark.parametrize(
    ("weights", "answers", "verdict", "said"),
    [
        (("a" * 64, "a" * 64), (None, None), "CONFIRMED", f"sha256 {'a' * 12}"),
        (("a" * 64, "b" * 64), ("x", "x"), "REFUTED", f"sha256 {'b' * 12}, and the record is of {'a' * 12}"),
        ((None, "b"), ("x", "x"), "CONFIRMED", "cannot be seen; it answers as the record's does"),
        (("a", None), ("x", "x"), "CONFIRMED", "cannot be seen; it answers as the record's does"),
        ((None, None), ("x", "y"), "INCONCLUSIVE", "no digest that both the record and the model have"),
        ((None, None), (None, None), "INCONCLUSIVE", "no digest that both the record and the model have"),
    ],
)
def test_weights_are_told_by_their_digest_or_else_by_their_answers(weights, answers, verdict, said):
    claim: Any = SimpleNamespace(weights=weights[0], job=SimpleNamespace(model={"answers_sha256": answers[0]}))
    model: Any = SimpleNamespace(about={"weights_sha256": weights[1], "answers_sha256": answers[1]})

    found = digest(claim, model)

    assert (found.name, found.verdict, found.said) == ("weights", verdict, said)
    assert (
        found.numbers
        == {
            "sha256": {"record": weights[0], "model": weights[1]},
            "cannot": {"answers": answers[1]},
            "no": {},
        }[said.split()[0]]
    )


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def examples() -> Examples:
    """Six, whose numbers are not their places."""
    return Examples(torch.zeros(6, 1, 1, 3), LABELS, torch.arange(6) * 10, peak=1)


def of(index: list[int], labels: list[int], job: Any = None) -> Any:
    return SimpleNamespace(rows=SimpleNamespace(index=np.array(index), label=np.array(labels)), job=job)


def outside(until: float | None, count: int) -> External:
    return External.model_construct(until=until, examples=count, evaluation=SimpleNamespace(seed=3))


def test_examples_are_found_by_their_numbers():
    finding, where = places(of([50, 40, 30, 20, 10, 0], LABELS.flip(0).tolist()), examples())

    assert where is not None
    assert where.tolist() == [5, 4, 3, 2, 1, 0]
    assert (finding.verdict, finding.said) == ("CONFIRMED", "the task's 6, with their labels")


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (of([0, 10, 20], [0, 1, 2]), "3 of the task's 6 are missing, 0 are none of them"),
        (of([0, 10, 20, 30, 40, 99], [0] * 6), "1 of the task's 6 are missing, 1 are none of them"),
        (of([0, 10, 20, 30, 40, 50], [0, 1, 2, 0, 2, 1]), "2 of 6 have other labels"),
        (of([0, 20], [0, 2], outside(None, 2)), "1 of the task's 2 are missing, 1 are none of them"),
    ],
)
def test_examples_that_are_not_the_task_s_are_told(claim: Any, said: str):
    finding, where = places(claim, examples())

    assert where is None
    assert (finding.verdict, finding.said) == ("REFUTED", said)


def test_of_a_model_from_elsewhere_there_may_be_fewer():
    finding, where = places(of([0, 10], [0, 1], outside(None, 2)), examples())
    assert (finding.verdict, where is not None) == ("CONFIRMED", True)
    some = drawn(6, 3)[:4]
    finding, where = places(of([10 * int(i) for i in some], LABELS[some].tolist(), outside(0.5, 6)), examples())
    assert where is not None
    assert where.tolist() == [int(i) for i in some]


class Pixels(nn.Module):
    """Its logits are the pixels; unsteady, it adds to them what it has not added before."""

    def __init__(self, step: float = 0.0) -> None:
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) + self.step * self.calls


def asked(network: nn.Module, predicted: list[int], right: list[bool]) -> Any:
    # Sure of two, less of the third; and within rounding of another answer about the fourth.
    near = 1 - CLOSE / 2
    pixels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1 - 2 * CLOSE, 0], [1, near, 0]], dtype=torch.float64)
    test = Examples(pixels.view(4, 1, 1, 3), torch.tensor([0, 1, 0, 0]), torch.arange(4), peak=1)
    evaluation = SimpleNamespace(votes=None)
    claim: Any = SimpleNamespace(
        rows=SimpleNamespace(predicted=np.array(predicted)),
        right=np.array(right),
        job=SimpleNamespace(evaluation=evaluation),
    )
    bench = Bench(SimpleNamespace(network=network), test, 3, Path())  # type: ignore[arg-type]
    return clean(claim, bench, np.arange(4), torch.arange(4))


@pytest.mark.parametrize(
    ("predicted", "right", "verdict", "said"),
    [
        ([0, 1, 0, 0], [True] * 4, "CONFIRMED", "0 of 4 answered otherwise"),
        ([0, 1, 0, 1], [True] * 3 + [False], "CONFIRMED", "0 of 4 answered otherwise, 1 more within rounding"),
        ([0, 1, 1, 1], [True] * 2 + [False] * 2, "REFUTED", "1 of 4 answered otherwise, 1 more within rounding"),
        ([2, 1, 0, 0], [True] * 4, "REFUTED", "1 of 4 answered otherwise"),
        ([0, 1, 0, 0], [True, False, True, True], "REFUTED", "1 of 4 answered otherwise"),
    ],
)
def test_answers_are_compared_but_for_rounding(predicted, right, verdict, said):
    found = asked(Pixels(), predicted, right)

    assert (found.name, found.verdict, found.said) == ("clean", verdict, said)
    assert found.numbers["examples"] == 4
    assert f"{found.numbers['differ']} of 4" in said
    assert found.numbers["within_rounding"] == ("rounding" in said)


def test_a_model_that_answers_otherwise_each_time_refutes_nothing():
    found = asked(Pixels(1.0), [2, 1, 0, 0], [True] * 4)

    assert (found.verdict, found.said) == (
        "INCONCLUSIVE",
        "1 of 4 answered otherwise; the model answers otherwise each time",
    )
    assert asked(Pixels(1.0), [0, 1, 0, 0], [True] * 4).verdict == "CONFIRMED"


def test_a_record_without_a_robust_accuracy_is_not_attacked():
    claim: Any = SimpleNamespace(robust=False)
    found = examine.again(claim, *[None] * 5, lambda *_: None)  # type: ignore[arg-type]

    assert (found.verdict, found.said) == (
        "CONFIRMED",
        "it claims no robust accuracy: its ladder was not climbed to the end",
    )
