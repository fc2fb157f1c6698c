"""The adversarial loss is rougher in the weights under an Linf constraint than under an L2 one.

Kanai et al., "Smoothness Analysis of Adversarial Training", 2021, arXiv 2103.01400, and "Relationship Between
Nonsmoothness in Adversarial Training, Constraints of Attacks, and Flatness in the Input Space", IEEE TNNLS 2024. The
worst perturbation depends on the weights w. In a linear model with labels y in {-1, 1} it is -eps y w / ||w|| in L2,
which is smooth away from w = 0, and -eps y sign(w) in Linf, which jumps where a weight changes its sign. So with
w_i = 0

    R(h) = || grad L(w + h e_i) - grad L(w - h e_i) || / (2 h)

tends to the length of the Hessian's column i in L2, and grows as eps mean(s) / h in Linf, where s is the sigmoid of the
negative adversarial margin. In a network the signs of input gradients flip here and there: on the way of 2 h as many as
are near, a share proportional to h, each with a jump of its own; so the root mean square of R goes with h^(-1/2).
The network here is smooth itself (tanh), and the attacks know no pixel box: only the norm is left to be rough.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from advbench.collectors.base import Measures, measure
from advbench.data.base import DataSet
from advbench.findings import Claim, Plot
from advbench.spec import BadInput
from advbench.studies.logistic_sharpness import adversarial_loss
from advbench.study import Setting, Study
from advbench.task import Data
from advbench.threat import Threat

Norm = Literal["Linf", "L2"]
NORMS: tuple[Norm, ...] = ("Linf", "L2")
PAPER = "Kanai et al. 2021, arXiv 2103.01400"


class AttackSmoothness(Study):
    """How the gradient of the adversarial loss changes over short ways in the weights (Kanai et al. 2021)."""

    name = "attack-smoothness"
    about = "Does the norm of the constraint decide how smooth the adversarial loss is in the weights?"
    paper = PAPER
    data = Data(name="digits")
    seconds = 4.0
    claims = (
        Claim(
            name="linf_slope_off",
            statement="In a linear model the roughness under Linf grows as 1 / h where a weight is zero.",
            source=f"{PAPER}, abstract: the constraint makes the loss nonsmooth; the exponent is derived here",
            required=0.05,
            sense="at most",
            over="every seed",
        ),
        Claim(
            name="l2_slope_off",
            statement="Under L2 it stays bounded there: it does not grow with 1 / h at all.",
            source=f"{PAPER}, abstract: Linf more than L2; the exponent is derived here",
            required=0.05,
            sense="at most",
            over="every seed",
        ),
        Claim(
            name="limit_error",
            statement="Both are what the closed forms say: eps mean(s) / h, and the length of the Hessian's column.",
            source="derived here",
            required=0.01,
            sense="at most",
            over="every seed",
        ),
        Claim(
            name="network_contrast",
            statement="In a trained smooth network too, roughness grows faster with 1 / h under Linf than under L2.",
            source="derived here: -1/2 against 0, and half of that is required",
            required=-0.25,
            sense="at most",
        ),
        Claim(
            name="network_l2_slope_off",
            statement="In that network the roughness under L2 stays bounded.",
            source="derived here",
            required=0.1,
            sense="at most",
        ),
    )
    plot = Plot(x="way h, as a share of the length of the weights", y="roughness R(h)", log="xy")

    linf: float = Field(default=0.15, gt=0, le=1)
    """Radius in Linf, pixels in [0, 1]."""
    l2: float = Field(default=1.0, gt=0)
    """Radius in L2."""
    shortest: float = Field(default=1e-4, gt=0)
    longest: float = Field(default=1e-2, gt=0)
    """Ways h, as shares of the length of the weights."""
    ways: int = Field(default=7, ge=3)
    """How many h between the two, evenly in their logarithm."""
    ridge: float = Field(default=1e-2, gt=0)
    """Of the linear model, which is fitted by least squares."""
    coordinates: int = Field(default=8, ge=1)
    """Weights of the linear model that are set to zero and probed, one after the other."""
    hidden: int = Field(default=32, ge=1)
    """Hidden units of the network."""
    training: int = Field(default=100, ge=0)
    """Steps of adversarial training (Linf) on all training images, by Adam."""
    lr: float = Field(default=0.01, gt=0)
    attack_steps: int = Field(default=5, ge=1)
    examples: int = Field(default=128, ge=1)
    """Over which, one by one, the network's roughness is taken."""
    directions: int = Field(default=12, ge=1)
    """Random directions in its weights."""

    def fit(self, data: DataSet) -> None:
        if data.classes < 2:
            raise BadInput("data: should have two classes at least; these have one")

    def run(self, setting: Setting) -> Measures:
        way = torch.logspace(math.log10(self.shortest), math.log10(self.longest), self.ways, dtype=torch.float64)
        train = setting.data.train
        x, labels = train.pixels(slice(None)).flatten(1).double().cpu(), train.labels.cpu()
        setting.say(0, 3, "linear model")
        lines, error = self.linear(x[labels < 2], (2 * labels[labels < 2] - 1).double(), way, setting)
        setting.say(1, 3, "training a network")
        theta = self.trained(x, labels, setting)
        setting.say(2, 3, "the network")
        rows = torch.randperm(len(x), generator=setting.generator("examples"))[: self.examples]
        lines |= self.network(theta, x[rows], labels[rows], way, setting)
        slope = {name: float(np.polyfit(way.log(), line.log(), 1)[0]) for name, line in lines.items()}
        contrast = slope["Linf, network"] - slope["L2, network"]
        return Measures(
            values={
                "linf_slope_off": measure(abs(slope["Linf, linear"] + 1), "1", "distance of the slope from -1"),
                "l2_slope_off": measure(abs(slope["L2, linear"]), "1", "distance of the slope from 0"),
                "limit_error": measure(error, "ratio", "largest error of the closed forms at the shortest way"),
                "network_contrast": measure(contrast, "1", "slope in the network, Linf minus L2"),
                "network_l2_slope_off": measure(abs(slope["L2, network"]), "1", "distance of its L2 slope from 0"),
                "network_linf_slope": measure(slope["Linf, network"], "1", "its slope under Linf"),
            },
            arrays={"x": way, **lines},
            notes=("slopes of log R over log h, all ways alike",),
        )

    def radius(self, norm: Norm) -> float:
        return self.linf if norm == "Linf" else self.l2

    def seen(self, moved: Tensor, unmoved: Tensor) -> Tensor:
        """The weights that the attack answers to: those where the gradient is taken."""
        del unmoved
        return moved

    def linear_attack(self, w: Tensor, norm: Norm) -> Tensor:
        """The worst perturbation (D,) of examples with label -1; of the others its negative."""
        return self.radius(norm) * (w.sign() if norm == "Linf" else w / w.norm())

    def linear(self, x: Tensor, y: Tensor, way: Tensor, setting: Setting) -> tuple[dict[str, Tensor], float]:
        """R by norm, a mean over coordinates, and the largest error of the closed forms at the shortest way."""
        start = torch.linalg.solve(x.T @ x / len(x) + self.ridge * torch.eye(x.shape[1]).double(), x.T @ y / len(x))
        varied = (x.var(0) > 0).nonzero().flatten()
        chosen = varied[torch.randperm(len(varied), generator=setting.generator("coordinates"))[: self.coordinates]]
        found: dict[str, list[Tensor]] = {f"{norm}, linear": [] for norm in NORMS}
        errors: list[float] = []
        for i in chosen.tolist():
            w, unit = start.clone(), torch.zeros_like(start)
            w[i], unit[i] = 0, 1
            for norm in NORMS:
                steps = way * w.norm()
                r = torch.stack([self._linear_change(w, h * unit, x, y, norm).norm() / (2 * h) for h in steps])
                found[f"{norm}, linear"].append(r)
                limit = self._limit(w, unit, x, y, norm, float(steps[0]))
                errors.append(float(abs(r[0] / limit - 1)))
        return {name: torch.stack(values).mean(0) for name, values in found.items()}, max(errors)

    def _linear_change(self, w: Tensor, move: Tensor, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
        def slope(at: Tensor) -> Tensor:
            # Danskin: the derivative of a maximum is that of what is maximised, at the maximiser.
            attacked = x - y[:, None] * self.linear_attack(self.seen(at, w), norm)
            return (-y * torch.sigmoid(-y * (attacked @ at))) @ attacked / len(x)

        return slope(w + move) - slope(w - move)

    def _limit(self, w: Tensor, unit: Tensor, x: Tensor, y: Tensor, norm: Norm, h: float) -> Tensor:
        if norm == "Linf":
            return self.linf * torch.sigmoid(-y * (x @ w) + self.linf * w.abs().sum()).mean() / h
        slope = grad(lambda at: adversarial_loss(at, x, y, self.l2))
        return grad(lambda at: slope(at) @ unit)(w).norm()

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """Of a network with one hidden layer whose weights are all in theta (P,), for x (..., D)."""
        inputs = x.shape[-1]
        outputs = (len(theta) - self.hidden * (inputs + 1)) // (self.hidden + 1)
        w, b, v, c = theta.split([self.hidden * inputs, self.hidden, outputs * self.hidden, outputs])
        return torch.tanh(x @ w.view(self.hidden, inputs).T + b) @ v.view(outputs, self.hidden).T + c

    def attack(self, theta: Tensor, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
        """x + d after a few steps of projected steepest ascent from x, in the ball and without a pixel box."""
        threat, d = Threat(norm, self.radius(norm)), torch.zeros_like(x)
        for _ in range(self.attack_steps):
            at = (x + d).requires_grad_()
            slope = torch.autograd.grad(cross_entropy(self.logits(theta, at), y, reduction="sum"), at)[0]
            d = d + 2.5 * threat.eps / self.attack_steps * threat.steepest_ascent(slope)
            d = d.clamp(-threat.eps, threat.eps) if norm == "Linf" else _shortened(d, threat.eps)
        return x + d

    def trained(self, x: Tensor, y: Tensor, setting: Setting) -> Tensor:
        """The weights (P,) of a network trained against the Linf attack."""
        source, inputs = setting.generator("weights"), x.shape[1]
        sizes = (self.hidden, inputs), (self.hidden, 0), (setting.classes, self.hidden), (setting.classes, 0)
        parts = [
            torch.randn(out, into or 1, generator=source).double().flatten() * (into**-0.5 if into else 0.0)
            for out, into in sizes
        ]
        theta = torch.cat(parts).requires_grad_()
        optimizer = torch.optim.Adam([theta], self.lr)
        for _ in range(self.training):
            attacked = self.attack(theta.detach(), x, y, "Linf")
            optimizer.zero_grad()
            cross_entropy(self.logits(theta, attacked), y).backward()
            optimizer.step()
        return theta.detach()

    def network(self, theta: Tensor, x: Tensor, y: Tensor, way: Tensor, setting: Setting) -> dict[str, Tensor]:
        """R by norm, the root mean square over examples and directions."""
        each = vmap(grad(lambda at, one, label: cross_entropy(self.logits(at, one), label)), in_dims=(None, 0, 0))

        def slopes(at: Tensor, norm: Norm) -> Tensor:
            return each(at, self.attack(self.seen(at, theta), x, y, norm), y)

        source, total = setting.generator("directions"), {norm: torch.zeros_like(way) for norm in NORMS}
        for _ in range(self.directions):
            u = torch.randn(len(theta), generator=source, dtype=theta.dtype)
            u *= theta.norm() / u.norm()
            for norm in NORMS:
                for place, h in enumerate(way):
                    change = slopes(theta + h * u, norm) - slopes(theta - h * u, norm)
                    total[norm][place] += (change / (2 * h * theta.norm())).square().sum(1).mean()
        return {f"{norm}, network": (squares / self.directions).sqrt() for norm, squares in total.items()}


def _shortened(d: Tensor, eps: float) -> Tensor:
    """The nearest point of the L2 ball."""
    return d * (eps / d.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp(max=1)
