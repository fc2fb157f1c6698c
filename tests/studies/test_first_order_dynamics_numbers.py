"""What a run of first-order-dynamics makes of its parts, made up here: its numbers can be written down."""

from __future__ import annotations

from typing import Any

from scipy.stats import spearmanr

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
