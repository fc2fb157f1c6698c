"""What users install: a whole wheel, and bounds that the pinned set meets."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import built_wheel
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WHERE = {"suite/advbench": "advbench", "baselines": "advbench/baselines", "tasks": "advbench/tasks"}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(repo: Path, tmp_path: Path):
    built = built_wheel.build(repo, tmp_path)

    names = {name for name in zipfile.ZipFile(built).namelist() if ".dist-info/" not in name}

    expected = {
        f"{target}/{path.relative_to(repo / source).as_posix()}"
        for source, target in WHERE.items()
        for path in (repo / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {"advbench/docs/flags.md"}
    assert sorted(expected - names) == []
    assert sorted(names - expected) == []
    assert {"advbench/py.typed", "advbench/cli.py", "advbench/baselines/pgd_at.py"} <= names
    assert any(name.startswith("advbench/tasks/") and name.endswith(".toml") for name in names)


def pins(repo: Path) -> dict[str, str]:
    lines = (repo / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_constraints_are_sorted_pins_and_nothing_else(repo: Path):
    lines = (repo / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]

    assert [line for line in pinned if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    assert pinned == sorted(set(pinned), key=lambda line: line.split("==")[0])


def test_the_pinned_set_meets_every_declared_bound(repo: Path):
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"].values()
    declared = [*project["project"]["dependencies"], *(d for group in groups for d in group if isinstance(d, str))]
    pinned = pins(repo)

    wrong = [
        text
        for text in declared
        if not Requirement(text).specifier.contains(pinned.get(canonicalize_name(Requirement(text).name), "0"))
    ]
    assert wrong == []
