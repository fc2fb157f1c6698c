"""The whole of each flag of an evaluation, name, words and evidence, from numbers put in by hand; and its edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from advbench import flags, outcomes
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.record import Flag
from advbench.scores import Verdicts
from advbench.signs import ROUNDING, Signs

FINE = Signs(
    images=8,
    correct=6,
    softmax=False,
    nonfinite=0,
    stochastic=ROUNDING,
    changed=0.25,
    batch=ROUNDING,
    regrouped=0.5,
    optimises=False,
    disconnected=False,
    saturated=0.0,
    logits_flat=0.0,
)


@pytest.fixture(autouse=True)
def looks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the outcomes say has its own tests."""
    monkeypatch.setattr(outcomes, "RULES", ())


def verdicts(signs: Signs | None = FINE, *, flat: int = 0, bad: int = 0, **fields: Any) -> Verdicts:
    """Of ten examples one is read wrong; the first of the others have no gradient, and FGSM broke the first of all."""
    ledger = Ledger.open(torch.zeros(10, 1, 1, 1), torch.zeros(10, dtype=torch.int64), torch.arange(10))
    ledger.broken_by[:] = torch.tensor([0, 2, 1] + [STANDING] * 6 + [CLEAN])
    ledger.flat[:flat] = True
    ledger.flat[9] = True
    ledger.margin[:bad] = torch.inf
    ledger.predicted[:] = torch.arange(10) % 2
    ledger.done = ["clean", "fgsm", "pgd"]
    names: dict[str, Any] = {
        "rungs": ("fgsm", "square", "pgd"),
        "gradient_rungs": ("fgsm", "pgd"),
        "one_step": ("fgsm",),
    }
    names |= {"foot": ("fgsm",), "ledger": ledger, "scores": None, "signs": signs}
    return Verdicts(**(names | fields))


NOT_FINITE = "clean examples have logits that are NaN or infinite and count as wrong: find the layer that overflows, "
NOISE = (
    "the same batch gets other logits in another pass (by 0.002 of the largest; 25% of predictions change): turn the "
    "noise off, or attack the mean (autoattack-rand) and let passes vote (votes = N)"
)
BESIDE = (
    "an image's logits depend on the images beside it (by 0.002 of the largest; 50% of predictions change): use batch "
    "norm with its running statistics"
)
PROBABILITIES = (
    "the outputs are probabilities, for which the attacks' losses are not made: leave out the last softmax, and judge "
    "again"
)
DERIVATIVES = (
    "the forward pass takes derivatives: no fixed ladder is made for that; attack it adaptively, through the inner "
    "steps and around them"
)
LEFT = (
    "square were left out after a and b, so there is no robust accuracy; attack the model in another way, or climb on "
    "with stop = false (--no-stop)"
)
SAID: list[tuple[Verdicts, list[tuple[str, str, dict[str, Any]]]]] = [
    (verdicts(), []),
    (verdicts(None), []),
    (
        verdicts(bad=3),
        [
            (
                "non-finite-logits",
                f"3 of 10 {NOT_FINITE}and judge again",
                {"margins": 3, "examples": 10, "logits": 0, "images": 8},
            )
        ],
    ),
    (
        verdicts(None, bad=1),
        [
            (
                "non-finite-logits",
                f"1 of 10 {NOT_FINITE}and judge again",
                {"margins": 1, "examples": 10, "logits": 0, "images": 0},
            )
        ],
    ),
    (
        verdicts(replace(FINE, nonfinite=2)),
        [
            (
                "non-finite-logits",
                f"2 of 8 {NOT_FINITE}and judge again",
                {"margins": 0, "examples": 10, "logits": 2, "images": 8},
            )
        ],
    ),
    (
        verdicts(replace(FINE, softmax=True, optimises=True)),
        [
            (
                "softmax-output",
                PROBABILITIES,
                {"images": 8},
            ),
            (
                "optimises-in-forward",
                DERIVATIVES,
                {"images": 8},
            ),
        ],
    ),
    # What depends on the batch is told where the same batch is answered alike, for noise would look the same.
    (
        verdicts(replace(FINE, stochastic=2 * ROUNDING, batch=2 * ROUNDING)),
        [("stochastic", NOISE, {"difference": 0.002, "changed": 0.25, "images": 8})],
    ),
    (
        verdicts(replace(FINE, batch=2 * ROUNDING)),
        [("batch-dependent", BESIDE, {"difference": 0.002, "changed": 0.5, "images": 8})],
    ),
    (
        verdicts(stopped=("a", "b")),
        [
            (
                "stopped",
                LEFT,
                {"because": ["a", "b"], "left": ["square"]},
            )
        ],
    ),
]


