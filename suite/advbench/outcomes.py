"""Outcomes that should not be: attacks compared on the same examples, to see which of them failed.

The rules are of Athalye et al., ICML 2018 (arXiv 1802.00420), section 3.1, and Carlini et al., On Evaluating
Adversarial Robustness (arXiv 1902.06705). Two attacks are told apart by the examples that only one of them broke: an
exact sign test (McNemar 1947), never a difference of two rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from advbench.ledger import CLEAN
from advbench.record import Flag
from advbench.scores import Verdicts

LEVEL = 1e-3
"""Chance that a rule which counts speaks up where there is nothing. A board of 30 models asks each some five such
questions: together one false flag in seven boards, were every model at the border of every rule."""

MISSED = 0.05
"""Share that an unbounded attack may miss: it may go anywhere, but has 20 steps."""

GAP = 0.10
"""Share of the test examples between PGD and the whole ladder. Of the defenses that AutoAttack's authors judged on
CIFAR-10, those trained on PGD lost up to 9 points of what their papers had reported, and the others 11 to 67 (table 2
of arXiv 2003.01690, and the first leaderboard in its repository)."""


def _unlikely(seen: int, of: int, share: float) -> bool:
    """Whether `seen` or more of `of` are nearly impossible where each one has the chance `share`."""
    from scipy.stats import binomtest

    return of > 0 and float(binomtest(seen, of, share, alternative="greater").pvalue) < LEVEL


def _only(one: Tensor, other: Tensor) -> tuple[int, int]:
    """Examples that only the first attack broke, and only the second one, of those that both met."""
    met = (one >= 0) & (other >= 0)
    return int((met & (one == 0) & (other == 1)).sum()), int((met & (one == 1) & (other == 0)).sum())


def _stronger(mine: int, theirs: int) -> bool:
    """Whether an attack that alone broke `mine` is stronger than one that alone broke `theirs`."""
    return _unlikely(mine, mine + theirs, 0.5)


class _Outcomes:
    """Who withstood what, by name; int8 columns of all test examples: 1 withstood, 0 broken, -1 not tried."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.columns = verdicts.ledger.withstood
        self.names = verdicts.rungs
        self.right = verdicts.ledger.broken_by != CLEAN
        self.followers = verdicts.gradient_rungs
        cheap = self.known(verdicts.foot)
        self.one_step = [name for name in cheap if name in verdicts.one_step]
        self.many_steps = [name for name in cheap if name in self.followers and name not in self.one_step]

    def known(self, names: Iterable[str]) -> list[str]:
        """Those that have a column with anything in it."""
        return [name for name in names if name in self.columns and bool((self.columns[name] >= 0).any())]

    def all_of(self, names: Sequence[str]) -> Tensor:
        """The column of several attacks together: their worst case, where each of them was tried."""
        return torch.stack([self.columns[name] for name in names]).amin(0)


def black_box_beats_white_box(verdicts: Verdicts) -> list[Flag]:
    """Against all the white boxes together, on the sample that met each attack alone."""
    outcomes = _Outcomes(verdicts)
    white = outcomes.known(outcomes.followers)
    found: list[Flag] = []
    for black in outcomes.known(name for name in outcomes.names if name not in outcomes.followers):
        mine, theirs = _only(outcomes.columns[black], outcomes.all_of(white)) if white else (0, 0)
        if _stronger(mine, theirs):
            found.append(
                Flag(
                    name="black-box-beats-white-box",
                    message=f"{black} alone breaks {mine} examples that no gradient attack breaks, and misses {theirs} "
                    "of theirs: the gradients mislead; attack through a differentiable stand-in, or transfer",
                    evidence={"black": black, "white": white, "black_only": mine, "white_only": theirs},
                )
            )
    return found


