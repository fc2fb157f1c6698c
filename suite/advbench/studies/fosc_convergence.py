"""How well the inner maximum is solved, early and late in training, against the robustness that comes of it.

Wang et al., "On the Convergence and Robustness of Adversarial Training", ICML 2019, arXiv 2112.08304. How far an
adversarial example x_k is from a maximum of its ball is its FOSC,

    c(x_k) = max_{x in ball} <x - x_k, g> = eps ||g||_dual - <x_k - x0, g>,   g = grad of its cross-entropy at x_k

0 where the inner maximum is solved. Networks are trained against weak adversaries (few steps from the image) or
strong ones (many), early (in the first half of the epochs), late (in the second) or throughout.

The criterion is the paper's, with the ball alone. Pixels that want to leave the box keep it up; `fosc_box` is the gap
that knows of the box. The loss is each example's own: a batch mean would divide the gap by the batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.pgd import ascend, input_gradient
from advbench.collectors.base import Measures, measure, spearman
from advbench.defense import Defense, TrainState
from advbench.findings import Claim, Plot
from advbench.losses import cross_entropy
from advbench.recipe import Training
from advbench.study import Setting, Study
from advbench.task import Data
from advbench.threat import Threat
from advbench.tutor import Small, accuracy, attacked, fresh, teach

PAPER = "Wang et al. 2019, arXiv 2112.08304"
HALF = 0.5
"""Share of training after which it is late."""


class Staged(Defense):
    """Training against adversaries of one number of steps early, of another one late."""

    name = "staged"
    paper = PAPER

    early: int = Field(ge=1)
    late: int = Field(ge=1)
    step_size: float = Field(gt=0)

    def steps(self, progress: float) -> int:
        """Of the attack at a share `progress` of training."""
        return self.early if progress < HALF else self.late

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        x_adv = adversary(state.model, x, y, state.threat, self.steps(state.progress), self.step_size)
        return state.cross_entropy(state.model(x_adv), y)


class FoscConvergence(Study):
    """FOSC of the training adversaries against final robustness (Wang et al. 2019)."""

    name = "fosc-convergence"
    about = "Does a well solved inner maximum matter, does it matter when, and does FOSC tell?"
    paper = PAPER
    data = Data(name="digits")
    seconds = 6.0
    claims = (
        Claim(
            name="late_over_early",
            statement="Strong adversaries in the second half of training leave more robust accuracy than in the first.",
            source=f"{PAPER}, abstract",
            required=0.02,
            sense="at least",
        ),
        Claim(
            name="late_beside_throughout",
            statement="Early they are not necessary: without them robust accuracy is at most a point lower.",
            source=f"{PAPER}, abstract",
            required=-0.01,
            sense="at least",
        ),
        Claim(
            name="late_fosc_correlation",
            statement="The smaller the FOSC of the last epoch's adversaries, the more robust the network.",
            source=f"{PAPER}, abstract",
            required=-0.7,
            sense="at most",
        ),
        Claim(
            name="fosc_correlation",
            statement="Of attacks with one number of steps, FOSC ranks how much accuracy they leave.",
            source=f"{PAPER}, on FOSC as a measure of adversarial strength",
            required=0.9,
            sense="at least",
        ),
        Claim(
            name="fosc_over_loss",
            statement="It ranks them at least as well as the loss that they reach.",
            source=f"{PAPER}, on FOSC as a measure of adversarial strength",
            required=0.0,
            sense="at least",
        ),
    )
    plot = Plot(x="epoch", y="mean FOSC (nats)", log="y")

    model: Small = "mlp"
    norm: Literal["Linf", "L2"] = "Linf"
    eps: float = Field(default=0.15, gt=0)
    """Of training and judging, pixels in [0, 1]."""
    epochs: int = Field(default=20, ge=2)
    batch: int = Field(default=128, ge=2)
    weak: int = Field(default=1, ge=1)
    """Steps of a weak adversary, from the image."""
    middling: int = Field(default=3, ge=1)
    """Steps of one between."""
    strong: int = Field(default=10, ge=1)
    """Steps of a strong one (the paper: 10)."""
    step_size: float = Field(default=0.25, gt=0)
    """Share of eps (the paper: 1/4)."""
    step_sizes: tuple[float, ...] = Field(default=(0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0), min_length=3)
    """Of the attacks that FOSC and loss rank, shares of eps; they have `strong` steps each."""

    def run(self, setting: Setting) -> Measures:
        threat, test = Threat(self.norm, self.eps), setting.data.test
        x, y = test.pixels(slice(None)), test.labels
        courses, robust, lines, last = self.courses(), dict[str, float](), dict[str, Tensor](), dict[str, float]()
        networks: dict[str, nn.Module] = {}
        for done, (words, course) in enumerate(courses.items()):
            setting.say(done, len(courses), words)
            networks[words], gaps = self._taught(course, threat, setting)
            lines[words] = torch.tensor(gaps, dtype=torch.float64)
            last[words] = gaps[-1]
            robust[words] = self.robust(networks[words], x, y, threat, setting.seed)
        ranked = self._ranked(networks["strong throughout"], x, y, threat)
        late, early, always = (robust[f"strong {when}"] for when in ("late", "early", "throughout"))
        by_fosc, by_loss = (spearman(values, ranked["accuracy"]) for values in (ranked["fosc"], ranked["loss"]))
        over = spearman(torch.tensor(list(last.values())), torch.tensor(list(robust.values())))
        words = "robust accuracy (PGD-20)"
        return Measures(
            values={
                "late_over_early": measure(late - early, "1", f"{words}: strong late minus strong early"),
                "late_beside_throughout": measure(late - always, "1", f"{words}: strong late minus strong throughout"),
                "late_fosc_correlation": measure(over, "1", f"rank correlation of the last FOSC and {words}"),
                "fosc_correlation": measure(by_fosc, "1", "rank correlation of FOSC and accuracy over attacks"),
                "fosc_over_loss": measure(abs(by_fosc) - abs(by_loss), "1", "|correlation| of FOSC minus of the loss"),
                "loss_correlation": measure(by_loss, "1", "rank correlation of the loss and accuracy over attacks"),
                **{
                    f"robust_{name.replace(' ', '_')}": measure(value, "1", f"{words}, {name}")
                    for name, value in robust.items()
                },
                "fosc_box": measure(ranked["box"][-1], "nats", "mean FOSC in ball and box of the training attack"),
            },
            arrays={"x": torch.arange(1.0, self.epochs + 1, dtype=torch.float64), **lines},
            notes=(
                "the plot: training adversaries, on validation images",
                f"weak: {self.weak} step(s) from the image; strong: {self.strong}; late: the second half",
            ),
        )

    def courses(self) -> dict[str, Defense]:
        """What is trained against, by its name in the plot."""
        steps = {
            "weak throughout": (self.weak, self.weak),
            "middling throughout": (self.middling, self.middling),
            "strong throughout": (self.strong, self.strong),
            "strong early": (self.strong, self.weak),
            "strong late": (self.weak, self.strong),
        }
        return {name: Staged(early=early, late=late, step_size=self.step_size) for name, (early, late) in steps.items()}

    def criterion(self, threat: Threat, x_adv: Tensor, x: Tensor, grad: Tensor) -> Tensor:
        """FOSC of each example, (N,)."""
        return threat.fosc(x_adv, x, grad)

    def robust(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> float:
        """What is left of accuracy under PGD-20."""
        return accuracy(model, attacked(model, x, y, threat, seed), y)

    def _taught(self, course: Defense, threat: Threat, setting: Setting) -> tuple[nn.Module, list[float]]:
        """A network after this course, and mean FOSC of the adversaries on validation images by epoch.

        All courses begin at the same weights and meet the same batches.
        """
        assert isinstance(course, Staged)
        held, gaps = setting.data.validation, list[float]()
        x, y = held.pixels(slice(None)), held.labels
        with torch.random.fork_rng([]):
            torch.manual_seed(setting.derived("weights"))
            model = fresh(self.model, held, setting.classes)

        def look(epoch: int) -> None:
            steps = course.steps(epoch / self.epochs)
            x_adv = adversary(model, x, y, threat, steps, course.step_size)
            gaps.append(float(self.criterion(threat, x_adv, x, input_gradient(model, x_adv, y)).mean()))

        training = Training(epochs=self.epochs, batch=self.batch)
        return teach(model, setting.data.train, course, threat, training, setting.derived("course"), look), gaps

    def _ranked(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> dict[str, Tensor]:
        """Mean FOSC, mean loss and accuracy of attacks on one network that differ in their step size alone."""
        found: dict[str, list[float]] = {"fosc": [], "box": [], "loss": [], "accuracy": []}
        for size in (*self.step_sizes, self.step_size):
            x_adv = adversary(model, x, y, threat, self.strong, size)
            grad = input_gradient(model, x_adv, y)
            found["fosc"].append(float(self.criterion(threat, x_adv, x, grad).mean()))
            found["box"].append(float(threat.fosc(x_adv, x, grad, box=True).mean()))
            with torch.no_grad():
                found["loss"].append(float(cross_entropy(model(x_adv), y).mean()))
            found["accuracy"].append(accuracy(model, x_adv, y))
        kept = {name: torch.tensor(values) for name, values in found.items()}
        # The last one is the attack of training, for `box` alone.
        return {name: values if name == "box" else values[:-1] for name, values in kept.items()}


def adversary(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int, step_size: float) -> Tensor:
    """x (N, ...) after so many steps from the image, `step_size` a share of eps."""
    return ascend(model, x, y, threat, start=x, steps=steps, step_size=step_size * threat.eps)
