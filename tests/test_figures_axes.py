"""What stands on a figure's axes: every point, its colour, its name, the axes' names and their ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from advbench import figures

mpl = pytest.importorskip("matplotlib", reason="figures need matplotlib: advbench[plots]")
BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"
SIZES = {"x-small": 6.94, "small": 8.33, "medium": 10.0}
"""Points, of matplotlib's words for them."""


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots(1, 2)


def named(one: Any) -> tuple[str, str, str]:
    return one.get_xlabel(), one.get_ylabel(), one.get_title()


def scales(one: Any) -> tuple[str, str]:
    return one.get_xscale(), one.get_yscale()


def legend(one: Any) -> list[str]:
    texts = one.get_legend().get_texts()
    assert {round(text.get_fontsize(), 2) for text in texts} == {SIZES["small"]}
    return [text.get_text() for text in texts]


def lines(one: Any) -> list[tuple[str, str, list[Any]]]:
    return [(line.get_label(), line.get_color(), line.get_xydata().tolist()) for line in one.get_lines()]


def dots(one: Any) -> set[tuple[str, str, float]]:
    """How points are drawn that no line connects."""
    return {(line.get_linestyle(), line.get_marker(), line.get_markersize()) for line in one.get_lines()}


def hexes(artists: Any) -> list[str]:
    return [mpl.colors.to_hex(artist.get_facecolor()) for artist in artists]


@pytest.mark.parametrize(("kind", "told"), [("png", {"Software": None}), ("svg", {"Date": None})])
def test_a_figure_is_two_axes_wide_has_its_title_and_bears_no_date(
    monkeypatch: pytest.MonkeyPatch, kind: str, told: dict[str, None]
) -> None:
    from matplotlib.figure import Figure

    saved: list[Any] = []

    def savefig(self: Figure, file: Any, **how: Any) -> None:
        saved.extend([self, how, mpl.rcParams["svg.hashsalt"]])
        file.write(b"drawn")

    monkeypatch.setattr(Figure, "savefig", savefig)
    arrays = {"interval_margin": np.array([1.0]), "margin": np.array([1.0])}
    assert figures.draw("certified", arrays, "task/model", kind) == b"drawn"

    figure, how, salt = saved
    assert how == {"format": kind, "dpi": 150, "metadata": told}
    assert salt == "advbench"
    assert figure.get_size_inches().tolist() == [7, 3]
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"
    assert (figure._suptitle.get_text(), figure._suptitle.get_fontsize()) == ("task/model: certified", SIZES["medium"])
    assert [one.axison for one in figure.axes] == [True, False], "where nothing is drawn there are no axes"


@pytest.mark.parametrize(
    ("draw", "which", "name", "label"),
    [
        (figures.margins, 0, "margin", "margin, logits"),
        (figures.margins, 1, "distance", "linearised distance to the boundary, pixels"),
        (figures.sparsity, 0, "shut", "share of ReLU gates shut"),
    ],
)
def test_histograms_are_of_forty_bins_over_all_that_is_finite(draw: Any, which: int, name: str, label: str) -> None:
    both = axes()
    arrays = {f"{where}_{other}": np.zeros(1) for where in ("clean", "adversarial") for other in ("margin", "distance")}
    arrays |= {f"clean_{name}": np.array([0.0, 2.0, np.inf]), f"adversarial_{name}": np.array([-1.0, -1.0, 1.0])}
    draw(both, arrays)
    one = both[which]

    clean, adversarial = one.containers
    edges = np.linspace(-1, 2, 41)
    for bars, counts, colour in ((clean, {13: 1, 39: 1}, BLUE), (adversarial, {0: 2, 26: 1}, RED)):
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1], atol=1e-9)
        assert {place: bar.get_height() for place, bar in enumerate(bars) if bar.get_height()} == counts
        assert set(hexes(bars)) == {colour}
        assert {bar.get_alpha() for bar in bars} == {0.6}
    assert named(one) == (label, "examples", "")
    assert legend(one) == ["clean", "adversarial"]


def test_calibration_has_a_point_a_bin_as_large_as_the_bin_is_full() -> None:
    left, right = axes()
    arrays = {
        "confidence": np.array([0.1, 0.5, 0.9]),
        "accuracy": np.array([0.2, 0.4, 0.8]),
        "count": np.array([0, 1, 3]),
    }
    figures.calibration(
        (left, right), {f"{where}_{n}": v for where in ("clean", "adversarial") for n, v in arrays.items()}
    )

    for one, where, colour in ((left, "clean", BLUE), (right, "adversarial", RED)):
        [points] = one.collections
        assert points.get_offsets().tolist() == [[0.5, 0.4], [0.9, 0.8]]
        assert points.get_sizes().tolist() == [8 + 25, 8 + 75]
        assert mpl.colors.to_hex(points.get_facecolor()) == colour
        assert [(data, line) for _, line, data in lines(one)] == [([[0, 0], [1, 1]], "0.7")]
        assert one.get_lines()[0].get_linewidth() == 1
        assert named(one) == ("confidence", "accuracy", where)
        assert (one.get_xlim(), one.get_ylim()) == ((0, 1.02), (-0.02, 1.02))


