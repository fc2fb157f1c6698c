"""What a chart has of a record's arrays: how they are thinned, and what does not fit together is left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as tensors

from advbench.board.arrays import of
from advbench.board.beside import Lost
from advbench.record import MEASURES, save


@pytest.fixture
def found(tmp_path: Path, make: Any) -> Any:
    """A function: arrays by their names in the file -> what the charts have."""

    def read(arrays: dict[str, Any]) -> Any:
        beside = {MEASURES: tensors({name: np.asarray(value) for name, value in arrays.items()})}
        return of(tmp_path, save(make(), tmp_path, beside))

    return read


def test_curves_are_thinned_and_keep_their_ends(found: Any):
    x = np.arange(241)
    density = found({"param-hessian/fixed_density_at": x, "param-hessian/fixed_density": 2 * x})["density"]
    at, height = density["fixed"]

    assert list(density) == ["fixed"]
    assert (len(at), at[0], at[-1]) == (120, 0, 240)
    assert {right - left for left, right in pairwise(at)} == {2, 3}
    assert height == [2 * value for value in at]


def test_short_curves_and_surfaces_come_whole_at_four_digits(found: Any):
    at, third = np.array([-1, 0, 1], np.int8), np.full((3, 3), 1 / 3, np.float32)
    arrays = {f"param-hessian/{loss}_density{end}": at for loss in ("clean", "moving") for end in ("", "_at")}
    arrays |= {"sharpness/curve_at": at, "sharpness/adversarial_curve": third[0], "sharpness/clean_curve": at}
    arrays |= {"sharpness/surface_at": at, "sharpness/adversarial_surface": third}
    rounded = [[0.3333] * 3] * 3

    assert found(arrays) == {
        "density": {"clean": [[-1, 0, 1]] * 2, "moving": [[-1, 0, 1]] * 2},
        "line": {"clean": [[-1, 0, 1]] * 2, "adversarial": [[-1, 0, 1], rounded[0]]},
        "surface": {"adversarial": {"at": [-1, 0, 1], "loss": rounded}},
    }


def test_of_each_example_there_are_quantiles_of_what_is_finite(found: Any):
    values = np.append(np.random.default_rng(0).permutation(np.arange(41.0)), [np.nan, np.inf])
    eigenvalues = np.stack([np.arange(41.0), np.zeros(41)], 1)

    assert found(
        {
            "margins/clean_distance": values,
            "margins/adversarial_distance": np.full(3, np.nan),
            "input-hessian/clean_values": eigenvalues,
            "input-hessian/adversarial_values": np.array([7, 7], np.uint8),
        }
    )["each"] == {
        "margins/clean_distance": list(range(41)),
        "input-hessian/clean_values": list(range(41)),
        "input-hessian/adversarial_values": [7] * 41,
    }


def test_of_a_walk_there_are_the_quartiles_of_each_step(found: Any):
    walks = np.arange(5.0)[:, None] + 10 * np.arange(120)

    assert found({"fosc/fosc_relative": walks})["fosc"] == [[q + 10 * step for step in range(120)] for q in (1, 2, 3)]


@pytest.mark.parametrize(
    "arrays",
    [
        {"sharpness/curve_at": [0.0, 1]},
        {"sharpness/clean_curve": [0.0, 1]},
        {"sharpness/curve_at": [[0.0, 1]], "sharpness/clean_curve": [[0.0, 1]]},
        {"sharpness/curve_at": [0.0, 1, 2], "sharpness/clean_curve": [0.0, 1]},
        {"sharpness/surface_at": [0.0, 1]},
        {"sharpness/clean_surface": np.zeros((2, 2))},
        {"sharpness/surface_at": np.zeros((2, 2)), "sharpness/clean_surface": np.zeros((2, 2))},
        {"sharpness/surface_at": np.arange(2.0), "sharpness/clean_surface": np.zeros((2, 3))},
        {"sharpness/surface_at": np.arange(42.0), "sharpness/clean_surface": np.zeros((42, 42))},
        {"margins/clean_distance": np.zeros((2, 2, 2))},
        {"fosc/fosc_relative": np.zeros(3)},
        {"fosc/fosc_relative": np.zeros((2, 121))},
        {"fosc/fosc_relative": np.array([[0.0, 1], [0, np.inf]])},
        {"some/thing": np.zeros(3)},
        {},
    ],
)
def test_what_does_not_fit_together_is_on_no_chart(found: Any, arrays: dict[str, Any]):
    assert found(arrays) is None


def test_the_largest_surface_is_shown(found: Any):
    surface = {"sharpness/surface_at": np.arange(41.0), "sharpness/clean_surface": np.zeros((41, 41))}

    assert len(found(surface)["surface"]["clean"]["loss"]) == 41


def test_without_numbers_it_is_said_and_without_a_file_not(found: Any, make: Any, tmp_path: Path):
    with pytest.raises(Lost, match=r"^measures.safetensors holds no numbers$"):
        found({"margins/clean_distance": np.array([True]), "fosc/fosc_relative": np.zeros((0, 3))})
    assert of(tmp_path, save(make(), tmp_path, {})) is None