@pytest.mark.parametrize(("found", "said"), SAID)
def test_a_flag_is_its_name_its_words_and_its_numbers(
    found: Verdicts, said: list[tuple[str, str, dict[str, Any]]]
) -> None:
    assert flags.of_evaluation(found) == [Flag(name=n, message=m, evidence=e) for n, m, e in said]


STAND_IN = "attack through a differentiable stand-in (BPDA)"
WHY = [
    (replace(FINE, disconnected=True, saturated=1), f"the logits carry no gradient to the image: {STAND_IN}"),
    (
        replace(FINE, saturated=0.5, logits_flat=0.24),
        "the logits are so large that softmax is exactly 0 or 1: divide them by their size, and judge again",
    ),
    (replace(FINE, saturated=0.5, logits_flat=0.25), f"something before the logits rounds or stops it: {STAND_IN}"),
    (None, f"something before the logits rounds or stops it: {STAND_IN}"),
]


@pytest.mark.parametrize(("signs", "why"), WHY)
def test_a_zero_gradient_comes_with_who_was_broken_all_the_same(signs: Signs | None, why: str) -> None:
    seen = (
        {"disconnected": signs.disconnected, "saturated": signs.saturated, "logits_flat": signs.logits_flat}
        if signs
        else {}
    )
    numbers = {"flat": 4, "correct": 9, "broken": 2, "attacks": ["fgsm", "pgd"]}

    assert flags.of_evaluation(verdicts(signs, flat=4)) == [
        Flag(
            name="zero-gradient",
            message=f"the loss has an input gradient of exactly zero on 4 of 9 examples; {why}",
            evidence=numbers | seen,
        )
    ]
    assert flags.of_evaluation(verdicts(signs, flat=4, gradient_rungs=())) == []


@pytest.mark.parametrize(
    ("flat", "withstood", "met", "classes", "raised", "masks"),
    [
        (5, 6, 10, 2, True, True),
        (4, 6, 10, 2, True, False),  # on most of nine examples means on five
        (5, 5, 10, 2, True, False),  # half of those that met it withstood
        (5, 6, 10, 1, True, False),  # it is dead, and no mask
        (5, 6, 10, 2, False, False),
    ],
)
def test_a_gradient_is_masked_where_it_is_zero_on_most_and_most_stand_without_a_bound(
    monkeypatch: pytest.MonkeyPatch, flat: int, withstood: int, met: int, classes: int, raised: bool, masks: bool
) -> None:
    failed = Flag(name="unbounded-attack-fails", message="", evidence={})
    monkeypatch.setattr(outcomes, "RULES", (lambda _: [failed] if raised else [],))
    monkeypatch.setattr(outcomes, "unbounded", lambda _: (withstood, met))
    found = verdicts(replace(FINE, saturated=0.5, logits_flat=0.25), flat=flat)
    found.ledger.predicted[:] = torch.arange(10) % classes

    both = ("zero-gradient", "unbounded-attack-fails")
    assert flags.masked(found) == (both if masks else ())
    # Where the logits still have slopes, attacks on their differences do find something.
    assert flags.masked(replace(found, signs=replace(FINE, saturated=0.5, logits_flat=0.24))) == ()
    assert flags.masked(replace(found, signs=None)) == (both if masks else ())