def test_the_share_of_examples_falls_with_the_margin_that_is_proven() -> None:
    left, right = axes()
    arrays = {"interval_margin": np.array([3.0, -2.0, np.nan]), "margin": np.array([4.0, 1.0, -1.0, 2.0])}
    figures.certified((left, right), arrays)

    interval, crown, zero = lines(left)
    assert (interval[0], interval[2]) == ("interval bounds", [[-2, 1], [3, 0.5]])
    assert (crown[0], crown[2]) == ("with CROWN", [[-1, 1], [1, 0.75], [2, 0.5], [4, 0.25]])
    assert (zero[1], zero[2], left.get_lines()[2].get_linewidth()) == ("0.6", [[0, 0], [0, 1]], 0.8)
    assert (named(left), scales(left)) == (("proven margin, logits", "share of examples", ""), ("symlog", "linear"))
    assert left.get_ylim() == (0, 1)
    assert legend(left) == ["interval bounds", "with CROWN"]
    assert not right.has_data()
    # Of a model whose bounds are nowhere finite nothing is drawn, and nothing breaks.
    left, right = axes()
    figures.certified((left, right), {name: np.array([np.nan]) for name in arrays})
    assert [data for *_, data in lines(left)[:2]] == [[], []]


def test_fosc_is_by_step_from_0_on_and_its_axis_begins_at_0() -> None:
    both = axes()
    values = np.array([[4.0, 2.0], [2.0, 1.0]])
    figures.fosc(both, {"fosc": values, "fosc_relative": values / 2})

    for one, label, scale in zip(both, ("FOSC, nats", "FOSC / (eps |gradient|)"), (1, 2), strict=True):
        [(_, colour, data)] = lines(one)
        assert (colour, data) == (RED, [[0, 3 / scale], [1, 1.5 / scale]])
        [band] = one.collections
        assert (hexes([band]), band.get_alpha(), band.get_linewidth()) == ([RED], 0.3, [0])
        assert named(one) == ("step", label, "")
        assert one.get_ylim()[0] == 0


def test_only_gradients_that_are_there_are_drawn_beside_each_other() -> None:
    left, right = axes()
    arrays = {"clean_length": np.array([0.0, 1.0, 2.0, np.nan]), "adversarial_length": np.zeros(4)}
    figures.influence((left, right), arrays)
    assert lines(left)[0][2] == []
    assert [label for label, *_ in lines(right)] == ["clean"], "of nothing there is no share"
    left, right = axes()
    figures.influence((left, right), arrays | {"adversarial_length": np.array([1.0, 0.0, 4.0, 1.0])})

    assert lines(left) == [("_child0", "0.3", [[2, 4]])]
    assert dots(left) == {("None", ".", 3)}
    assert (named(left), scales(left)) == (
        ("|clean gradient|", "|adversarial gradient|, nats / weight unit", ""),
        ("log", "log"),
    )
    assert lines(right) == [
        ("clean", BLUE, [[1 / 3, 0.8], [2 / 3, 1], [1, 1]]),
        ("adversarial", RED, [[0.25, 16 / 18], [0.5, 17 / 18], [0.75, 1], [1, 1]]),
    ]
    assert named(right) == ("share of examples, loudest first", "share of squared gradients", "")
    assert (right.get_xlim(), right.get_ylim()) == ((0, 1), (0, 1))
    assert legend(right) == ["clean", "adversarial"]


def test_the_first_eigenvalue_is_drawn_where_it_is_above_0_and_the_energy_by_step() -> None:
    left, right = axes()
    values = np.array([[2.0, 9.0], [0.0, 9.0], [-1.0, 9.0], [3.0, 9.0]])
    arrays = {
        "clean_values": values,
        "adversarial_values": 2 * values,
        "attack_energy": np.array([[0.1, 0.3], [0.2, 0.5]]),
    }
    arrays |= {f"{where}_confidence": np.array([0.1, 0.2, 0.3, 0.4]) for where in ("clean", "adversarial")}
    figures.input_hessian((left, right), arrays)

    assert lines(left) == [
        ("clean", BLUE, [[0.1, 2], [0.4, 3]]),
        ("adversarial", RED, [[0.1, 4], [0.4, 6]]),
    ]
    assert dots(left) == {("None", ".", 3)}
    assert (named(left), scales(left)) == (("confidence", "largest eigenvalue, nats / pixel²", ""), ("linear", "log"))
    assert left.get_legend().markerscale == 2
    assert legend(left) == ["clean", "adversarial"]
    assert [(label, data) for label, _, data in lines(right)] == [
        ("first eigenvector", [[1, 0.1], [2, 0.2]]),
        ("first two eigenvectors", [[1, 0.3], [2, 0.5]]),
    ]
    assert {line.get_marker() for line in right.get_lines()} == {"."}
    assert named(right) == ("step of the attack", "share of its square, median", "")
    assert right.get_ylim() == (0, 1)
    assert legend(right) == ["first eigenvector", "first two eigenvectors"]