def one_step_beats_many(verdicts: Verdicts) -> list[Flag]:
    """FGSM against each attack of many steps that met every example."""
    outcomes = _Outcomes(verdicts)
    found: list[Flag] = []
    for one in outcomes.one_step:
        for many in outcomes.many_steps:
            mine, theirs = _only(outcomes.columns[one], outcomes.columns[many])
            if _stronger(mine, theirs):
                found.append(
                    Flag(
                        name="one-step-beats-many",
                        message=f"{one} breaks {mine} examples that {many} does not, and misses {theirs} of its: many "
                        "steps should find more; try other step sizes and starts, and look at the loss along the way",
                        evidence={"one": one, "many": many, "one_only": mine, "many_only": theirs},
                    )
                )
    return found


def unbounded(verdicts: Verdicts) -> tuple[int, int]:
    """How many correct examples of the sample withstood an attack that may go anywhere in the box, of how many."""
    outcomes = _Outcomes(verdicts)
    if not outcomes.known(["sign/unbounded"]):
        return 0, 0
    met = outcomes.columns["sign/unbounded"][outcomes.right]
    return int((met == 1).sum()), int((met >= 0).sum())


def unbounded_attack_fails(verdicts: Verdicts) -> list[Flag]:
    """PGD-20 in a ball that holds the whole box can turn any image into any other one."""
    withstood, met = unbounded(verdicts)
    if not _unlikely(withstood, met, MISSED):
        return []
    return [
        Flag(
            name="unbounded-attack-fails",
            message=f"{withstood} of {met} examples withstand PGD-20 that may go anywhere in the box: "
            "the attack fails, not the threat; repair the gradient before you believe the score",
            evidence={"withstood": withstood, "examples": met},
        )
    ]


def larger_eps_does_not_hurt(verdicts: Verdicts) -> list[Flag]:
    """At twice the radius PGD-20 breaks no more than the ladder's cheap gradient attacks at the radius itself.

    In a ball that is small for the model the second radius may cost nothing by chance. So it speaks where that breaks
    fewer than the first; where no radius at all would do; or where it should have broken some, had it half of the first
    one's rate: those that stood the first one are the harder ones.
    """
    outcomes = _Outcomes(verdicts)
    cheap = outcomes.one_step + outcomes.many_steps
    if not cheap or not outcomes.known(["sign/further"]):
        return []
    further, near = outcomes.columns["sign/further"], outcomes.all_of(cheap)
    lost, gained = _only(further, near)
    met = outcomes.right & (further >= 0)
    correct, broken = int(met.sum()), int((met & (near == 0)).sum())
    standing = correct - broken
    expected = (1 - broken / correct / 2) ** standing < LEVEL
    hopeless = standing > 0 and _unlikely(*unbounded(verdicts), MISSED)
    if not _stronger(gained, lost) and (lost > gained or not (expected or hopeless)):
        return []
    return [
        Flag(
            name="larger-eps-does-not-hurt",
            message=f"twice the radius breaks {lost} examples more and {gained} fewer of {correct}: a larger ball "
            "holds the smaller one, so the attack fails; repair the gradient or take more steps",
            evidence={"lost": lost, "gained": gained, "broken": broken, "examples": correct},
        )
    ]


def pgd_gap(verdicts: Verdicts) -> list[Flag]:
    """Examples that withstood PGD and fell to a later, dearer rung."""
    outcomes = _Outcomes(verdicts)
    if not outcomes.many_steps:
        return []
    cheap = outcomes.one_step + outcomes.many_steps
    later = torch.tensor([i for i, name in enumerate(outcomes.names) if name not in cheap])
    withstood = outcomes.all_of(outcomes.many_steps) == 1
    fell, n = int((withstood & torch.isin(verdicts.ledger.broken_by, later)).sum()), len(withstood)
    if not _unlikely(fell, n, GAP):
        return []
    return [
        Flag(
            name="pgd-gap",
            message=f"{fell} of {n} examples withstand {' and '.join(outcomes.many_steps)} and fall to a stronger "
            "rung: do not compare it by PGD, nor choose its checkpoint by it; attack it adaptively before you claim it",
            evidence={"fell": fell, "examples": n, "pgd": outcomes.many_steps},
        )
    ]


RULES = (black_box_beats_white_box, one_step_beats_many, unbounded_attack_fails, larger_eps_does_not_hurt, pgd_gap)
"""Each takes the verdicts on one set of weights, and returns the flags that it raises."""
