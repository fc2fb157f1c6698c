"""What the user says of a model: of all, or of one label; in TOML or in JSON, and nothing that was not said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advbench.interop.about import About, of
from advbench.spec import BadInput

TOML = """\
authors = "Ada Lovelace"
license = "mit"

[pgd-at]
id = "Ada2026Oven"
venue = "ICML 2026"
reported = "50.5"
additional_data = false

[dat]
authors = "Grace Hopper"
"""
SAID = {
    "authors": "Ada Lovelace",
    "license": "mit",
    "pgd-at": {"id": "Ada2026Oven", "venue": "ICML 2026", "reported": "50.5", "additional_data": False},
    "dat": {"authors": "Grace Hopper"},
}


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.json", json.dumps(SAID)), ("a", TOML)])
def test_a_table_goes_before_what_is_said_of_all(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, "utf-8")

    told = About.read(tmp_path / name)

    assert told == {
        "": About(authors="Ada Lovelace", license="mit"),
        "pgd-at": About(
            id="Ada2026Oven",
            authors="Ada Lovelace",
            license="mit",
            venue="ICML 2026",
            reported="50.5",
            additional_data=False,
        ),
        "dat": About(authors="Grace Hopper", license="mit"),
    }
    assert of(told, "dat") is told["dat"]
    assert of(told, "trades") is told[""]


def test_what_nobody_said_is_nothing():
    assert set(of({}, "dat").plain().values()) == {None}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "should be a table, with keys such as authors and a table for each label"),
        ("{", "cannot be read: Expecting property name"),
        ("[" * 100_000, "cannot be read: "),
        (b"\xff", "cannot be read: 'utf-8' codec"),
        ('{"link": 3}', "link: should be a valid string, not 3"),
        ('{"id": "../x"}', "id: should match pattern"),
        ('{"id": ".x"}', "id: should match pattern"),
        ('{"id": ""}', "id: should match pattern"),
        ('{"reported": "50 %"}', "reported: should match pattern"),
        ('{"reported": "50."}', "reported: should match pattern"),
        ('{"reported": "-5"}', "reported: should match pattern"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_says_nothing_is_a_line(tmp_path: Path, text: str | bytes, why: str):
    file = tmp_path / "about.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(BadInput) as caught:
        About.read(file)

    [line] = caught.value.lines
    assert line.startswith(f"{file}: {why}")


def test_a_file_that_is_not_there_is_a_line(tmp_path: Path):
    with pytest.raises(BadInput, match=r"absent\.toml: cannot be read: .*No such file"):
        About.read(tmp_path / "absent.toml")
