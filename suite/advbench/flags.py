"""What looks wrong in a result, said with the numbers that say so. Flags never change a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from advbench import watch
from advbench.record import Epoch, Flag
from advbench.scores import Verdicts


def of_training(history: Sequence[Epoch], *, eps: float, adversarial: bool, largest: float = 0) -> list[Flag]:
    """Flags that the training history raises: `dead`, `catastrophic-overfitting`, `robust-overfitting`.

    `largest` is the share of the most frequent label on validation. A defense that meets no attack while it trains
    (`adversarial` false) cannot overfit to one.
    """
    found = _dead(history, largest)
    if adversarial:
        found += _collapsed(history, eps, largest) or _overfitted(history, eps, largest)
    return found


def _dead(history: Sequence[Epoch], largest: float) -> list[Flag]:
    if not watch.dead(history, largest):
        return []
    share = history[-1].top_class
    return [
        Flag(
            name="dead",
            message=f"the last model gives one class to {share:.1%} of validation; try an eps ramp or a lower lr",
            evidence={"epoch": history[-1].epoch, "top_class": share},
        )
    ]


def _collapsed(history: Sequence[Epoch], eps: float, largest: float) -> list[Flag]:
    seen = watch.sightings(history, eps, largest)
    if not seen:
        return []
    first, last = seen[0].epoch, history[-1]
    return [
        Flag(
            name="catastrophic-overfitting",
            message=f"in epoch {first.epoch} PGD-10 leaves {first.pgd:.1%} where FGSM leaves {first.fgsm:.1%}"
            + (f", after {seen[0].best:.1%} before" if seen[0].best else "")
            + ("" if seen[-1].epoch is last else f"; back at {last.pgd:.1%} in epoch {last.epoch}"),
            evidence={
                "epoch": first.epoch,
                "fgsm": first.fgsm,
                "pgd": first.pgd,
                "last_fgsm": last.fgsm,
                "last_pgd": last.pgd,
                "best": seen[0].best,
                "arm": seen[0].arm,
            },
        )
    ]


def _overfitted(history: Sequence[Epoch], eps: float, largest: float) -> list[Flag]:
    fall = watch.overfitted(history, eps, largest)
    if fall is None:
        return []
    return [
        Flag(
            name="robust-overfitting",
            message=f"PGD-10 left {fall.best:.1%} around epoch {fall.best_epoch} and leaves {fall.last:.1%} at the end "
            f"(means of {watch.WINDOW} epochs); train for fewer epochs, or average the weights",
            evidence=asdict(fall),
        )
    ]


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
