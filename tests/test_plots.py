"""docs/plots.py draws what the records say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advbench.api import records
from advbench.record import Accuracy, Cost, Scores

from hand_made import lay  # isort: skip

mpl = pytest.importorskip("matplotlib", reason="the plots need matplotlib: advbench[plots]")


@pytest.fixture(scope="module")
def plots(repo: Path) -> dict[str, Any]:
    return runpy.run_path(str(repo / "docs" / "plots.py"))


@pytest.fixture
def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


@pytest.fixture(scope="module")
def frame(repo: Path) -> Any:
    whole: Any = records(repo / "leaderboard")
    return whole[whole["task"] == "digits-linf"].dropna(axis="columns", how="all")


@pytest.mark.slow
def test_three_files_a_task_are_written(repo: Path, tmp_path: Path, plots: dict[str, Any]) -> None:
    plots["main"](str(repo / "leaderboard"), str(tmp_path / "out"), "png")

    tasks = set(records(repo / "leaderboard")["task"])
    expected = {f"{task}-{name}.png" for task in tasks for name in ("curves", "cost", "seeds")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (tmp_path / "out").iterdir())


def test_a_curve_begins_clean_and_is_the_mean_over_seeds(plots: dict[str, Any], frame: Any, axes: Any) -> None:
    plots["curves"](axes, frame)

    drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    assert drawn.keys() == set(frame["label"])
    rows = frame[frame["label"] == "pgd-at"]
    assert drawn["pgd-at"][0].tolist() == pytest.approx([0, 100 * rows["clean"].mean()])
    assert drawn["pgd-at"][-1].tolist() == pytest.approx([0.2, 100 * rows["curve/1/5"].mean()])
    assert all((points[1:, 0] > points[:-1, 0]).all() for points in drawn.values())


def test_the_front_leaves_out_what_something_cheaper_beats(plots: dict[str, Any]) -> None:
    cost = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.0, "e": 4.0, "f": 1.0})
    accuracy = pd.Series({"a": 0.2, "b": 0.5, "c": 0.6, "d": 0.7, "e": 0.7, "f": 0.1})

    assert plots["front"](cost, accuracy) == ["a", "b", "d"]


def test_every_seed_is_a_dot_with_its_own_interval(plots: dict[str, Any], frame: Any, axes: Any) -> None:
    plots["seeds"](axes, frame)

    dots = [x for container in axes.containers for x in container.lines[0].get_xdata()]
    assert sorted(dots) == pytest.approx(sorted(100 * frame["robust"]))
    bars = [segment for container in axes.containers for segment in container.lines[2][0].get_segments()]
    for end, column in ((0, "robust_low"), (1, "robust_high")):
        assert sorted(bar[end, 0] for bar in bars) == pytest.approx(sorted(100 * frame[column]))


STOPPED = Scores(clean=Accuracy(accuracy=0.9, low=0.8, high=1, n=4), curve={"1/10": 0.5})


@pytest.mark.parametrize("fields", [{"cost": Cost(), "defense": "external"}, {"scores": STOPPED}, {}])
def test_what_a_task_did_not_measure_leaves_its_plots_empty(
    tmp_path: Path, plots: dict[str, Any], fields: dict[str, Any]
) -> None:
    for seed in (0, 1):
        lay(tmp_path, "net", seed, np.arange(4) < 2, **fields)

    plots["main"](str(tmp_path), str(tmp_path / "out"), "png")

    assert len(list((tmp_path / "out").iterdir())) == 3


def test_what_nobody_counted_the_cost_of_is_left_out(plots: dict[str, Any], frame: Any, axes: Any) -> None:
    frame = frame.copy()
    frame.loc[frame["label"] == "dat", "train_passes"] = None
    plots["cost"](axes, frame)

    assert {text.get_text() for text in axes.texts} == set(frame["label"]) - {"dat"}
