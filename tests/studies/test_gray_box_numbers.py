"""What a run of gray-box makes of its parts, made up here: its numbers can be written down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.studies import gray_box
from advbench.studies.gray_box import GrayBox

from small_studies import about, few, lines, numbers  # isort: skip


def test_its_numbers_are_differences_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"white": 0.9, "independent": 0.6, "bound": 0.3, "x": 0.95}
    left |= {"distillation, 4": 0.7, "SST, 4": 0.65, "distillation, 8": 0.5, "SST, 8": 0.25}
    fooled, asked = {"SST, 8": [1.0, 1, 1, 0], "white": [1.0, 0, 0, 0], "x": [0.0] * 4}, list[Any]()

    class Made(GrayBox):
        def target(self, setting: Any) -> Any:
            return gray_box.Rounded(nn.Identity(), self.levels)

        def white_box(self, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return "white"

        def _network(self, name: str, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return name

        def _substitute(self, target: Any, x: Tensor, noise: float, setting: Any) -> Any:
            asked.append((len(x), noise))
            return f"{'SST' if noise else 'distillation'}, {len(x)}"

        def _candidates(self, on: Any, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            if isinstance(on, gray_box.Rounded):
                assert (on.through, on.levels) == (True, 5)
                return "bound"
            return on

        def guarded(self, *others: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return "guarded"

    def judge(model: Any, at: Any, y: Tensor) -> Any:
        at = at if isinstance(at, str) else "x"
        return SimpleNamespace(fooled=torch.tensor(fooled[at]) > 0, refused=torch.tensor([1.0, 0, 0, 0]) > 0)

    monkeypatch.setattr(gray_box, "accuracy", lambda model, at, y: left[at if isinstance(at, str) else "x"])
    monkeypatch.setattr(gray_box, "judge", judge)

    found = Made(queries=(4, 8), levels=5).run(few(Made, train=40, test=20))

    assert numbers(found) == about(
        {
            "masked": 0.65,
            "noise_gain": 0.25,
            "few_gain": 0.05,
            "independent_gain": 0.35,
            "past_detector": 0.5,
            "clean": 0.95,
            "sst": 0.25,
            "fooled_past_detector": 0.75,
            "refused_clean": 0.25,
        }
    )
    assert asked == [(4, 0), (4, 1), (8, 0), (8, 1)]
    flat = {"white-box PGD": 0.9, "independent": 0.6, "BPDA": 0.3}
    expected = {"x": [4, 8], "SST": [0.65, 0.25], "distillation": [0.7, 0.5]} | {n: [v, v] for n, v in flat.items()}
    assert {name: about(values) for name, values in lines(found).items()} == expected
    assert found.notes == ("all attacked on 20 test images; a substitute sees no label and no gradient",)
