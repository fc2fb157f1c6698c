"""What looks wrong in a result, said with the numbers that say so. Flags never change a score."""

from __future__ import annotations

from collections.abc import Sequence

from advbench.evaluate import Verdicts
from advbench.record import Epoch, Flag

DEAD_SHARE = 0.99
"""A model that gives one class to this share of validation has not learned; no data set here is so skewed."""
COLLAPSE_GAP = 0.3
"""Points (as a share) that FGSM accuracy lies above PGD accuracy in a collapsed fast AT; healthy runs of the
published curves stay below 0.15."""


def of_training(history: Sequence[Epoch], *, eps: float, adversarial: bool) -> list[Flag]:
    """Flags that the training history raises: `dead`, `catastrophic-overfitting`."""
    found: list[Flag] = []
    if history and history[-1].top_class >= DEAD_SHARE:
        share = history[-1].top_class
        found.append(
            Flag(
                name="dead",
                message=f"the last model gives one class to {share:.1%} of validation; try an eps ramp or a lower lr",
                evidence={"epoch": history[-1].epoch, "top_class": share},
            )
        )
    # While eps ramps up, the model meets a larger ball in validation than in training; that gap says nothing.
    full = [e for e in history if e.eps >= eps * (1 - 1e-9)]
    collapsed = [e for e in full if e.fgsm - e.pgd > COLLAPSE_GAP and e.pgd < e.fgsm / 2]
    if adversarial and collapsed:
        first, last = collapsed[0], history[-1]
        found.append(
            Flag(
                name="catastrophic-overfitting",
                message=f"from epoch {first.epoch} on PGD-10 leaves {first.pgd:.1%} where FGSM leaves {first.fgsm:.1%}"
                + ("" if last in collapsed else f"; recovered by epoch {last.epoch}"),
                evidence={
                    "epoch": first.epoch,
                    "fgsm": first.fgsm,
                    "pgd": first.pgd,
                    "last_fgsm": last.fgsm,
                    "last_pgd": last.pgd,
                },
            )
        )
    return found


def of_evaluation(verdicts: Verdicts) -> list[Flag]:
    """Flags that the verdicts raise: `zero-gradient` when gradient attacks find nothing where none points the way."""
    ledger = verdicts.ledger
    correct = ledger.correct
    if len(correct) == 0:
        return []
    broken = {v: int((ledger.broken_by == v).sum()) for v in range(len(verdicts.rungs))}
    empty = [name for i, name in enumerate(verdicts.rungs) if broken[i] == 0 and name in verdicts.gradient_rungs]
    flat = int(ledger.flat[correct].sum())
    if not empty or len(empty) < len(verdicts.gradient_rungs) or flat < len(correct) / 2:
        return []
    return [
        Flag(
            name="zero-gradient",
            message=f"{', '.join(empty)} found nothing, and the loss has an input gradient of exactly zero on "
            f"{flat} of {len(correct)} examples: the gradient is masked, this is no robustness",
            evidence={"flat": flat, "correct": len(correct), "attacks": empty},
        )
    ]
