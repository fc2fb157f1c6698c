"""A record's job is JSON of any shape: what is not there, or no table, is nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from advbench.interop.job import rungs, table, text


def of(job: dict[str, Any]) -> Any:
    return SimpleNamespace(job=job)


def test_a_table_and_its_texts():
    record = of({"data": {"name": "digits", "size": 8}, "model": "mlp", "threat": None})

    assert table(record, "data") == {"name": "digits", "size": 8}
    assert [table(record, name) for name in ("model", "threat", "absent")] == [{}, {}, {}]
    assert text(record, "data", "name") == "digits"
    assert [text(record, *where) for where in (("data", "size"), ("data", "path"), ("model", "name"))] == [None] * 3


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        ([{"name": "fgsm"}, {"name": "pgd", "label": "pgd-20"}], ["fgsm", "pgd-20"]),
        (["fgsm", {"name": "pgd", "label": None}], ["pgd"]),
        ({"name": "fgsm"}, []),
        (None, []),
    ],
)
def test_the_rungs_of_a_ladder_are_called_as_in_the_task(attacks: Any, expected: list[str]):
    assert rungs(of({"evaluation": {"attacks": attacks}})) == expected
