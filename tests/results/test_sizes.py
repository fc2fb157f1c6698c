"""Bytes as people say them."""

from __future__ import annotations

from pathlib import Path

import pytest

from advbench.results.sizes import said, size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1540, "1.5 kB"),
        (9_940, "9.9 kB"),
        (10_000, "10 kB"),
        (999_000, "999 kB"),
        (1_000_000, "1.0 MB"),
        (10_000_000, "10 MB"),
        (999_400_000, "999 MB"),
        (1_000_000_000, "1.0 GB"),
        (25_250_000_000, "25.2 GB"),
    ],
)
def test_three_digits_are_enough(count: float, words: str):
    assert said(count) == words


def test_a_folder_is_as_large_as_the_files_in_it(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(3))
    (tmp_path / "a" / "b" / "other").write_bytes(bytes(40))
    assert (size(tmp_path / "one"), size(tmp_path / "a"), size(tmp_path)) == (3, 40, 43)
    assert size(tmp_path / "none") == 0
