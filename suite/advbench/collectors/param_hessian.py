"""Curvature of the loss in the weights, clean and adversarial.

Yamada et al. 2021 (arXiv 2102.02950): adversarial training sharpens the adversarial loss; the clean one may get
flatter meanwhile, so each is measured on its own.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advbench.collectors.base import Collector, Measure, Measures, Scene, measure
from advbench.collectors.lanczos import Krylov, density, lanczos, trace
from advbench.collectors.weight_products import MOVES, Loss, WeightHessian
from advbench.memory import SHARE, free
from advbench.seeds import generator

CURVATURE = "nats per squared weight unit"
GRID = 401
"""Points of the density's curve."""


class ParamHessian(Collector):
    """Largest eigenvalues, trace and spectral density of the Hessian of the mean cross-entropy in all weights.

    On the clean images; on adversarial examples held fixed; and with the attack moving with the weights, where its
    direction does so smoothly. Lanczos with full reorthogonalisation, stopped when the largest values are known. The
    arrays have, by loss, the largest `values` with their error bounds, and the density: Ritz values, their weights, and
    its curve.
    """

    name = "param-hessian"
    about = "How sharply the mean clean and adversarial loss bend as the weights change."
    paper = "Yamada et al. 2021, arXiv 2102.02950"

    examples: int | None = Field(default=256, ge=1)
    top: int = Field(default=5, ge=1)
    """Largest eigenvalues to find."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Error of each of them, as a share of the largest."""
    steps: int = Field(default=60, ge=2)
    """Most Hessian-vector products for them."""
    probes: int = Field(default=8, ge=0)
    """Products more for the trace: random vectors outside of what Lanczos has seen."""
    runs: int = Field(default=1, ge=1)
    """Lanczos runs that the density averages, each from a random start."""

    def passes(self, classes: int) -> float:
        del classes
        # A product is four passes, and as many more where the attack moves with the weights. The top values are known
        # after about four products each.
        products = self.runs * min(self.steps, 4 * self.top) + self.probes
        return products * 4 * (1 + 1 + 2)

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        moves = scene.threat.norm in MOVES
        losses: tuple[Loss, ...] = ("fixed", "moving", "clean") if moves else ("fixed", "clean")
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        notes = [f"{len(scene.x)} examples"]
        if not moves:
            norm = scene.threat.norm
            notes.append(f"moving attack: under {norm} its direction is constant almost everywhere, so it is the fixed")
        for loss in losses:
            hessian = WeightHessian(scene, loss)
            found = self._measure(hessian, values, arrays)
            notes.append(f"{loss}: {hessian.products} Hessian-vector products in {hessian.size} weights")
            off = float((found.errors[0, : self.top] / found.values.abs().amax().clamp_min(1e-300)).max())
            if off > self.tolerance:
                taken = found.values.shape[1]
                notes.append(f"{loss}: after {taken} steps the largest values are known to {off:.1g} of the largest")
            if not found.values.isfinite().all():
                notes.append(f"{loss}: the loss or its curvature is not finite on these examples")
            if self.top > hessian.size:
                notes.append(f"top = {self.top} is above the number of weights, {hessian.size}")
        return Measures(values, arrays, tuple(notes))

    def _fitting(self, hessian: WeightHessian) -> int:
        """The steps whose vectors the memory holds: each is as large as the network."""
        leaf, memory = hessian.leaves[0], free(hessian.leaves[0].device)
        if memory is None:
            return self.steps
        return max(2, min(self.steps, int(SHARE * memory / (hessian.size * leaf.element_size()))))

    def _measure(self, hessian: WeightHessian, values: dict[str, Measure], arrays: dict[str, Tensor]) -> Krylov:
        loss, like = hessian.loss, hessian.leaves[0]
        draw = generator(like.device, hessian.scene.seed, self.name, loss)

        def normal() -> Tensor:
            return torch.randn(1, hessian.size, generator=draw, dtype=like.dtype, device=like.device)

        steps = self._fitting(hessian)
        found = lanczos(hessian, normal(), steps=steps, top=self.top, tolerance=self.tolerance)
        total, error = trace(hessian, found, [normal().sign() for _ in range(self.probes)])
        taken = found.values.shape[1]
        more = [lanczos(hessian, normal(), steps=taken, top=taken, tolerance=0) for _ in range(self.runs - 1)]
        ritz, weights = (torch.cat([getattr(run, of) for run in (found, *more)]) for of in ("values", "weights"))
        span = float(ritz.max() - ritz.min()) or 1.0
        width = span / 100
        low, high = float(ritz.min()) - 5 * width, float(ritz.max()) + 5 * width
        grid = torch.linspace(low, high, GRID, dtype=ritz.dtype, device=ritz.device)
        curve = density(ritz, weights, grid, width)
        about = {"clean": "clean loss", "fixed": "adversarial loss, attack fixed"}.get(
            loss, "adversarial loss, attack moving with the weights"
        )
        values |= {
            f"{loss}_top1": measure(found.values[0, 0], CURVATURE, f"largest Hessian eigenvalue of the {about}"),
            f"{loss}_lowest": measure(ritz.min(), CURVATURE, f"lowest Ritz value of the {about}"),
            f"{loss}_trace": measure(total, CURVATURE, f"trace of the Hessian of the {about}"),
            f"{loss}_trace_error": measure(error, CURVATURE, f"standard error of that trace, {about}"),
        }
        arrays |= {
            f"{loss}_values": found.values[0, : self.top],
            f"{loss}_errors": found.errors[0, : self.top],
            f"{loss}_ritz": ritz,
            f"{loss}_weights": weights,
            f"{loss}_density_at": grid,
            f"{loss}_density": curve,
        }
        return found
