"""Some classes of a data set, as a data set of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advbench import find
from advbench.data.base import DataSet, Split
from advbench.data.classes import only
from advbench.spec import BadInput
from advbench.task import Data


def split(*labels: int) -> Split:
    """An example a label, whose only pixel is its place in the split."""
    return Split(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(labels, np.int64))


WHOLE = DataSet(split(2, 0, 1, 2, 3, 0), split(3, 2, 1, 0, 2), classes=4, peak=7)


def test_the_named_classes_stay_in_order_of_the_split_under_their_new_names() -> None:
    part = only(WHOLE, [2, 0])

    assert part.train.images.flatten().tolist() == [0, 1, 3, 5]
    assert part.train.labels.tolist() == [0, 1, 0, 1]
    assert part.test.images.flatten().tolist() == [1, 3, 4]
    assert part.test.labels.tolist() == [0, 1, 0]
    assert (part.classes, part.peak) == (2, 7)
    # Another choice, or the same in another order, is another data set.
    assert len({part.sha256, only(WHOLE, [0, 2]).sha256, WHOLE.sha256}) == 3


def test_a_task_reads_what_it_names_and_asks_for_at_least_two(tmp_path: Path) -> None:
    read = find.read_data(Data(name="digits", classes=(0, 1)), tmp_path)

    assert read.classes == 2
    assert len(read.train.labels) + len(read.test.labels) == 178 + 182
    with pytest.raises(ValueError, match="at least 2"):
        Data(name="digits", classes=(3,))


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ([1, 2, 1], "1 stands there twice"),
        ([0, 4], "no class 4; there are 0 to 3"),
        ([-1, 1], "no class -1"),
    ],
)
def test_what_is_no_choice_is_refused_in_a_line(classes: list[int], complaint: str) -> None:
    with pytest.raises(BadInput, match=rf"^data\.classes: .*{complaint}"):
        only(WHOLE, classes)


def test_a_class_that_nobody_is_tested_on_is_refused() -> None:
    with pytest.raises(BadInput, match="the test split has no example of class 3"):
        only(DataSet(WHOLE.train, split(0, 1, 2), 4), [0, 3])


def test_images_in_a_memory_map_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", WHOLE.train.images)
    mapped = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), WHOLE.train.labels)

    with pytest.raises(BadInput, match=r"images of folders are read through a memory map, .*; leave it out"):
        only(DataSet(mapped, WHOLE.test, 4), [0, 1])
