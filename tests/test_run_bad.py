"""Jobs whose data, radius or trained model are not as they should be: refused in one line, or judged all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_defense import LOSS, defense_file

from advbench.plan import Item
from advbench.record import Record
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.spec import BadInput

LADDER = ('attacks = ["fgsm"]', 'attacks = ["fgsm", { name = "pgd", steps = 3 }, "autoattack-fast"]')


def planned(path: Path) -> Item:
    [item] = resolve(path, path.parent / "data", {}).items
    return item


def tried(item: Item, folder: Path) -> Record:
    return attempt(item, folder / "r", folder / "data", torch.device("cpu"), lambda *_: None)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"x_test": np.full((32, 4, 4), 1.5, np.float32)},
            "values from 1.5 to 1.5; floats should lie in [0, 1]",
        ),
        ({"x_test": np.full((32, 4, 4), np.nan, np.float32)}, "x_test: holds NaN or infinite pixels"),
        ({"y_test": np.full(32, 4)}, "y_test: a label of 4, but there are 4 classes: 0 to 3"),
        ({"y_test": np.full(32, -1)}, "y_test: a label of -1; labels should be 0, 1, 2, ..."),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.zeros(0, np.int64)}, "x_test: shape (0, 1, 4, 4)"),
    ],
)
def test_data_that_no_model_could_be_judged_on_are_refused_before_anything_is_trained(
    tmp_path: Path, tiny, change: dict[str, Any], line: str
):
    path, file = tiny(tmp_path), tmp_path / "data" / "tiny.npz"
    with np.load(file) as archive:
        arrays = dict(archive)
    if "x_test" in change and change["x_test"].dtype == np.float32:
        arrays["x_train"] = arrays["x_train"].astype(np.float32) / 255
    np.savez(file, **arrays | change)

    with pytest.raises(BadInput) as error:
        planned(path)
    [found] = error.value.lines
    assert line in found


WRONG = "y = (y + 1) % 4"
NOTHING = "[p.data.zero_() for p in state.model.parameters()]; return 0 * state.model(x).sum()"


@pytest.mark.parametrize(
    ("changes", "line", "clean", "robust"),
    [
        ([("epochs = 1", "epochs = 8"), ("[evaluation]", '[evaluation]\ncheckpoint = "last"')], WRONG, 0, 0),
        # Class 0 is a quarter of the test split, and what says it everywhere cannot be moved.
        ([], NOTHING, 0.25, 0.25),
        ([("epochs = 1", "epochs = 8"), ('eps = "1/10"', 'eps = "1/100000000"')], "pass", 1, 1),
    ],
    ids=["all wrong", "constant", "a radius of nothing"],
)
def test_a_job_ends_in_a_record_whatever_its_model_learned(
    tmp_path: Path, tiny, changes: list[tuple[str, str]], line: str, clean: float, robust: float
):
    (tmp_path / "mine.py").write_text(defense_file(line, f"return {LOSS}"), encoding="utf-8")
    record = tried(planned(tiny(tmp_path, "t", LADDER, ('name = "standard"', 'file = "mine.py"'), *changes)), tmp_path)

    assert (record.status, record.error) == ("ok", None)
    assert record.scores is not None
    assert record.scores.robust is not None
    assert (record.scores.clean.accuracy, record.scores.robust.accuracy) == (clean, robust)
    if line == NOTHING:
        assert {flag.name for flag in record.flags} == {
            *("dead", "zero-gradient", "unbounded-attack-fails", "larger-eps-does-not-hurt")
        }


def test_one_test_example_is_enough_for_a_job(tmp_path: Path, tiny):
    record = tried(planned(tiny(tmp_path, "t", LADDER, ('path = "tiny.npz"', 'path = "tiny.npz"\ntest = 1'))), tmp_path)
    assert record.status == "ok"
    assert record.scores is not None
    assert record.scores.clean.n == 1
