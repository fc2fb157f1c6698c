"""APGD: projected ascent with momentum that halves its own step size. Croce and Hein, ICML 2020 (arXiv 2003.01690).

AutoAttack's first two attacks with the hyper-parameters and the random laws of its authors' package: APGD-CE, and
APGD-T on the targeted DLR loss. In L1 a step moves few pixels, learns how few, and the ball shrinks from 3 eps to eps:
Croce and Hein, ICML 2021 (arXiv 2103.01208).

An example leaves as soon as it is fooled, and where few are left several runs of them share a batch. Neither changes
what becomes of an example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.apgd_schedule import checkpoints, radii
from advbench.attacks.base import Attack, fooled
from advbench.losses import cross_entropy, dlr, targeted_dlr
from advbench.seeds import BlockNoise
from advbench.spec import BadInput
from advbench.threat import Norm, Threat, per_example

Loss = Literal["ce", "dlr", "dlr-targeted"]
LEAST_CLASSES: dict[Loss, int] = {"ce": 2, "dlr": 3, "dlr-targeted": 4}
"""The DLR losses divide by differences of the best three or four logits."""
MOMENTUM = 0.25
"""Share of the last move in the next one: 1 - alpha in the paper, whose alpha is 0.75."""


class APGD(Attack):
    """Ascent with momentum that halves its own step size, on the cross-entropy or towards one class after the other.

    The candidate is the point that first fooled the model, or else the one of the highest loss.
    """

    name = "apgd"
    paper = "arXiv 2003.01690"
    everywhere: ClassVar[bool] = False

    loss: Loss = "ce"
    """Cross-entropy, or the difference of logits ratio: to the best other class, or to one class after the other."""
    steps: int = Field(default=100, ge=1, le=10_000)
    """Gradient steps a run (the paper's: 100)."""
    runs: int | None = Field(default=None, ge=1, le=1000)
    """Runs of an example: starts of an untargeted loss, or target classes, the likeliest on the clean image first.
    Default: AutoAttack's, 1 start (5 in L1 and below four classes) or 9 targets (5 in L1)."""
    rho: float = Field(default=0.75, gt=0, le=1)
    """A step size is halved when no more than this share of its steps raised the loss (the paper's: 0.75)."""
    together: int = Field(default=64, ge=1)
    """Examples a batch up to which several runs go side by side; changes nothing but speed."""
    eot: int | None = Field(default=None, ge=1, le=1000)
    """Passes a step over which loss and gradient are averaged, for a model that answers at random (Athalye et al.
    2018, arXiv 1802.00420; AutoAttack's rand version: 20). One lucky answer then proves nothing: no example leaves
    before the end, and the candidate is the point of the highest mean loss."""

    def parts(self, classes: int) -> tuple[Attack, ...]:
        if classes < (least := LEAST_CLASSES[self.loss]):
            raise BadInput(f"apgd: the loss '{self.loss}' needs {least} classes, here are {classes}; use loss = \"ce\"")
        return (self,)

    def runs_for(self, norm: Norm, classes: int) -> int:
        """How many runs an example gets: never more targets than there are other classes."""
        if self.loss == "dlr-targeted":
            return min(self.runs or (5 if norm == "L1" else 9), classes - 1)
        return self.runs or (5 if norm == "L1" or classes < 4 else 1)

    @torch.no_grad()
    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        logits = model(x)
        classes = logits.shape[1]
        self.parts(classes)
        runs = self.runs_for(threat.norm, classes)
        # The label is last: no target.
        targets = logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        candidates, highest = x.clone(), logits.new_full((len(x),), -torch.inf)
        # By which run an example was fooled, -1 without any; `runs` while it stands.
        by = torch.full_like(y, runs)
        if self.eot is None:
            by[fooled(model, x, logits, y)] = -1

        def stay(a: _Ascents, logits: Tensor) -> Tensor | None:
            """Note who is fooled. The rows (B',) of those that stay, or None when all do."""
            nonlocal by
            if not (logits.argmax(1) != a.y).any():
                return None
            wrong = fooled(model, a.x_adv, logits, a.y)
            hits = torch.full((runs, len(x)), runs, device=x.device)
            hits[a.run, a.example] = torch.where(wrong, a.run, runs)
            by = by.minimum(hits.amin(0))
            mine = (wrong & (a.run == by[a.example])).nonzero().squeeze(1)
            candidates[a.example[mine]] = a.x_adv[mine]
            # One run after another, the earlier ones would have gone to their end and the later ones never begun.
            kept = (a.run < by[a.example]).nonzero().squeeze(1)
            return kept if len(kept) < len(a.run) else None

        def attempt(rows: Tensor, first: int, starts: list[Tensor]) -> None:
            """The runs from `first` on side by side, one for each of `starts` (len(rows), ...), if there is memory."""
            try:
                side_by_side(rows, first, starts)
                return
            except torch.OutOfMemoryError:
                if len(starts) == 1:
                    raise
            half = len(starts) // 2
            attempt(rows, first, starts[:half])
            # Whom those fooled has no more to do.
            stands = by[rows] == runs
            if stands.any():
                attempt(rows[stands], first + half, [start[stands] for start in starts[half:]])

        def side_by_side(rows: Tensor, first: int, starts: list[Tensor]) -> None:
            width, example = len(starts), rows.repeat(len(starts))
            run = torch.arange(first, first + width, device=x.device).repeat_interleave(len(rows))
            kind = _SparseAscents if threat.norm == "L1" else _Ascents
            a = kind(self, model, x[example], y[example], targets[example, run % classes], example, run)
            start = torch.cat(starts)
            for times, steps in radii(threat.norm, self.steps):
                a.climb(start, threat.scaled(times), steps, stay if times == 1 and self.eot is None else None)
                start = a.best
            # Of those that stand all runs are left, in order: the best of each is its candidate so far.
            left = (by[a.example] == runs).nonzero().squeeze(1)
            left = left.view(width, len(left) // width)
            value, which = a.best_value[left].max(0)
            rows, place = a.example[left[0]], left.gather(0, which[None])[0]
            higher = value > highest[rows]
            candidates[rows[higher]], highest[rows[higher]] = a.best[place[higher]], value[higher]

        done = 0
        while done < runs and len(rows := (by == runs).nonzero().squeeze(1)):
            width = min(runs - done, max(1, self.together // len(rows)))
            here = noise.some(rows)
            attempt(rows, done, [_start(x[rows], threat, here) for _ in range(width)])
            done += width
        return candidates


def _start(x: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
    """Where a run begins, before it is projected: on the surface of the ball, in L1 at N(0, 1) away from x."""
    away = noise.uniform(x) if threat.norm == "Linf" else noise.normal(x)
    return x + away if threat.norm == "L1" else x + away * per_example(threat.eps / threat.size(away), x)


class _Ascents:
    """Ascents side by side in Linf or L2: row i of every tensor belongs to one of them, `run` of `example`."""

    longest = 2.0
    """The first step size, in eps."""

    def __init__(
        self, attack: APGD, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, example: Tensor, run: Tensor
    ) -> None:
        self.attack, self.model = attack, model
        self.x, self.y, self.target, self.example, self.run = x, y, target, example, run

    def climb(
        self, start: Tensor, threat: Threat, steps: int, stay: Callable[[_Ascents, Tensor], Tensor | None] | None
    ) -> None:
        """`steps` steps in one ball; `best` is then the point of the highest loss `best_value`, (B, ...) and (B,).

        `stay` is shown every `x_adv` and its logits and says whose rows go on; without it all do.
        """
        self.threat, self.project = threat, threat.projection(self.x)
        self._begin(self.project(start))
        due = checkpoints(threat.norm, steps)
        for done in range(steps + 1):
            if done:
                self._move(first=done == 1)
            goes_on = done < steps
            with torch.set_grad_enabled(goes_on):
                logits = self.model(self.x_adv.requires_grad_(goes_on))
                loss = self._loss(logits)
            kept = stay(self, logits.detach()) if stay else None
            if kept is not None and not len(kept):
                self._keep(kept)
                return
            value = loss.detach()
            if goes_on:
                self.grad = torch.autograd.grad(loss, self.x_adv, torch.ones_like(loss))[0]
            if self.attack.eot:
                value = self._averaged(value, self.attack.eot, with_gradient=goes_on)
            if kept is not None:
                self._keep(kept)
                value = value[kept]
            self._note(value)
            if done == 0:
                # As in the package, the first step is compared with a loss of 0, not with that of the start.
                self.value, self.rises = torch.zeros_like(value), torch.zeros_like(value)
                self.checked = self.best_value
            elif goes_on and done in due:
                self._reconsider(due[done])

    def _begin(self, start: Tensor) -> None:
        self.x_adv = self.x_old = self.best = start
        self.grad = self.best_grad = torch.zeros_like(start)
        self.value = self.rises = self.checked = start.new_zeros(len(start))
        self.best_value = torch.full_like(self.value, -torch.inf)
        self.step = per_example(torch.full_like(self.value, self.longest * self.threat.eps), start)
        self.halved = torch.ones_like(self.value, dtype=torch.bool)

    def _loss(self, logits: Tensor) -> Tensor:
        if self.attack.loss == "ce":
            return cross_entropy(logits, self.y)
        return dlr(logits, self.y) if self.attack.loss == "dlr" else targeted_dlr(logits, self.y, self.target)

    def _averaged(self, value: Tensor, passes: int, *, with_gradient: bool) -> Tensor:
        """The losses (B,), and in place the gradient, as means over so many passes, of which one is done."""
        for _ in range(passes - 1):
            with torch.set_grad_enabled(with_gradient):
                loss = self._loss(self.model(self.x_adv))
            value = value + loss.detach()
            if with_gradient:
                self.grad = self.grad + torch.autograd.grad(loss, self.x_adv, torch.ones_like(loss))[0]
        self.grad = self.grad / passes if with_gradient else self.grad
        return value / passes

    def _keep(self, rows: Tensor) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[rows])
        self.project = self.threat.projection(self.x)

    def _note(self, value: Tensor) -> None:
        """Compare the losses (B,) at x_adv with the ones before and with the highest."""
        self.rises = self.rises + (value > self.value)
        self.value = value
        higher = value > self.best_value
        self.best_value = torch.where(higher, value, self.best_value)
        higher = per_example(higher, self.x)
        self.best = torch.where(higher, self.x_adv, self.best)
        self.best_grad = torch.where(higher, self.grad, self.best_grad)

    def _move(self, *, first: bool) -> None:
        """A step along the steepest ascent, then a quarter of the last move on top; both projected."""
        ahead = self.project(torch.addcmul(self.x_adv, self.step, self.threat.steepest_ascent(self.grad)))
        if not first:
            last_move = self.x_adv - self.x_old
            ahead = self.project(ahead.lerp(self.x_adv, MOMENTUM).add_(last_move, alpha=MOMENTUM))
        self.x_old, self.x_adv = self.x_adv, ahead

    def _reconsider(self, window: int) -> None:
        """Halve the steps, from the best point on, of those that rose too seldom or stand where they stood before."""
        stuck = self.rises <= self.attack.rho * window
        idle = ~self.halved & (self.checked >= self.best_value)
        self.halved = stuck | idle
        self.checked, self.rises = self.best_value, torch.zeros_like(self.rises)
        self.step = torch.where(per_example(self.halved, self.step), self.step / 2, self.step)
        self._return_to_best(self.halved)

    def _return_to_best(self, rows: Tensor) -> None:
        rows = per_example(rows, self.x)
        self.x_adv = torch.where(rows, self.best, self.x_adv)
        self.grad = torch.where(rows, self.best_grad, self.grad)


class _SparseAscents(_Ascents):
    """In L1: no momentum, and a step moves only the pixels of the largest gradients. arXiv 2103.01208, algorithm 1."""

    longest = 1.0

    def _begin(self, start: Tensor) -> None:
        super()._begin(start)
        self._count()

    def _count(self) -> None:
        """How many pixels the best points have moved, (B,); the next steps move two thirds as many.

        By more than rounding, which leaves 1e-17 of a pixel that the projection took back. The package counts those.
        """
        self.moved = ((self.best - self.x).abs() > 1e-12).flatten(1).sum(1).to(self.value.dtype)
        self.share = self.moved / self.x[0].numel() / 1.5

    def _move(self, *, first: bool) -> None:
        del first
        flat = self.grad.flatten(1)
        size, pixels = flat.abs(), flat.shape[1]
        least = ((1 - self.share) * pixels).clamp(0, pixels - 1).long()
        chosen = flat.sign() * (size >= size.sort(dim=1).values.gather(1, least[:, None]))
        direction = chosen / (chosen.abs().sum(1, keepdim=True) + 1e-10)
        self.x_adv = self.project(torch.addcmul(self.x_adv, self.step, direction.view_as(self.x)))

    def _reconsider(self, window: int) -> None:
        """The longest step again, from the best point on, where that got sparser by 5 %; shorter steps elsewhere."""
        del window
        before, longest = self.moved, self.longest * self.threat.eps
        self._count()
        sparser = self.moved / before < 0.95
        step = torch.where(per_example(sparser, self.step), longest, self.step / 1.5)
        self.step = step.clamp(longest / 10, longest)
        self._return_to_best(sparser)
