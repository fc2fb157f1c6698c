"""A pair of groups to a judgement: each limit, and all of them together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advbench.compare.comparison import Claim
from advbench.compare.match import pairs, remarks
from advbench.compare.read import Group, read
from advbench.gate.limits import Limit, Verdict, accuracy, failing, passes, seconds
from advbench.gate.probes import drift, flags
from advbench.spec import BadInput
from advbench.stats.difference import LEAST_SEEDS

CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""Exit codes; 2 is bad input, as everywhere."""


@dataclass(frozen=True)
class Asked:
    """The limits, in fractions and ratios."""

    margin: float
    clean_margin: float
    passes: float | None = None
    seconds: float | None = None

    @classmethod
    def of(
        cls, margin: float, clean_margin: float | None, passes: float | None = None, seconds: float | None = None
    ) -> Asked:
        """From the command line's points and ratios. Raises BadInput."""
        clean = margin if clean_margin is None else clean_margin
        for name, points in (("--margin", margin), ("--clean-margin", clean)):
            if not 0 <= points <= 100:
                raise BadInput(f"{name}: points of accuracy between 0 and 100, not {points}")
        for name, ratio in (("--passes", passes), ("--seconds", seconds)):
            if ratio is not None and not 0 < ratio < math.inf:
                raise BadInput(f"{name}: how many times the old cost, such as 1.1, not {ratio}")
        return cls(margin / 100, clean / 100, passes, seconds)


@dataclass(frozen=True)
class Judgement:
    """NEW against OLD."""

    new: str
    old: str
    about: str
    limits: tuple[Limit, ...]
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return together([limit.verdict for limit in self.limits])

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        limits = [
            {
                "name": limit.name,
                "verdict": limit.verdict,
                "said": limit.said,
                "advice": list(limit.advice),
                "numbers": limit.numbers,
            }
            for limit in self.limits
        ]
        about = {"new": self.new, "old": self.old, "verdict": self.verdict, "about": self.about}
        return about | {"limits": limits, "remarks": list(self.remarks)}


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One FAIL is a FAIL; PASS needs all."""
    return "FAIL" if "FAIL" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"


def check(new: Path, old: Path, asked: Asked) -> list[Judgement]:
    """Judge what lies at two paths. Raises BadInput."""
    news, olds = read(new), read(old)
    matched = pairs(olds, news, old, new)
    found = [judge(after, before, asked, len(matched)) for before, after in matched]
    judged = {id(group) for pair in matched for group in pair}
    left = [f"not judged, only in {s}: {g.name}" for s, gs in (("NEW", news), ("OLD", olds)) for g in gs]
    ids = [id(group) for groups in (news, olds) for group in groups]
    said = tuple(text for text, group in zip(left, ids, strict=True) if group not in judged)
    return [*found[:-1], replace(found[-1], remarks=(*found[-1].remarks, *said))]


def judge(new: Group, old: Group, asked: Asked, among: int = 1) -> Judgement:
    """One pair, `among` so many that a gate FAILs by any of. Raises BadInput."""
    if not old.results:
        raise BadInput(f"{old.name}: every job of the old side FAILED: nothing to hold the new one to")
    if not new.results:
        failed = "; ".join(f"seed {record.seed}: FAILED ({record.reason})" for record in new.failed)
        limit = Limit("flags", "FAIL", f"new: {failed}")
        return Judgement(new.name, old.name, "a result that does not exist", (limit,))
    claim: Claim = "defenses" if min(len(new.results), len(old.results)) >= LEAST_SEEDS else "checkpoints"
    attacked = new.first.robust is not None
    robust_level, level = (x / among for x in failing(attacked, 1 + (asked.seconds is not None)))
    limits = [
        accuracy("robust accuracy", old, new, lambda r: r.robust, claim, asked.margin, robust_level),
        accuracy("clean accuracy", old, new, lambda r: r.clean, claim, asked.clean_margin, level),
        passes(old, new, asked.passes) if asked.passes is not None else None,
        seconds(old, new, asked.seconds, level) if asked.seconds is not None else None,
        flags(old, new),
        drift(old, new),
    ]
    kept = tuple(limit for limit in limits if limit)
    k, m = len(new.results), len(old.results)
    if claim == "defenses":
        about = f"this defense, {k} seeds against {m}"
    else:
        about = f"{'this checkpoint' if k == 1 else f'these {k} checkpoints'}, not the defense"
    return Judgement(new.name, old.name, about, kept, tuple(_remarks(new, old, claim)))


def _remarks(new: Group, old: Group, claim: Claim) -> list[str]:
    words = {"A": "OLD", "B": "NEW"}
    said = [f"{words[text[0]]}{text[1:]}" if text[1:2] == "," else text for text in remarks(old, new)]
    if any(result.robust is None for group in (new, old) for result in group.results):
        said.append("robust accuracy was not judged: an evaluation was not climbed to its end, or had no attack")
    if claim == "checkpoints":
        said.append(f"fewer than {LEAST_SEEDS} seeds on a side support no claim about a defense; add seeds for one")
    return said
