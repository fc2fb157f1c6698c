"""What a run makes of its parts, of each study with parts that are made up: its numbers can be written down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from advbench.spec import BadInput
from advbench.studies.attack_smoothness import AttackSmoothness
from advbench.studies.dat_scaling import DatScaling
from advbench.studies.fast_at_is_linearised_bilevel import FastAtIsLinearisedBilevel
from advbench.studies.fosc_convergence import FoscConvergence
from advbench.studies.gan_gda import GanGda
from advbench.studies.gray_box import GrayBox
from advbench.studies.logistic_sharpness import LogisticSharpness
from advbench.studies.narrow_net import NarrowNet

from small_studies import about, few, lines, numbers  # isort: skip


def test_dat_scaling() -> None:
    left = {
        "SGD": {1: 0.9, 2: 0.7, 4: 0.3},
        "SGD, lr times workers": {2: 0.6, 4: 0.4},
        "LAMB": {1: 0.8, 2: 0.75, 4: 0.6},
        "LAMB, 8 bits": {2: 0.74, 4: 0.55},
    }
    taught = list[Any]()

    class Made(DatScaling):
        def _taught(self, way: Any, workers: int, threat: Any, setting: Any) -> Any:
            taught.append((way, workers))
            return taught[-1]

        def judged(self, model: Any, *others: Any) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
            return left[model[0]][model[1]]

        def _gradients(self, *others: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # of mean (2, 4), and sqrt(5) from it

        def _rounding(self, gradient: Tensor, setting: Any) -> tuple[float, float, float]:
            assert gradient.tolist() == [2, 4]
            return 1.5, 0.5, 0.25

        def sent(self, count: int, workers: int, bits: int) -> int:
            assert (count, workers) == (2, 4)
            return {32: 400, 8: 100}[bits]

    found = Made(workers=(1, 2, 4)).run(few(Made, train=40, test=8))

    assert numbers(found) == about(
        {
            "layerwise_gain": 0.3,
            "quantised_cost": 0.05,
            "bytes_share": 0.25,
            "bias": 1.5,
            "variance_share": 0.5,
            "scaled_gain": 0.2,
            "bytes_8_bits": 100,
            "bytes_fp32": 400,
            "rounding_noise": 0.25,
            "gradient_noise": 5 / 20,
        }
    )
    # Alone nobody sends anything, and so the two are what they are without.
    alone = {"SGD, lr times workers": [0.9], "LAMB, 8 bits": [0.8]}
    assert lines(found) == {"x": [1, 2, 4]} | {
        name: [*alone.get(name, []), *values.values()] for name, values in left.items()
    }
    assert len(taught) == len(set(taught)) == 10


def test_the_rates_of_dat_scaling_grow_with_the_workers_as_their_papers_say() -> None:
    study = DatScaling(lr=0.1, lamb_lr=0.01)

    assert [study.rate(way, 16) for way in ("SGD", "SGD, lr times workers", "LAMB", "LAMB, 8 bits")] == about(
        [0.1, 1.6, 0.04, 0.04]
    )


def test_gan_gda() -> None:
    time = torch.arange(101.0, dtype=torch.float64)
    curves = {2: 0.5 + 0.5 * (time == 0), 4: 0.3 + 0.7 * (time == 0), 8: (-0.05 * time).exp(), 16: (-0.1 * time).exp()}
    free = 1 + 8.0 * (time == 89) + 4 * (time == 90)

    class Made(GanGda):
        def play(self, target: Tensor, width: int, setting: Any, price: float = 1.0) -> Tensor:
            assert price or width == 16
            return curves[width] if price else free

    found = Made(widths=(2, 4, 8, 16), narrow=4, wide=8, steps=100).run(few(Made, train=40))

    assert numbers(found) == about(
        {
            "wide_residual": float(curves[8][-1]),
            "narrow_residual": 0.3,
            "line_fit": 1,
            "speed_step": 93 / 47,  # ln 100 over the rates: 92.1 and 46.05
            "free_critic": 5,  # of steps 90 to 100
            "steps_8": 93,
            "steps_16": 47,
        }
    )
    assert len(found.arrays["x"]) == 60
    assert (found.arrays["x"][0], found.arrays["x"][-1]) == (0, 100)
    for width, curve in curves.items():
        assert torch.equal(found.arrays[f"{width} hidden units"], curve[found.arrays["x"].long()])


def test_narrow_net() -> None:
    last = {
        6: {"plain": 0.8, "mirrored": 0.5, "projected": 0.2},
        12: {"plain": 0.7, "mirrored": 0.4, "projected": 0.05},
    }
    breach = {6: {"plain": 9.0, "mirrored": 8.0, "projected": -0.5}, 12: dict.fromkeys(last[12], -0.25)}

    class Made(NarrowNet):
        def descend(self, x: Tensor, y: Tensor, width: int, way: str, shown: Tensor, setting: Any) -> Any:
            assert x.shape == (130, 64)
            assert set(y.tolist()) == {-1, 1}
            return torch.linspace(1, last[width][way], len(shown), dtype=torch.float64), breach[width][way]

    found = Made(samples=130, steps=121).run(few(Made, train=140))

    # 2 * ceil(130 / 64) units, and twice as many.
    assert numbers(found) == about(
        {
            "projected_over_plain": 0.25,
            "projected_over_mirrored": 0.4,
            "projected_error": 0.2,
            "wider_over_narrow": 0.25,
            "violation": -0.25,
            "plain_error": 0.8,
            "mirrored_error": 0.5,
        }
    )
    assert found.arrays["x"].tolist() == [*range(0, 122, 2)]
    assert found.arrays.keys() == {"x", *(f"{way}, {width} units" for width in last for way in last[width])}
    assert found.notes == ("130 samples of 64 dimensions: 2 n / d = 4.0625",)
    assert Made(samples=130, steps=30).run(few(Made, train=140)).arrays["x"].tolist() == [*range(31)]


def test_fosc_convergence() -> None:
    names = [f"{how} throughout" for how in ("weak", "middling", "strong")] + ["strong early", "strong late"]
    robust = dict(zip(names, (0.1, 0.3, 0.6, 0.4, 0.55), strict=True))
    last = dict(zip(names, (5.0, 2.0, 3.0, 4.0, 1.0), strict=True))
    ranked = {
        "fosc": [1.0, 2, 3, 4],
        "loss": [1.0, 3, 2, 4],
        "accuracy": [0.4, 0.3, 0.1, 0.2],
        "box": [9, 8, 7, 6, 0.7],
    }

    class Made(FoscConvergence):
        def _taught(self, course: Any, threat: Any, setting: Any) -> Any:
            name = next(name for name, one in self.courses().items() if one == course)
            return name, [7.0, last[name]]

        def robust(self, model: Any, *others: Any) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
            return robust[model]

        def _ranked(self, model: Any, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            assert model == "strong throughout"
            return {name: torch.tensor(values) for name, values in ranked.items()}

    found = Made(epochs=2).run(few(Made, train=40, test=8))

    by = {name: spearmanr(ranked[name], ranked["accuracy"]).statistic for name in ("fosc", "loss")}
    assert numbers(found) == about(
        {
            "late_over_early": 0.15,
            "late_beside_throughout": -0.05,
            "late_fosc_correlation": spearmanr([*last.values()], [*robust.values()]).statistic,
            "fosc_correlation": by["fosc"],
            "fosc_over_loss": abs(by["fosc"]) - abs(by["loss"]),
            "loss_correlation": by["loss"],
            "fosc_box": 0.7,
            **{f"robust_{name.replace(' ', '_')}": value for name, value in robust.items()},
        }
    )
    assert lines(found) == {"x": [1, 2]} | {name: [7, value] for name, value in last.items()}


def test_fast_at_is_linearised_bilevel() -> None:
    left = {("fast-at", 0.1): (0.8, 0.7), ("fast-at", 0.2): (0.9, 0.2)}
    left |= {("fast-bat", 0.1): (0.75, 0.65), ("fast-bat", 0.2): (0.6, 0.45)}
    trained = list[Any]()

    class Made(FastAtIsLinearisedBilevel):
        def _error(self, name: str, setting: Any) -> tuple[float, float]:
            return {"fast-at": (1e-12, 0.0), "fast-bat": (1e-9, 0.3)}[name]

        def _taught(self, defense: Any, epochs: int, threat: Any, setting: Any) -> Any:
            trained.append((defense.name, epochs))
            return defense.name, threat.eps

        def judged(self, model: Any, *others: Any) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return dict(zip(("FGSM", "PGD-20"), left[model], strict=True))

    found = Made(eps=(0.1, 0.2), epochs=8).run(few(Made, train=40, test=8))

    assert numbers(found) == about(
        {
            "fast_at_error": 1e-12,
            "fast_bat_error": 1e-9,
            "gain_at_smallest": -0.05,
            "gain_at_largest": 0.25,
            "collapse_at_largest": 0.7,
            "fast_bat_gap_at_largest": 0.15,
            "implicit": 0.3,
            "fast_at_implicit": 0,
        }
    )
    # 3 forward and 4 backward passes of Fast-BAT are 7 / 4 of the 2 and 2 of fast AT.
    assert trained == [("fast-at", 14), ("fast-bat", 8)] * 2
    assert found.notes == ("Fast-BAT 8 epochs, fast AT 14: equal passes",)
    assert lines(found)["fast-at, FGSM"] == about([0.8, 0.9])
    assert lines(found)["fast-bat, PGD-20"] == about([0.65, 0.45])


def data(train: int = 100, test: int = 100, classes: int = 10, side: int = 8) -> Any:
    """A data set of such a size."""

    def split(count: int) -> Any:
        return SimpleNamespace(labels=torch.zeros(count), images=torch.zeros(1, 1, side, side))

    return SimpleNamespace(train=split(train), test=split(test), classes=classes)


FITS: dict[str, tuple[Any, dict[str, int], dict[str, int], str]] = {
    "attack-smoothness": (AttackSmoothness(), {"classes": 2}, {"classes": 1}, "two classes at least"),
    "dat-scaling": (DatScaling(workers=(1, 4), batch=10), {"train": 40}, {"train": 39}, "4 workers of 10 examples"),
    "gan-gda, side": (GanGda(side=6), {"side": 6}, {"side": 5}, "side: 6 is more than these images' 5 by 5"),
    "gray-box": (GrayBox(queries=(5, 20)), {"test": 20}, {"test": 19}, "at most the 19 test images, not 20"),
    "logistic-sharpness, few": (LogisticSharpness(), {"classes": 2}, {"classes": 1}, "should name two classes"),
    "logistic-sharpness, many": (LogisticSharpness(), {"classes": 2}, {"classes": 3}, "should name two classes"),
    "narrow-net": (NarrowNet(samples=50), {"train": 50}, {"train": 49}, "samples: 50 is more than the 49 training"),
}


@pytest.mark.parametrize("case", FITS)
def test_data_that_just_suffice_are_taken_and_no_others(case: str) -> None:
    study, enough, short, said = FITS[case]

    study.fit(data(**enough))
    with pytest.raises(BadInput, match=said):
        study.fit(data(**short))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"narrow": 15, "widths": (15, 16, 17), "wide": 16}, None),
        ({"narrow": 16, "widths": (2, 16, 17), "wide": 16}, "narrow: should be from widths"),
        ({"narrow": 8, "widths": (9, 16, 17), "wide": 16}, "narrow: should be from widths"),
        ({"narrow": 8, "widths": (2, 15, 17), "wide": 16}, "wide: at least two of the widths"),
    ],
)
def test_the_widths_of_gan_gda_are_narrow_and_wide_ones(fields: dict[str, Any], said: str | None) -> None:
    study = GanGda(side=4, **fields)

    if said is None:
        study.fit(data())
    else:
        with pytest.raises(BadInput, match=said):
            study.fit(data())
