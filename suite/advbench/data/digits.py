"""Optical digits: 1,797 grey images of 8 by 8 pixels in 17 levels, which scikit-learn carries in its package.

It is the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998,
doi 10.24432/C50P49). No split of it is official, so this is ours: 360 test examples, classes in proportion, drawn by
`stratified` with seed 0; the other 1,437 are for training. Both keep the order of the file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from advbench.data.base import Arrays, DataSet, Missing, Source, checked
from advbench.data.subsets import stratified

TEST = 360


class Digits(Source):
    """The digits of scikit-learn's `load_digits`, split 1,437 to 360."""

    name = "digits"
    about = "1,797 grey 8x8 digits from scikit-learn, no download; our own stratified split, 360 for testing"

    def files(self, root: Path) -> list[Path]:  # noqa: ARG002  in a package, not under the data root
        # Found without being imported: importing scikit-learn takes longer than an unchanged plan should.
        spec = find_spec("sklearn")
        if spec is None or spec.origin is None:
            raise Missing("digits needs scikit-learn: pip install scikit-learn")
        return [Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"]

    def load(self, root: Path) -> DataSet:
        source = str(self.files(root)[0])
        from sklearn.datasets import load_digits

        # Any: scikit-learn's inferred type is a union over all that its arguments could ask for.
        read: Any = load_digits()
        images = read.data.astype(np.uint8).reshape(-1, 1, 8, 8)
        labels = read.target.astype(np.int64)
        test = stratified(labels, TEST, np.random.default_rng(0))
        train = np.setdiff1d(np.arange(len(labels)), test)
        return checked(
            Arrays(images[train], labels[train], source, source),
            Arrays(images[test], labels[test], source, source),
            classes=10,
            peak=16,
        )
