"""Figures show the arrays they are given: read back from what was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advbench import figures, find
from advbench.collect import collect
from advbench.collectors.base import Collector
from advbench.data.base import Examples
from advbench.spec import BadInput
from advbench.threat import Threat

COLLECTORS = find.names(find.PACKAGE / "collectors")
mpl = pytest.importorskip("matplotlib", reason="figures need matplotlib: advbench[plots]")


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """What every collector that there is finds on a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(12, 1, 3, 3)
    examples = Examples(x, model(x).argmax(1), torch.arange(12), 1)
    made = [find.part(Collector, name)() for name in COLLECTORS]
    found = collect(model, examples, Threat("L2", 0.3), made)
    return {name: {key: value.numpy() for key, value in one.arrays.items()} for name, one in found.items()}


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots(1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", figures.KINDS)
def test_every_collector_with_arrays_has_a_figure_and_equal_arrays_give_equal_files(
    measured: dict[str, dict[str, Any]], kind: str
) -> None:
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[kind]

    for name, arrays in measured.items():
        drawn = figures.draw(name, arrays, "task/model", kind)
        assert (drawn is not None) == bool(arrays), name
        if drawn:
            assert drawn.startswith(start)
            assert drawn == figures.draw(name, arrays, "task/model", kind)


def test_a_collector_that_found_nothing_has_none() -> None:
    assert figures.draw("fosc", {}, "task/model", "png") is None
    assert figures.draw("somebody's own", {"a": np.ones(2)}, "task/model", "png") is None


def test_fosc_is_drawn_by_its_median_and_its_quarters() -> None:
    values = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [np.nan, np.nan]])
    left, right = axes()

    figures.fosc((left, right), {"fosc": values, "fosc_relative": values / 4})

    assert left.get_lines()[0].get_ydata().tolist() == [1.5, 2.5]
    [band] = left.collections
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.75, 3.25)
    assert right.get_lines()[0].get_ydata().tolist() == [1.5 / 4, 2.5 / 4]


def test_the_loudest_examples_come_first_in_the_share_of_gradients() -> None:
    left, right = axes()
    figures.influence((left, right), {"clean_length": np.array([1.0, 3.0]), "adversarial_length": np.array([2.0, 2.0])})

    clean, adversarial = right.get_lines()
    assert clean.get_xydata().tolist() == [[0.5, 0.9], [1.0, 1.0]]
    assert adversarial.get_xydata().tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert left.get_lines()[0].get_xydata().tolist() == [[1, 2], [3, 2]]


def test_a_histogram_counts_every_finite_example() -> None:
    left, _ = axes()
    arrays = {"clean_margin": np.array([0.0, 1.0, 2.0, np.inf]), "adversarial_margin": np.array([-1.0, np.nan])}

    figures.histograms(left, arrays, "margin", "margin, logits")

    assert [sum(bar.get_height() for bar in bars) for bars in left.containers] == [3, 1]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["clean", "adversarial"]


def test_the_surface_has_the_first_direction_along_x() -> None:
    at = np.array([-1.0, 0.0, 1.0])
    left, right = axes()
    # The loss rises along the first direction alone: its level lines are upright.
    surface = np.repeat(at[:, None], 3, 1)

    figures.sharpness(
        (left, right),
        {"curve_at": at, "clean_curve": at, "adversarial_curve": at, "surface_at": at, "adversarial_surface": surface},
    )

    [lines] = [drawn for drawn in right.collections if hasattr(drawn, "levels")]
    paths = [path.vertices for path in lines.get_paths() if len(path.vertices)]
    assert paths
    for path in paths:
        assert np.ptp(path[:, 0]) == pytest.approx(0)
        assert np.ptp(path[:, 1]) == pytest.approx(2)


def test_a_surface_of_one_point_is_left_out() -> None:
    at = np.array([-1.0, 0.0, 1.0])
    arrays = {"curve_at": at, "clean_curve": at, "adversarial_curve": at}
    arrays |= {"surface_at": at[:1], "adversarial_surface": at[:1, None], "clean_surface": at[:1, None]}

    assert figures.draw("sharpness", arrays, "task/model", "png")


def test_where_no_attack_reaches_the_model_its_clean_calibration_is_drawn() -> None:
    arrays = {"clean_count": np.array([0.0, 4.0]), "clean_confidence": np.ones(2), "clean_accuracy": np.ones(2)}
    left, right = axes()

    figures.calibration((left, right), arrays)

    assert [one.has_data() for one in (left, right)] == [True, False]
    assert figures.draw("calibration", arrays, "task/model", "png")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_curvature_that_is_not_finite_leaves_the_other_losses_to_see(bad: float) -> None:
    some = np.ones(3)
    arrays = {f"clean_{name}": bad * some for name in ("density_at", "density", "values", "errors")}
    assert figures.draw("param-hessian", arrays, "task/model", "png")
    both = arrays | {f"fixed_{name}": some for name in ("density_at", "density", "values", "errors")}
    left, right = axes()

    figures.param_hessian((left, right), both)

    assert left.get_ylim() == pytest.approx((1e-8, 2))


def test_without_matplotlib_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda _name: None)

    with pytest.raises(BadInput, match=r"pip install 'advbench\[plots\]'"):
        figures.ready()


def test_only_the_collectors_that_exist_have_figures() -> None:
    assert set(figures.FIGURES) <= set(COLLECTORS)
