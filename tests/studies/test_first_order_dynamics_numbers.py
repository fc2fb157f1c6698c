"""What a run of first-order-dynamics makes of its parts, made up here: its numbers can be written down."""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy

from advbench.studies.first_order_dynamics import FirstOrderDynamics

from small_studies import about, few, lines, numbers  # isort: skip


def test_its_numbers_compare_scales() -> None:
    scales = (0.5, 1.0, 2.0)
    took = {"tanh": (10.0, 12.0, 30.0), "softplus": (8.0, 8.0, 16.0)}
    many = {"tanh": (0.25, 0.5, 0.875), "softplus": (0.0, 0.125, 0.0)}
    on = {"tanh": (1.0, 0.75, 1.0), "softplus": (1.0, 1.0, 0.5)}

    class Made(FirstOrderDynamics):
        def landscape(self, kind: str, scale: float, setting: Any) -> dict[str, float]:
            at = scales.index(scale)
            return {"iterations": took[kind][at], "sphere": on[kind][at], "maxima": many[kind][at]}

        def trained(self, scale: float, lr: float, setting: Any) -> float:
            # With one rate the loss falls from the second scale on; with matched ones it falls all the way.
            return {0.1: (2.0, 3.0, 1.0)[scales.index(scale)]}.get(lr, lr)

    found = Made(scales=scales, compared=2.0, lr=0.1).run(few(Made, train=40))

    loss, matched = (2.0, 3.0, 1.0), (0.1 / 0.25, 3.0, 0.1 / 4)
    assert numbers(found) == about(
        {
            "iterations_ratio": 3,
            "iterations_step": 1,
            "several_maxima": 0.625,
            "on_sphere": 0.5,
            "training_loss": -0.5,
            "training_loss_matched": spearmanr(scales, matched).statistic,
            **{f"tanh_maxima_{s:g}": value for s, value in zip(scales, many["tanh"], strict=True)},
            **{f"softplus_maxima_{s:g}": value for s, value in zip(scales, many["softplus"], strict=True)},
            **{f"loss_{s:g}": value for s, value in zip(scales, loss, strict=True)},
            **{f"loss_matched_{s:g}": value for s, value in zip(scales, matched, strict=True)},
        }
    )
    assert lines(found) == {"x": [*scales]} | {kind: [*values] for kind, values in took.items()}


def test_the_training_loss_is_that_of_the_last_epoch_over_all_images():
    """Two epochs of gradient descent on 30 images in batches of 12, by hand."""
    setting, study = few(FirstOrderDynamics, train=30), FirstOrderDynamics(hidden=6, epochs=2, batch=12)
    x = setting.data.train.pixels(slice(None)).flatten(1)
    x, y = 3 * x / x.norm(dim=1, keepdim=True), setting.data.train.labels
    source = setting.generator("training")
    w = torch.randn(6, 64, generator=source)
    a = (2.0 * torch.randint(2, (60,), generator=source) - 1).view(10, 6) / 6**0.5
    losses = list[float]()
    for _ in range(2):
        losses.clear()
        for rows in torch.randperm(30, generator=source).split(12):
            d = study.attack(x[rows], y[rows], w, a, 0.6)  # a fifth of the norm
            w.requires_grad_()
            a.requires_grad_()
            each = cross_entropy(torch.tanh((x[rows] + d) @ w.T) @ a.T, y[rows], reduction="none")
            for_w, for_a = torch.autograd.grad(each.mean(), (w, a))
            w, a = (w - 0.05 * for_w).detach(), (a - 0.05 * for_a).detach()
            losses += each.tolist()

    assert study.trained(3.0, 0.05, setting) == about(sum(losses) / 30)


def test_the_training_attack_takes_so_many_steps_of_so_long():
    """On a linear loss each step is 2.5 radii over their number, as long as that is inside the ball."""
    study = FirstOrderDynamics(attack_steps=5)
    x, y = torch.zeros(2, 3), torch.tensor([0, 1])
    w, a = 1e-3 * torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[1.0], [-1.0]])
    seen = list[torch.Tensor]()

    class Watched(FirstOrderDynamics):
        def project(self, d: torch.Tensor, radius: float) -> torch.Tensor:
            seen.append(super().project(d, radius))
            return seen[-1]

    Watched.model_validate(study.plain()).attack(x, y, w, a, 0.4)

    assert [float(d[0].norm()) for d in seen] == about([0.2, 0.4, 0.4, 0.4, 0.4])
    way = torch.tensor([1.0, 2.0, 2.0]) / 3
    torch.testing.assert_close(seen[-1], 0.4 * torch.stack([-way, way]))