def test_linearity_counts_errors_and_turns() -> None:
    both = axes()
    figures.linearity(both, {"error": np.array([0.0, 1.0, np.nan]), "alignment": np.array([-1.0, 0.5, 1.0])})

    labels = ("local linearity error, nats", "cosine of the gradients")
    for one, label, count, ends in zip(both, labels, (2, 3), ((0, 1), (-1, 1)), strict=True):
        [bars] = one.containers
        assert (len(bars), sum(bar.get_height() for bar in bars), set(hexes(bars))) == (40, count, {RED})
        assert (bars[0].get_x(), bars[-1].get_x() + bars[-1].get_width()) == pytest.approx(ends)
        assert named(one) == (label, "examples", "")


def test_spectra_stand_in_their_colours_with_the_errors_of_their_eigenvalues() -> None:
    left, right = axes()
    arrays: dict[str, Any] = {}
    for factor, loss in ((1, "clean"), (2, "fixed"), (4, "moving")):
        arrays |= {f"{loss}_density_at": np.array([0.0, 1.0]), f"{loss}_density": factor * np.array([1.0, 0.5])}
        arrays |= {f"{loss}_values": factor * np.array([3.0, np.nan, 1.0, 2.0])}
        arrays |= {f"{loss}_errors": np.array([0.5, 0.5, 0.25, np.inf])}
    figures.param_hessian((left, right), arrays)

    names = ["clean", "adversarial", "adversarial, attack moving"]
    assert lines(left) == [
        (name, colour, [[0, factor], [1, factor / 2]])
        for name, colour, factor in zip(names, (BLUE, RED, GREEN), (1, 2, 4), strict=True)
    ]
    assert (named(left), scales(left)) == (("eigenvalue, nats / weight unit²", "density", ""), ("linear", "log"))
    assert left.get_ylim() == pytest.approx((4e-8, 8))
    for bars, colour, factor in zip(right.containers, (BLUE, RED, GREEN), (1, 2, 4), strict=True):
        points, _, [spans] = bars
        assert (points.get_xydata().tolist(), points.get_color()) == ([[1, 3 * factor], [3, factor]], colour)
        assert (points.get_linestyle(), points.get_marker()) == ("None", ".")
        ends = [[3 * factor - 0.5, 3 * factor + 0.5], [factor - 0.25, factor + 0.25]]
        assert [[y for _, y in span] for span in spans.get_segments()] == ends
    assert named(right) == ("rank", "eigenvalue", "")
    assert right.get_ylim()[0] == 0
    assert legend(right) == names


def test_the_loss_is_drawn_along_a_line_and_over_a_plane() -> None:
    at = np.array([-1.0, 0.0, 1.0])
    curves = {"curve_at": at, "clean_curve": at**2, "adversarial_curve": 1 + at**2}
    left, right = axes()
    figures.sharpness((left, right), curves)
    assert not right.has_data(), "an older record has no surface"
    left, right = axes()
    # Of two points a side there are level lines already.
    surface = np.array([[0.0, 12.0], [0.0, 12.0]])
    figures.sharpness((left, right), curves | {"surface_at": at[:2], "adversarial_surface": surface})

    assert lines(left) == [
        ("clean", BLUE, [[-1, 1], [0, 0], [1, 1]]),
        ("adversarial", RED, [[-1, 2], [0, 1], [1, 2]]),
    ]
    assert {line.get_marker() for line in left.get_lines()} == {"."}
    assert named(left) == ("share of the filters' lengths", "loss, nats", "")
    assert legend(left) == ["clean", "adversarial"]
    [levels] = [drawn for drawn in right.collections if hasattr(drawn, "levels")]
    assert len(levels.levels) in (12, 13), "about twelve of them, at round numbers"
    assert levels.get_cmap().name == "viridis"
    assert {round(text.get_fontsize(), 2) for text in levels.labelTexts} == {SIZES["x-small"]}
    assert named(right) == ("first direction", "second", "adversarial loss, nats")


def test_rates_of_change_stand_over_their_steps_and_nothing_else_does() -> None:
    left, right = axes()
    arrays = {
        "sizes": np.array([0.1, 1.0]),
        "clean_rate": np.array([2.0, 1.0]),
        "adversarial_fixed_rate": np.array([4.0, 3.0]),
    }
    figures.smoothness((left, right), arrays | {"length": np.array([1.0, 1.0])})

    assert [(label, data) for label, _, data in lines(left)] == [
        ("adversarial fixed", [[0.1, 4], [1, 3]]),
        ("clean", [[0.1, 2], [1, 1]]),
    ]
    assert {line.get_marker() for line in left.get_lines()} == {"."}
    assert (named(left), scales(left)) == (
        ("h, share of the weights' length", "nats / weight unit²", ""),
        ("log", "log"),
    )
    assert legend(left) == ["adversarial fixed", "clean"]


def test_matplotlib_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: object() if name == "matplotlib" else None)
    figures.ready()
