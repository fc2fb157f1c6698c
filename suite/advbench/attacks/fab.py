"""FAB: the nearest point of another class, by linearising the boundary. Croce and Hein, ICML 2020 (arXiv 1907.02044).

An iteration (algorithm 1) takes the boundary to a class for its tangent hyperplane at the iterate, projects both the
iterate and the example onto it within the pixel box, and steps to a mean of the two, so that the iterate is drawn home.
Where the step fools the model, the iterate goes a tenth of its way back, and crosses the boundary again.

The authors' package goes on to the end and keeps the nearest fooling point, of which an ensemble asks only one thing:
whether it lies within eps. So here an example leaves with its first fooling point within eps: no later iteration and no
other target could change the verdict. With `nearest` it goes on to the end as well. The paper's final search, which
shortens a perturbation after the last iteration, is not in the package either.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack, fooled
from advbench.attacks.fab_projections import onto_hyperplane
from advbench.seeds import BlockNoise
from advbench.threat import Threat, per_example


class FAB(Attack):
    """FAB-T with AutoAttack's numbers by default; with `targets = 0` untargeted FAB, one gradient a class."""

    name = "fab"
    paper = "arXiv 1907.02044"
    everywhere: ClassVar[bool] = False

    targets: int = Field(default=9, ge=0, le=1000)
    """Classes aimed at one by one, in order of the clean logits (AutoAttack: 9); at most all others. 0: at every step
    the class whose boundary is nearest."""
    steps: int = Field(default=100, ge=1, le=10_000)
    """Iterations a target and start (the paper's and AutoAttack's: 100)."""
    starts: int = Field(default=1, ge=1, le=1000)
    """Runs a target: the first from the example, others from a random point at a distance of eps/2 (AutoAttack: 1; 5
    for untargeted FAB)."""
    alpha_max: float = Field(default=0.1, ge=0, le=1)
    """The largest weight of the example's own projection (the paper's 0.1)."""
    eta: float = Field(default=1.05, ge=1)
    """Factor by which a step overshoots the hyperplane (the paper's 1.05)."""
    beta: float = Field(default=0.9, gt=0, lt=1)
    """Share of its perturbation that a fooling iterate keeps (the paper's 0.9)."""
    nearest: bool | None = None
    """Look for the nearest fooling point to the end, rather than for any within eps."""
    restarts: int = Field(default=1, ge=1, le=1)
    """Its runs are `starts`, because they differ."""
    together: int = Field(default=64, ge=1)
    """Points that a pass may hold even if the batch has fewer examples: runs of an example go side by side. Changes the
    speed only."""

    @torch.no_grad()
    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        """For each example its first fooling point within eps, or x, where FAB knows of none. (N, ...) -> (N, ...)."""
        logits = model(x)
        aims, found = self._aims(logits, y), x.clone()
        best = torch.full_like(y, torch.inf, dtype=x.dtype)
        runs = range(len(aims) * self.starts)
        starts = [_random_start(x, threat, noise) if run % self.starts else x for run in runs]

        def attempt(rows: Tensor, runs: range) -> Tensor:
            """Those of `rows` that stand after the `runs`, which go side by side if there is memory for it."""
            try:
                aim = torch.stack([aims[run // self.starts, rows] for run in runs])
                start = torch.stack([starts[run][rows] for run in runs])
                if self.nearest:
                    known = found[rows], best[rows]
                    found[rows], best[rows] = self._chase(model, x[rows], y[rows], aim, start, threat, *known)
                    return rows
                found[rows], fell = self._race(model, x[rows], y[rows], aim, start, threat)
                return rows[~fell]
            except torch.OutOfMemoryError:
                if len(runs) == 1:
                    raise
            half = len(runs) // 2
            return attempt(attempt(rows, runs[:half]), runs[half:])

        # Most of those that fall fall to the first run. The others go side by side, and always so: which fooling point
        # an example leaves with must not depend on its batch.
        standing = attempt((~fooled(model, x, logits, y)).nonzero().squeeze(1), runs[:1])
        if runs[1:]:
            for rows in standing.split(max(1, max(len(x), self.together) // len(runs[1:]))):
                attempt(rows, runs[1:])
        return found

    def _aims(self, logits: Tensor, y: Tensor) -> Tensor:
        """The other classes from the likeliest down, (targets, N, 1) one by one, or (1, N, K - 1) all at once."""
        order = logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]
        return order[:, : self.targets].T.unsqueeze(2) if self.targets else order.unsqueeze(0)

    def _race(
        self, model: nn.Module, x: Tensor, y: Tensor, aims: Tensor, starts: Tensor, threat: Threat
    ) -> tuple[Tensor, Tensor]:
        """Several runs of each example at once: its first fooling point within eps, or x; and which fell, (n,) bool.

        x (n, ...), y (n,), aims (runs, n, K), starts (runs, n, ...). The runs of an example leave together. If several
        succeed in the same iteration, the first of them counts.
        """
        n, points = len(x), x.clone()
        owner = torch.arange(n, device=x.device).repeat(len(starts))
        x, y, aims, x_adv = x[owner], y[owner], aims.flatten(0, 1), starts.flatten(0, 1)
        fell = torch.zeros(n, dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            if not len(x):
                break
            x_adv = self._step(model, x_adv, x, y, aims, threat)
            with torch.inference_mode():
                logits = model(x_adv)
            wrong = (logits.argmax(1) != y) & logits.isfinite().all(1)
            near = wrong & (threat.size(x_adv - x) <= threat.eps)
            back = x_adv.lerp(x, per_example((1 - self.beta) * wrong.to(x.dtype), x))
            if near.any():
                rows = near.nonzero().squeeze(1)
                sure = fooled(model, x_adv[rows], logits[rows], y[rows])
                back[rows[~sure]] = x_adv[rows[~sure]]
                rows = rows[sure]
                # Rows are ordered by run, so the least row of an owner is of its first run.
                first = torch.full_like(fell, len(x), dtype=torch.int64).scatter_reduce_(0, owner[rows], rows, "amin")
                new = first < len(x)
                points[new] = x_adv[first[new]]
                fell |= new
                kept = ~fell[owner]
                x, y, aims, owner, back = x[kept], y[kept], aims[kept], owner[kept], back[kept]
            x_adv = back
        return points, fell

    def _chase(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        aims: Tensor,
        starts: Tensor,
        threat: Threat,
        points: Tensor,
        best: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The same to the end: each example's nearest fooling point within eps and its distance.

        `points` (n, ...) and `best` (n,) are what is known so far; where nothing is, the distance is inf.
        """
        runs, n = len(starts), len(x)
        home, labels, aims, x_adv = x.repeat(runs, *[1] * (x.dim() - 1)), y.repeat(runs), aims.flatten(0, 1), starts
        x_adv = x_adv.flatten(0, 1)
        for _ in range(self.steps):
            x_adv = self._step(model, x_adv, home, labels, aims, threat)
            with torch.inference_mode():
                logits = model(x_adv)
            wrong = (logits.argmax(1) != labels) & logits.isfinite().all(1)
            far = torch.where(wrong, threat.size(x_adv - home), torch.inf)
            nearest, run = far.view(runs, n).min(0)
            rows = ((nearest < best) & (nearest <= threat.eps)).nonzero().squeeze(1)
            taken = run[rows] * n + rows
            rows = rows[sure := fooled(model, x_adv[taken], logits[taken], y[rows])]
            points[rows], best[rows] = x_adv[taken[sure]], nearest[rows]
            x_adv = x_adv.lerp(home, per_example((1 - self.beta) * wrong.to(x.dtype), home))
        return points, best

    def _step(self, model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, aims: Tensor, threat: Threat) -> Tensor:
        """Linearise at x_adv, project x_adv and x onto the nearest hyperplane, overshoot, mix."""
        ahead, slope = _nearest_plane(model, x_adv, y, aims, threat)
        points, slope = torch.stack([x_adv, x]).flatten(2), slope.flatten(1)
        gap = torch.stack([ahead, ahead + (slope * (points[1] - points[0])).sum(1)])
        move = onto_hyperplane(threat.norm, points, slope, gap)
        ways = threat.size(move.flatten(0, 1)).view(2, -1, 1).clamp_min(1e-8)
        own, home = points + self.eta * move
        alpha = (ways[0] / (ways[0] + ways[1])).clamp_max(self.alpha_max)
        return own.lerp(home, alpha).clamp(0, 1).view_as(x)


def _nearest_plane(model: nn.Module, x_adv: Tensor, y: Tensor, aims: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """logit_c - logit_y (N,) and its gradient, for the c of `aims` (N, K) whose linearised boundary is nearest."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x_adv)
        ahead = logits.gather(1, aims) - logits.gather(1, y[:, None])
        sums = ahead.sum(0).unbind()
    slopes = [torch.autograd.grad(total, x_adv, retain_graph=total is not sums[-1])[0] for total in sums]
    ahead = ahead.detach()
    if len(slopes) == 1:
        return ahead[:, 0], slopes[0]
    # The floor is the package's, for a gradient of zero.
    steepness = torch.stack([threat.dual_norm(slope) for slope in slopes], dim=1)
    nearest = (ahead.abs() / (1e-12 + steepness)).argmin(1)
    rows = torch.arange(len(y), device=y.device)
    return ahead[rows, nearest], torch.stack(slopes)[nearest, rows]


def _random_start(x: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
    """A point at a distance of eps/2 in a random direction, clipped to the box: uniform pixels in Linf, else normal."""
    direction = noise.uniform(x) if threat.norm == "Linf" else noise.normal(x)
    return (x + direction * per_example(threat.eps / 2 / threat.size(direction), x)).clamp(0, 1)
