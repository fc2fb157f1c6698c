"""What looks wrong in a result, said with the numbers that say so. Flags never change a score."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from advbench.evaluate import Verdicts
from advbench.record import Epoch, Flag

DEAD_SHARE = 0.99
"""A model that gives one class to this share of validation has not learned, unless the labels are so skewed."""
COLLAPSE_GAP = 0.3
"""How far FGSM accuracy lies above PGD accuracy in a collapsed run. In the 63 published CIFAR-10 runs of the FastAT
Benchmark (arXiv 2604.22853) the widest gap is at most 0.16 in 51 runs and at least 0.79 in the other 12."""


def of_training(history: Sequence[Epoch], *, eps: float, adversarial: bool, largest: float = 0) -> list[Flag]:
    """Flags that the training history raises: `dead`, `catastrophic-overfitting`.

    `largest` is the share of the most frequent label on validation.
    """
    found: list[Flag] = []
    if history and history[-1].top_class >= max(DEAD_SHARE, (1 + largest) / 2):
        share = history[-1].top_class
        found.append(
            Flag(
                name="dead",
                message=f"the last model gives one class to {share:.1%} of validation; try an eps ramp or a lower lr",
                evidence={"epoch": history[-1].epoch, "top_class": share},
            )
        )
    collapsed = _collapsed(history, eps) if adversarial else []
    if collapsed:
        first, last = collapsed[0], history[-1]
        found.append(
            Flag(
                name="catastrophic-overfitting",
                message=f"in epoch {first.epoch} PGD-10 leaves {first.pgd:.1%} where FGSM leaves {first.fgsm:.1%}"
                + ("" if last in collapsed else f"; back at {last.pgd:.1%} in epoch {last.epoch}"),
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


def _collapsed(history: Sequence[Epoch], eps: float) -> list[Epoch]:
    """Epochs in which the model stands against one step and falls to ten, and did better before or never will.

    A wide gap alone is no collapse: early in a hard training PGD accuracy is still on its way up. And while eps
    ramps, validation meets a larger ball than training did, so those epochs say nothing.
    """
    found: list[Epoch] = []
    best = 0.0
    for epoch in (e for e in history if e.eps >= eps * (1 - 1e-9)):
        gap = epoch.fgsm - epoch.pgd > COLLAPSE_GAP and epoch.pgd < epoch.fgsm / 2
        if gap and (epoch.pgd < best / 2 or epoch is history[-1]):
            found.append(epoch)
        best = max(best, epoch.pgd)
    return found


def of_evaluation(verdicts: Verdicts) -> list[Flag]:
    """Flags that the verdicts raise: `zero-gradient` when gradient attacks fail where no gradient points the way.

    Their random starts still break an example here and there, so they need not fail on all.
    """
    ledger = verdicts.ledger
    correct = ledger.correct
    if len(correct) == 0:
        return []
    numbers = [i for i, name in enumerate(verdicts.rungs) if name in verdicts.gradient_rungs]
    fallen = ledger.flat[correct] & torch.isin(ledger.broken_by[correct], torch.tensor(numbers))
    flat, broken = int(ledger.flat[correct].sum()), int(fallen.sum())
    if not numbers or flat < len(correct) / 2 or broken >= flat / 2:
        return []
    attacks = list(verdicts.gradient_rungs)
    return [
        Flag(
            name="zero-gradient",
            message=f"the loss has an input gradient of exactly zero on {flat} of {len(correct)} examples, and "
            f"{', '.join(attacks)} broke {broken} of them: the gradient is masked, this is no robustness",
            evidence={"flat": flat, "correct": len(correct), "broken": broken, "attacks": attacks},
        )
    ]
