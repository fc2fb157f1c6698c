"""Curvature of the loss in the pixels, example by example, and what it says of where gradient ascent goes.

Cheng et al. 2022, "Why Adversarial Training of ReLU Networks Is Difficult?" (arXiv 2205.15130).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field, field_validator
from torch import Tensor

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import Collector, Measure, Measures, Scene, measure, spearman, typical
from advbench.collectors.gates import agreement
from advbench.collectors.input_spectrum import Factor, factor, piecewise_linear, products
from advbench.collectors.lanczos import lanczos, trace
from advbench.seeds import generator

CURVATURE = "nats per squared pixel unit"
LEADING = 2
"""Eigenvectors whose share of the perturbation is followed."""
CLASSES = 100
"""From more classes on, C - 1 backward passes cost more than Lanczos."""


class InputHessian(Collector):
    """Eigenvalues and trace of the Hessian of each example's cross-entropy to its pixels.

    Clean and at the scene's adversarial examples, beside the confidence, which moves it: a saturated model is flat. The
    arrays have each example's largest eigenvalues, trace and confidence; the median `energy` of the perturbation in the
    first one and two eigenvectors of the clean Hessian after each attack step; and, by `strength`, how far the
    closed-form perturbation is from the real one.
    """

    name = "input-hessian"
    about = "How sharply each example's loss bends as its pixels change, and how much of an attack goes that way."
    paper = "Cheng et al. 2022, arXiv 2205.15130"

    examples: int | None = Field(default=256, ge=1)
    top: int = Field(default=5, ge=1)
    """Eigenvalues an example that the arrays keep; there are C - 1 at most in a piecewise linear network."""
    steps: int = Field(default=10, ge=1)
    """Steps of the attack whose energy is followed, of eps/4 each, from the clean image."""
    step_size: float = Field(default=0.05, gt=0)
    """Step size of the un-normalised gradient ascent, in squared pixel units per nat."""
    strengths: tuple[float, ...] = Field(default=(0.1, 0.2, 0.5, 1.0), min_length=1)
    """Step size times steps of that ascent, where the closed form is compared with it. Rising."""
    cap: float = Field(default=2.0, gt=0)
    """Examples whose largest eigenvalue times the last strength exceeds this are left out of the comparison: their
    growth is exponential, and overflows."""
    lanczos_steps: int = Field(default=40, ge=2)
    """Most Hessian-vector products where the network is not piecewise linear."""
    tolerance: float = Field(default=1e-3, gt=0)
    """Error of the largest Lanczos eigenvalues, as a share of the largest."""
    probes: int = Field(default=10, ge=1)
    """Random vectors for the trace there."""

    @field_validator("strengths")
    @classmethod
    def _rise(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not all(a < b for a, b in pairwise((0, *strengths))):
            raise ValueError("should rise, and begin above 0")
        return strengths

    def passes(self, classes: int) -> float:
        ascent = 2 * self.strengths[-1] / self.step_size
        return 2 * self.spectrum(classes) + ascent + 2 * self.steps + 2

    def spectrum(self, classes: int) -> float:
        """Passes for the spectrum of one image, exact where there are not too many classes."""
        return 1 + classes if classes <= CLASSES else 4 * (self.lanczos_steps + self.probes)

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        linear = self._piecewise_linear(scene)
        exact = linear and scene.classes <= CLASSES
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        for where, x in scene.both.items():
            found = self._spectra(scene, x, where, exact)
            if exact and where == "clean":
                values |= self._closed_form(scene, found, arrays)
            values |= typical(f"{where}_top1", found["values"][:, 0], CURVATURE, "largest eigenvalue")
            values |= typical(f"{where}_trace", found["trace"], CURVATURE, "sum of the eigenvalues")
            values |= typical(f"{where}_confidence", found["confidence"], "1", "probability of the predicted class")
            kept = [name for name in ("values", "trace", "trace_error", "confidence") if name in found]
            arrays |= {f"{where}_{name}": found[name] for name in kept}
            if where == "clean":
                values |= self._energy(scene, found["vectors"], arrays)
        same = scene.map(lambda rows: {"same": agreement(scene.model, scene.x[rows], scene.adversarial[rows])}, 2)
        if not same["same"].isnan().any():
            values |= typical("gates", same["same"], "1", "share of ReLU gates that the attack leaves alone")
        return Measures(values, arrays, self._notes(scene, linear, exact, same["same"]))

    def largest(self, scene: Scene) -> Tensor:
        """The largest eigenvalue (N,) at each clean image. Raises NotApplicable."""
        exact = self._piecewise_linear(scene) and scene.classes <= CLASSES
        return self._spectra(scene, scene.x, "clean", exact)["values"][:, 0]

    def _piecewise_linear(self, scene: Scene) -> bool:
        draw = generator("cpu", scene.seed, self.name)
        direction = torch.randn(scene.classes, generator=draw).to(scene.x)
        return piecewise_linear(scene.model, scene.x[:8], direction)

    def _notes(self, scene: Scene, linear: bool, exact: bool, same: Tensor) -> tuple[str, ...]:
        notes: list[str] = [f"{len(scene.x)} examples"]
        if exact:
            notes.append("exact: the network is piecewise linear, its Hessian comes from C - 1 backward passes")
            if self.top > scene.classes - 1:
                notes.append(f"top = {self.top} is above the rank; there are {scene.classes - 1} eigenvalues")
        else:
            why = f"{scene.classes} classes are too many" if linear else "the network is not piecewise linear"
            notes.append(f"Lanczos with at most {self.lanczos_steps} products an example: {why} for the exact form")
            notes.append(f"traces are estimates from {self.probes} random vectors, with their standard errors")
            notes.append("not applicable: the closed form of the perturbation needs the exact Hessian")
        if same.isnan().any():
            notes.append("not applicable: gates, for the network has none")
        return tuple(notes)

    def _spectra(self, scene: Scene, x: Tensor, where: str, exact: bool) -> dict[str, Tensor]:
        """For all of x: values (N, top), trace, confidence, vectors (N, LEADING, D), and with the exact form more.

        Those of clean images are found once for all who ask the same of a scene.
        """
        asked = (self.model_copy(update={"examples": None, "every": None}), exact)
        if where == "clean" and asked in scene.known:
            return scene.known[asked]

        def by_factor(rows: Tensor) -> dict[str, Tensor]:
            found = factor(scene.model, x[rows], scene.y[rows])
            closed = self._predicted(found) if where == "clean" else {}
            return {
                "values": found.values[:, : self.top],
                "trace": found.values.sum(1),
                "confidence": found.logits.softmax(1).amax(1),
                "vectors": found.vectors(LEADING),
                **closed,
            }

        def by_lanczos(rows: Tensor) -> dict[str, Tensor]:
            multiply = products(scene.model, x[rows], scene.y[rows])
            noise = scene.noise(f"{self.name} {where}", rows)
            start, *probes = (noise.normal(x[rows]).flatten(1) for _ in range(self.probes + 1))
            top = max(self.top, LEADING)
            found = lanczos(multiply, start, steps=self.lanczos_steps, top=top, tolerance=self.tolerance, every=4)
            with torch.no_grad():
                confidence = scene.model(x[rows]).softmax(1).amax(1)
            total, error = trace(multiply, found, [probe.sign() for probe in probes])
            return {
                "values": found.values[:, : min(self.top, x[0].numel())],
                "trace": total,
                "trace_error": error,
                "confidence": confidence,
                "vectors": found.vectors(LEADING),
            }

        # Memory of an example in forward passes: the slopes of every class, or a graph of second order and the basis.
        found = scene.map(by_factor if exact else by_lanczos, 4 if exact else 8)
        if where == "clean":
            scene.known[asked] = found
        return found

    def _energy(self, scene: Scene, vectors: Tensor, arrays: dict[str, Tensor]) -> dict[str, Measure]:
        """The share of a signed (or normalised) attack's perturbation along the leading clean eigenvectors."""

        def work(rows: Tensor) -> dict[str, Tensor]:
            x, y, leading = scene.x[rows], scene.y[rows], vectors[rows]
            project, x_adv, shares = scene.threat.projection(x), x, list[Tensor]()
            for _ in range(self.steps):
                slope = input_gradient(scene.model, x_adv, y)
                x_adv = project(scene.threat.step(x_adv, slope, scene.threat.eps / 4))
                shares.append(share(leading, (x_adv - x).flatten(1)))
            return {"share": torch.stack(shares, 1)}

        energy = scene.map(work)["share"].median(0).values
        arrays["attack_energy"] = energy
        return {
            f"attack_energy_{last}": measure(
                energy[-1, index],
                "1",
                f"share of the attack's square along the first {last} eigenvectors, median",
            )
            for index, last in enumerate(range(1, LEADING + 1))
        }

    def _steps(self) -> list[int]:
        return [max(1, round(strength / self.step_size)) for strength in self.strengths]

    def _predicted(self, found: Factor) -> dict[str, Tensor]:
        return {"predicted": torch.stack([found.ascent(self.step_size, steps) for steps in self._steps()], 1)}

    def _closed_form(self, scene: Scene, found: dict[str, Tensor], arrays: dict[str, Tensor]) -> dict[str, Measure]:
        """Theorem 1 against the ascent itself: no signs, no ball, no box."""
        largest = found["values"][:, 0]

        def work(rows: Tensor) -> dict[str, Tensor]:
            x, y, predicted, leading = scene.x[rows], scene.y[rows], found["predicted"][rows], found["vectors"][rows]
            # The way on its own, for a saturated model's steps vanish beside a pixel.
            way, errors, sizes, energy = torch.zeros_like(x), list[Tensor](), list[Tensor](), list[Tensor]()
            for index, (before, steps) in enumerate(pairwise((0, *self._steps()))):
                for _ in range(steps - before):
                    way = way + self.step_size * input_gradient(scene.model, x + way, y)
                real = way.flatten(1)
                size = real.norm(dim=1)
                errors.append((predicted[:, index] - real).norm(dim=1) / size)
                sizes.append(size)
                energy.append(share(leading, real))
            return {"error": torch.stack(errors, 1), "size": torch.stack(sizes, 1), "energy": torch.stack(energy, 1)}

        real = scene.map(work)
        kept = (largest * self.strengths[-1] <= self.cap) & (real["size"][:, -1] > 0)
        errors = real["error"][kept].double()
        # One set of examples for all strengths, so that the errors compare.
        medians = errors.quantile(0.5, dim=0) if len(errors) else errors.new_full((len(self.strengths),), torch.nan)
        values = {
            f"closed_form_error_{strength:g}": measure(
                median, "1", f"distance of the closed-form perturbation over its size, at strength {strength:g}, median"
            )
            for strength, median in zip(self.strengths, medians, strict=True)
        }
        kept_share, meaning = kept.double().mean(), "share of examples in the comparison with the closed form"
        values["closed_form_kept"] = measure(kept_share, "1", meaning)
        values["size_follows_curvature"] = measure(
            spearman(real["size"][:, -1], largest),
            "1",
            "Spearman correlation of the un-normalised perturbation's size with the largest eigenvalue",
        )
        arrays["strengths"] = torch.tensor(self.strengths)
        arrays["closed_form_error"] = medians
        arrays["ascent_energy"] = real["energy"].median(0).values
        return values


def share(vectors: Tensor, delta: Tensor) -> Tensor:
    """Of delta's squared length, what lies along the first 1, 2, ... orthonormal vectors (B, k, D): (B, k).

    Zero where delta (B, D) is zero.
    """
    # Scaled before it is squared: the gradients of a saturated model would underflow.
    tiny = torch.finfo(delta.dtype).tiny
    delta = delta / delta.abs().amax(1, keepdim=True).clamp_min(tiny)
    along = (vectors @ delta[:, :, None]).squeeze(2).square().cumsum(1)
    return along / delta.square().sum(1, keepdim=True).clamp_min(tiny)
