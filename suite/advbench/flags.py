"""What looks wrong in a result, said with the numbers that say so. Flags never change a score.

docs/flags.md has a section for each: what was seen, what it means, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from advbench import outcomes, watch
from advbench.record import Epoch, Flag
from advbench.scores import Verdicts
from advbench.signs import ROUNDING

FLAT = 0.05
"""Share of the correct examples without a gradient. The score of a few hundred examples has an interval of some
+-4 points, out of which fewer cannot take it."""


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
    """All flags that the verdicts raise, those first that a look at the model raises before any attack."""
    looks = (_non_finite, _softmax, _stochastic, _batch_dependent, _optimises, _zero_gradient)
    return [flag for rule in (*looks, *outcomes.RULES, _stopped) for flag in rule(verdicts)]


def masked(verdicts: Verdicts) -> tuple[str, ...]:
    """Flags of the cheap rungs that leave dearer gradient attacks nothing to prove, or none: the names.

    The gradient is zero on most examples, and most withstand an attack without a bound. Where only softmax is 0 or 1
    the logits still have slopes, and attacks on their differences do find something. A model of one class is no mask:
    it is `dead`, and what it stands on is the share of that class.
    """
    ledger = verdicts.ledger
    withstood, met = outcomes.unbounded(verdicts)
    flat = int(ledger.flat[ledger.correct].sum())
    if 2 * flat <= len(ledger.correct) or 2 * withstood <= met or len(ledger.predicted.unique()) == 1:
        return ()
    both = ("zero-gradient", "unbounded-attack-fails")
    saturated = verdicts.signs is not None and verdicts.signs.logits_flat < verdicts.signs.saturated / 2
    found = {flag.name for flag in of_evaluation(verdicts)}
    return both if found >= set(both) and not saturated else ()


def _non_finite(verdicts: Verdicts) -> list[Flag]:
    """The margins of all test examples are looked at, and the logits of a few."""
    ledger, signs = verdicts.ledger, verdicts.signs
    bad = int((~ledger.margin.isfinite()).sum())
    logits, images = (signs.nonfinite, signs.images) if signs else (0, 0)
    if not bad and not logits:
        return []
    seen = f"{bad} of {len(ledger)}" if bad else f"{logits} of {images}"
    return [
        Flag(
            name="non-finite-logits",
            message=f"{seen} clean examples have logits that are NaN or infinite and count as wrong: "
            "find the layer that overflows, and judge again",
            evidence={"margins": bad, "examples": len(ledger), "logits": logits, "images": images},
        )
    ]


def _softmax(verdicts: Verdicts) -> list[Flag]:
    """Cross-entropy takes a second softmax of probabilities, whose gradient is small where the first is sure."""
    if not (signs := verdicts.signs) or not signs.softmax:
        return []
    return [
        Flag(
            name="softmax-output",
            message="the outputs are probabilities, for which the attacks' losses are not made: "
            "leave out the last softmax, and judge again",
            evidence={"images": signs.images},
        )
    ]


def _stochastic(verdicts: Verdicts) -> list[Flag]:
    """One lucky pass decides who is broken, and one gradient is not the gradient of the mean."""
    if not (signs := verdicts.signs) or signs.stochastic <= ROUNDING:
        return []
    return [
        Flag(
            name="stochastic",
            message=f"the same batch gets other logits in another pass (by {signs.stochastic:.2g} of the largest; "
            f"{signs.changed:.0%} of predictions change): turn the noise off, or attack the mean (autoattack-rand) "
            "and let passes vote (votes = N)",
            evidence={"difference": signs.stochastic, "changed": signs.changed, "images": signs.images},
        )
    ]


def _batch_dependent(verdicts: Verdicts) -> list[Flag]:
    """Only where the forward pass is deterministic: noise would look the same."""
    if not (signs := verdicts.signs) or signs.batch <= ROUNDING or signs.stochastic > ROUNDING:
        return []
    return [
        Flag(
            name="batch-dependent",
            message=f"an image's logits depend on the images beside it (by {signs.batch:.2g} of the largest; "
            f"{signs.regrouped:.0%} of predictions change): use batch norm with its running statistics",
            evidence={"difference": signs.batch, "changed": signs.regrouped, "images": signs.images},
        )
    ]


def _optimises(verdicts: Verdicts) -> list[Flag]:
    """What an inner optimisation undoes in its own steps the attacks' gradients do not see as one function."""
    if not (signs := verdicts.signs) or not signs.optimises:
        return []
    return [
        Flag(
            name="optimises-in-forward",
            message="the forward pass takes derivatives: no fixed ladder is made for that; attack it adaptively, "
            "through the inner steps and around them",
            evidence={"images": signs.images},
        )
    ]


def _zero_gradient(verdicts: Verdicts) -> list[Flag]:
    """The cross-entropy's gradient at the clean example is zero in every pixel: attacks that follow it do not start."""
    ledger, signs = verdicts.ledger, verdicts.signs
    correct = ledger.correct
    flat = ledger.flat[correct]
    count = int(flat.sum())
    numbers = torch.tensor([i for i, name in enumerate(verdicts.rungs) if name in verdicts.gradient_rungs])
    if not len(numbers) or count <= FLAT * len(correct):
        return []
    broken = int((flat & torch.isin(ledger.broken_by[correct], numbers)).sum())
    if signs and signs.disconnected:
        why = "the logits carry no gradient to the image: attack through a differentiable stand-in (BPDA)"
    elif signs and signs.logits_flat < signs.saturated / 2:
        why = "the logits are so large that softmax is exactly 0 or 1: divide them by their size, and judge again"
    else:
        why = "something before the logits rounds or stops it: attack through a differentiable stand-in (BPDA)"
    return [
        Flag(
            name="zero-gradient",
            message=f"the loss has an input gradient of exactly zero on {count} of {len(correct)} examples; {why}",
            evidence={
                "flat": count,
                "correct": len(correct),
                "broken": broken,
                "attacks": list(verdicts.gradient_rungs),
            }
            | ({n: getattr(signs, n) for n in ("disconnected", "saturated", "logits_flat")} if signs else {}),
        )
    ]


def _stopped(verdicts: Verdicts) -> list[Flag]:
    """The ladder was left before its dear rungs, so there is no robust accuracy."""
    if not verdicts.stopped:
        return []
    left = [name for name in verdicts.rungs if name not in verdicts.ledger.done]
    return [
        Flag(
            name="stopped",
            message=f"{', '.join(left)} were left out after {' and '.join(verdicts.stopped)}, so there is no robust "
            "accuracy; attack the model in another way, or climb on with stop = false (--no-stop)",
            evidence={"because": list(verdicts.stopped), "left": left},
        )
    ]
