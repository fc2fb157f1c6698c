"""Verdicts of a record: one of each example, by index, from tables of a size that is read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advbench.board import beside
from advbench.board.beside import Lost, verdicts
from advbench.record import save


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.fixture
def judged(tmp_path: Path, make: Any) -> Any:
    """A function: columns of a table -> the verdicts of its record."""

    def read(**columns: Any) -> tuple[list[int], list[bool]]:
        index, stands = verdicts(tmp_path, save(make(), tmp_path, {"examples.parquet": parquet(**columns)}))
        return index.tolist(), stands.tolist()

    return read


def test_verdicts_come_by_the_index_of_their_examples(judged: Any):
    broken = pa.array(["pgd", None, "clean", None])

    assert judged(index=[1, 2, 5, 9], broken_by=broken) == ([1, 2, 5, 9], [False, True, False, True])
    assert judged(index=[5, 2, 9, 1], broken_by=broken) == ([1, 2, 5, 9], [True, True, False, False])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"index": [1, 1, 2], "broken_by": ["a", "b", "c"]}, "names an example twice, or none"),
        ({"index": [2, 1, 2], "broken_by": ["a", "b", "c"]}, "names an example twice, or none"),
        ({"index": pa.array([], pa.int64()), "broken_by": pa.array([], pa.string())}, "twice, or none"),
        ({"index": [1, 2]}, "not a whole table"),
        ({"broken_by": ["a", "b"]}, "lacks its index or what broke the examples"),
        ({"index": [1, None], "broken_by": ["a", "b"]}, "lacks its index or what broke the examples"),
        ({"index": [0.5, 1], "broken_by": ["a", "b"]}, "lacks its index or what broke the examples"),
    ],
)
def test_verdicts_without_one_example_each_are_lost(judged: Any, columns: dict[str, Any], said: str):
    with pytest.raises(Lost, match=f"^examples.parquet .*{said}"):
        judged(**columns)


def test_a_file_is_read_up_to_its_largest_size(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch):
    record = save(make(), tmp_path, {"examples.parquet": parquet(index=[1, 2], broken_by=["a", "b"])})
    size = (tmp_path / "examples.parquet").stat().st_size

    for name, most in (("LARGEST", size), ("ROWS", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(beside, name, most)
            assert len(verdicts(tmp_path, record)[0]) == 2
            patch.setattr(beside, name, most - 1)
            with pytest.raises(Lost, match=r"has [\d,]+ (bytes|rows)$"):
                verdicts(tmp_path, record)


def test_a_quarter_of_a_gigabyte_is_the_most_that_is_read(tmp_path: Path, make: Any):
    with (tmp_path / "examples.parquet").open("wb") as file:
        file.truncate(2**28 + 1)

    with pytest.raises(Lost, match=r"^examples.parquet has 268,435,457 bytes$"):
        beside.content(tmp_path, make(), "examples.parquet")
