"""Some classes of a data set as a data set of its own: two digits are a problem for a logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from advbench.data.base import DataSet, Split
from advbench.spec import BadInput


def only(whole: DataSet, classes: Sequence[int]) -> DataSet:
    """The examples of `classes`, in the order of their splits; `classes[i]` is called i. Raises BadInput.

    An example's place is then its place among these.
    """
    if twice := sorted({c for c in classes if classes.count(c) > 1}):
        raise BadInput(f"data.classes: {twice[0]} stands there twice; name each class once")
    if strange := [c for c in classes if not 0 <= c < whole.classes]:
        raise BadInput(f"data.classes: there is no class {strange[0]}; there are 0 to {whole.classes - 1}")
    new = np.full(whole.classes, -1, np.int64)
    new[list(classes)] = np.arange(len(classes))
    train, test = (_part(split, new) for split in (whole.train, whole.test))
    if absent := sorted(set(range(len(classes))) - set(test.labels.tolist())):
        raise BadInput(f"data.classes: the test split has no example of class {classes[absent[0]]}")
    return replace(whole, train=train, test=test, classes=len(classes))


def _part(split: Split, new: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Split:
    if isinstance(split.images, np.memmap):
        raise BadInput(
            "data.classes: images of folders are read through a memory map, of which all classes are used; "
            "leave it out, or put the folders of those classes in a place of their own"
        )
    kept = new[split.labels] >= 0
    return Split(split.images[kept], new[split.labels[kept]])
