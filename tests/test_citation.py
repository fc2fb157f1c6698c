"""What is cited is this version: CITATION.cff, the changelog and the package agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from advbench import __version__
from advbench.plan import EVALUATION_PROTOCOL, PROTOCOL


@pytest.fixture(scope="module")
def citation(repo: Path) -> dict[str, Any]:
    return yaml.safe_load((repo / "CITATION.cff").read_text("utf-8"))


def test_it_has_what_the_format_asks_for_and_no_other_key(citation: dict[str, Any]):
    required = {"cff-version", "message", "title", "authors"}

    assert required <= citation.keys()
    assert citation.keys() <= required | {"type", "abstract", "version", "license", "keywords"}
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert all(isinstance(citation[key], str) and citation[key] for key in required - {"authors"})
    assert [author.keys() for author in citation["authors"]] == [{"name"}]


def test_it_is_of_this_version_and_of_its_authors(repo: Path, citation: dict[str, Any]):
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]

    assert citation["version"] == __version__
    assert citation["authors"] == project["authors"]
    assert (citation["license"], citation["keywords"]) == (project["license"], project["keywords"])


def test_the_changelog_begins_with_this_version_and_its_protocols(repo: Path):
    text = (repo / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+), .*\n\n(.*\n(?:.+\n)*)", text, re.MULTILINE)

    assert newest
    assert newest[1] == __version__
    assert f"Training protocol {PROTOCOL}, evaluation protocol {EVALUATION_PROTOCOL}." in newest[2]
