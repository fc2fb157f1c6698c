"""Adversarial training sharpens the loss of logistic regression in the weights.

Yamada, Kanai et al., "Adversarial Training Makes Weight Loss Landscape Sharper in Logistic Regression", 2021, arXiv
2102.02950. Against labels y in {-1, 1} the worst perturbation of L2 norm eps is -eps y w / ||w||, so the adversarial
loss has a closed form,

    L(w) = mean softplus(m),  m = -y <w, x> + eps ||w||,

and with s = sigmoid(m), v = w / ||w||, u = -y x + eps v so has its Hessian:

    H(w) = mean s (1 - s) u u^T + (eps mean(s) / ||w||) (I - v v^T)

The second term comes of the attack that answers to the weights; it is the one that is proportional to eps. Two classes
of digits are separable, so only a ridge gives the loss a minimum: all eps are compared at the minimum of the loss with
the same one, and the curvatures are those of the loss without it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.optimize import minimize
from torch import Tensor

from advbench.collectors.base import Measures, measure, spearman
from advbench.data.base import DataSet
from advbench.findings import Claim, Plot
from advbench.spec import BadInput
from advbench.study import Setting, Study
from advbench.task import Data

PAPER = "Yamada et al. 2021, arXiv 2102.02950"
CURVATURE = "1 / squared weight unit"


class LogisticSharpness(Study):
    """Curvature of adversarial logistic regression against its training radius (Yamada et al. 2021)."""

    name = "logistic-sharpness"
    about = "Does training against larger perturbations sharpen the loss in the weights?"
    paper = PAPER
    data = Data(name="digits", classes=(0, 1))
    seconds = 5.0
    claims = (
        Claim(
            name="hessian_error",
            statement="Autograd and the closed form agree on the Hessian of the adversarial loss.",
            source="derived here",
            required=1e-9,
            sense="at most",
            over="every seed",
        ),
        Claim(
            name="sharpness_step",
            statement="The top eigenvalue of the adversarial loss rises with every step of the training radius.",
            source=PAPER,
            required=1.001,
            sense="at least",
            over="every seed",
        ),
        Claim(
            name="slope_from_one",
            statement="That eigenvalue is proportional to the training radius: its slope on two log axes is 1.",
            source=PAPER,
            required=0.25,
            sense="at most",
        ),
        Claim(
            name="rise_correlation",
            statement="The loss along random directions as long as the weights rises more, the larger the radius.",
            source=PAPER,
            required=0.9,
            sense="at least",
        ),
        Claim(
            name="clean_step",
            statement="The clean loss at the same weights does not sharpen with every step: it flattens at first.",
            source="derived here",
            required=1.0,
            sense="at most",
            over="every seed",
        ),
    )
    plot = Plot(x="training radius (L2)", y="top eigenvalue of the loss in the weights", log="y")

    eps: tuple[float, ...] = Field(default=(0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=3)
    """Training radii in L2, rising, pixels in [0, 1]."""
    ridge: float = Field(default=1e-3, gt=0)
    """Weight of ||w||^2 / 2 in what is minimised."""
    directions: int = Field(default=50, ge=1)
    """Random directions along which the rise is averaged."""
    share: float = Field(default=0.8, gt=0, le=1)
    """Of the training examples that each seed draws."""

    @field_validator("eps")
    @classmethod
    def _rising(cls, eps: tuple[float, ...]) -> tuple[float, ...]:
        if eps[0] < 0 or any(b <= a for a, b in pairwise(eps)):
            raise ValueError("eps should hold radii that rise, from 0 or above")
        return eps

    def fit(self, data: DataSet) -> None:
        if data.classes != 2:
            raise BadInput(f"data.classes: should name two classes, such as [0, 1]; these data have {data.classes}")

    def run(self, setting: Setting) -> Measures:
        x, y = self._draw(setting)
        errors: list[float] = []
        found: dict[str, list[float]] = {"adversarial": [], "attack held fixed": [], "clean": [], "rise": []}
        for done, eps in enumerate(self.eps):
            setting.say(done, len(self.eps), f"eps {eps:g}")
            w = self.minimum(x, y, eps)
            formula = self.hessian(w, x, y, eps)
            errors.append(float((self._differentiated(w, x, y, eps) - formula).abs().max() / formula.abs().max()))
            found["adversarial"].append(_top(formula))
            found["attack held fixed"].append(_top(_outer(w, x, y, eps)))
            found["clean"].append(_top(self.hessian(w, x, y, 0.0)))
            found["rise"].append(self._rise(w, x, y, eps, setting))
        radii = torch.tensor(self.eps, dtype=torch.float64)
        lines = {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
        above = radii > 0
        slope = np.polyfit(radii[above].log(), lines["adversarial"][above].log(), 1)[0]
        rise = lines.pop("rise")
        largest = lines["adversarial"][-1]
        return Measures(
            values={
                "hessian_error": measure(max(errors), "ratio", "largest error of the closed form"),
                "sharpness_step": measure(self.rise(lines["adversarial"]), "ratio", "least step of the top eigenvalue"),
                "slope_from_one": measure(abs(slope - 1), "1", "distance of the log-log slope from 1"),
                "rise_correlation": measure(spearman(radii, rise), "1", "rank correlation of radius and rise"),
                "clean_step": measure(self.rise(lines["clean"]), "ratio", "least step of the clean top eigenvalue"),
                "slope": measure(slope, "1", "slope of the top eigenvalue over the radius, on two log axes"),
                "largest": measure(largest, CURVATURE, "top eigenvalue at the largest radius"),
            },
            arrays={"x": radii, **lines},
            notes=(f"{len(x)} examples a seed",),
        )

    def hessian(self, w: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """H(w) (D, D) in closed form, of examples x (N, D) with labels y (N,) in {-1, 1}."""
        unit = w / w.norm()
        across = torch.eye(len(w), dtype=w.dtype) - unit.outer(unit)
        return _outer(w, x, y, eps) + eps * _odds(w, x, y, eps).mean() / w.norm() * across

    def minimum(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The weights (D,) that minimise the adversarial loss and its ridge; the problem is convex."""

        def value(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            w = torch.tensor(at, requires_grad=True)
            loss = adversarial_loss(w, x, y, eps) + self.ridge / 2 * w @ w
            return loss.item(), torch.autograd.grad(loss, w)[0].numpy()

        def curvature(at: NDArray[np.float64]) -> NDArray[np.float64]:
            w = torch.tensor(at)
            return (self.hessian(w, x, y, eps) + self.ridge * torch.eye(len(w), dtype=w.dtype)).numpy()

        # Not from 0, where the norm of the weights has no derivative.
        start = ((y[:, None] * x).mean(0) * 0.1).numpy()
        done = minimize(value, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
        return torch.tensor(done.x)

    def _draw(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """A share of the training examples as (N, D) and labels in {-1, 1}, in float64."""
        train = setting.data.train
        count = max(2, round(self.share * len(train)))
        rows = torch.randperm(len(train), generator=setting.generator("rows"))[:count].to(train.device)
        return train.pixels(rows).flatten(1).double().cpu(), (2 * train.labels[rows] - 1).double().cpu()

    def _differentiated(self, w: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The same Hessian by automatic differentiation."""
        found = torch.autograd.functional.hessian(lambda at: adversarial_loss(at, x, y, eps), w)
        assert isinstance(found, Tensor)
        return found

    def _rise(self, w: Tensor, x: Tensor, y: Tensor, eps: float, setting: Setting) -> float:
        """Mean rise of the adversarial loss along random directions of the weights' own length, both ways."""
        source, here = setting.generator("directions"), adversarial_loss(w, x, y, eps)
        rises: list[Tensor] = []
        for _ in range(self.directions):
            d = torch.randn(len(w), generator=source, dtype=w.dtype)
            d *= w.norm() / d.norm()
            rises += [adversarial_loss(w + sign * d, x, y, eps) - here for sign in (1, -1)]
        return float(torch.stack(rises).mean())


def adversarial_loss(w: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """L(w) in nats, the attack in closed form."""
    return torch.nn.functional.softplus(-y * (x @ w) + eps * w.norm()).mean()


def _odds(w: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return torch.sigmoid(-y * (x @ w) + eps * w.norm())


def _outer(w: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The first term of H, all of it where the attack is held fixed."""
    s, u = _odds(w, x, y, eps), -y[:, None] * x + eps * w / w.norm()
    return (u * (s * (1 - s))[:, None]).T @ u / len(x)


def _top(matrix: Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix)[-1])
