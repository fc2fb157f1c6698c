"""Tables in tables, tables of several parts at once, and the files behind them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from advbench import find
from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector
from advbench.data.base import Missing
from advbench.identity import code
from advbench.models.base import Model
from advbench.spec import BadInput
from advbench.task import Data, Defended
from advbench.wrapper import Wrapper

BASELINES = find.shipped("baselines")
COLLECTOR = """\
from advbench.collectors.base import Collector

class Mine(Collector):
    name = "mine"
    about = "Nothing."
    paper = "none"
    depth: int = 2
"""


def baseline(name: str) -> Path:
    return BASELINES / f"{name}.py"


def lines(table: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(BadInput) as caught:
        find.defended(find.defense(baseline("awp")), table, BASELINES)
    return caught.value.lines


def test_a_library_is_a_family_and_its_members_are_parts() -> None:
    family = find.part(Model, "torchvision")

    assert find.is_family(family)
    assert find.is_family(find.part(Attack, "torchattacks"))
    assert not find.is_family(PGD)
    assert issubclass(find.part(Model, "torchvision:resnet18"), family)
    with pytest.raises(BadInput, match="no attack 'pgd:x'"):
        find.part(Attack, "pgd:x")


def test_a_base_is_a_table_in_the_table_of_its_wrapper() -> None:
    made = find.defended(
        find.defense(baseline("awp")), {"gamma": 0.5, "base": {"name": "pgd-at", "steps": 3}}, BASELINES
    )
    assert isinstance(made, Wrapper)
    assert (made.plain()["gamma"], made.base.name, made.base.plain()["steps"]) == (0.5, "pgd-at", 3)
    again = find.defended(type(made), {"base": made.base}, BASELINES)
    assert isinstance(again, Wrapper)
    assert again.base is made.base
    usual = find.defended(type(made), {}, BASELINES)
    assert isinstance(usual, Wrapper)
    assert (usual.base.name, usual.base.plain()) == ("pgd-at", find.defense(baseline("pgd_at"))().plain())

    digests = {name: code(baseline(name).read_bytes()) for name in ("awp", "pgd_at")}
    table = find.defense_table(made, {"name": "awp", "base": {"name": "pgd-at", "file": "x/pgd_at.py"}})
    assert table == {
        **made.plain(),
        "name": "awp",
        "file": None,
        "sha256": digests["awp"],
        "gamma": 0.5,
        "base": {"name": "pgd-at", "file": "x/pgd_at.py", "sha256": digests["pgd_at"], **made.base.plain()},
    }


def test_what_is_wrong_with_a_base_stands_behind_what_is_wrong_outside() -> None:
    field = "no field 'setps'; did you mean 'steps'?"

    assert lines({"base": {"name": "pgd-at", "setps": 3}}) == (f".base.setps: {field}",) or lines(
        {"base": {"name": "pgd-at", "setps": 3}}
    ) == (f".base: {field}",)
    assert lines({"base": 3}) == ('.base: should be a table, base = { name = "pgd-at" }, not 3',)
    assert lines({"base": {}})[0].startswith(".base")
    for key, value in (("label", "x"), ("training", {}), ("collect", {})):
        said = f".base: {key} stands beside the name of the outer defense"
        assert lines({"base": {"name": "pgd-at", key: value}}) == (said,)
    both = lines({"gamma": "x", "base": {"name": "pdg-at"}})
    assert len(both) == 2
    assert "gamma" in both[0]
    assert both[1].startswith(".base: no defense 'pdg-at'; did you mean 'pgd-at'?")


def test_the_files_of_a_defense_are_its_own_and_its_base_s(tmp_path: Path) -> None:
    def files(**table: Any) -> list[Path]:
        return find.defense_files(Defended.model_validate(table), tmp_path)

    assert files(name="trades") == [baseline("trades")]
    assert files(name="awp") == [baseline("awp"), baseline("pgd_at")]
    assert files(name="awp", base={"name": "trades"}) == [baseline("awp"), baseline("trades")]
    with pytest.raises(BadInput, match=r"no\.py: cannot be read: No such file or directory"):
        find.digest(tmp_path / "no.py")


def test_a_planned_base_has_to_be_the_one_that_was_planned(make_job: Any) -> None:
    made = find.defended(find.defense(baseline("awp")), {"base": {"name": "pgd-at", "steps": 3}}, BASELINES)
    table = find.defense_table(made, {"name": "awp"})

    assert find.job_defense(make_job(defense=table), BASELINES) == made
    table["base"]["sha256"] = "0"
    with pytest.raises(BadInput, match=r"pgd_at\.py: changed since the plan was made; run again"):
        find.job_defense(make_job(defense=table), BASELINES)


def test_collectors_come_in_order_or_all_that_is_wrong_with_them_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COLLECTOR, "utf-8")
    tables: dict[str, Any] = {"mine": {"file": "mine.py", "depth": 5}, "margins": {"examples": 7}}
    first, second = find.collectors(tables, tmp_path)

    assert (first.name, first.plain()["depth"], second.name, second.examples) == ("mine", 5, "margins", 7)
    sha256 = code(COLLECTOR.encode())
    assert find.table(first, tables["mine"]) == {"file": "mine.py", "sha256": sha256, **first.plain()}
    assert find.table(first) == {"file": None, "sha256": sha256, **first.plain()}
    assert find.table(second) == second.plain()
    assert find.collectors({}) == []
    with pytest.raises(BadInput) as caught:
        find.collectors(tables | {"margens": {}, "fosc": {"setps": 1}, "other": {"file": "mine.py"}}, tmp_path)
    assert caught.value.lines == (
        "collect: no collector 'margens'; did you mean 'margins'?",
        "collect.fosc: no field 'setps'; did you mean 'steps'?",
        f"collect: {tmp_path / 'mine.py'}: Mine is called 'mine', and here 'other'; use one name",
    )
    with pytest.raises(BadInput, match=r"no\.py: cannot be read"):
        find.collectors({"margins": {"file": "no.py"}}, tmp_path)
    assert find.named(Collector, {"name": "margins", "examples": 7}) == second


def test_the_own_files_of_a_task_are_those_of_its_attacks_and_of_all_collectors() -> None:
    def attack(**fields: Any) -> Any:
        return SimpleNamespace(fields=fields)

    defenses = [SimpleNamespace(collect={"c": {"file": "c.py"}, "d": {}}), SimpleNamespace(collect={})]
    task: Any = SimpleNamespace(
        collect={"b": {"file": "b.py"}},
        defense=defenses,
        evaluation=SimpleNamespace(attacks=[attack(file="a.py", steps=1), attack(steps=2)]),
    )

    assert find.own_files(task, Path("x")) == [Path("x/a.py"), Path("x/b.py"), Path("x/c.py")]
    task.collect = None
    assert find.own_files(task, Path("x")) == [Path("x/a.py"), Path("x/c.py")]


def test_data_are_of_the_classes_asked_for_with_the_pool_beside_them(tmp_path: Path) -> None:
    digits = Data(name="digits")
    own = find.data_files(digits, tmp_path)
    assert own == find.source(digits).files(tmp_path)
    assert find.read_data(digits, tmp_path).classes == 10
    pool = digits.model_validate({"name": "digits", "classes": (3, 5), "unlabelled": {"count": 2, "path": "pool.npz"}})
    with pytest.raises(Missing, match="image"):
        find.data_files(pool, tmp_path)
    np.savez(tmp_path / "pool.npz", image=np.full((4, 8, 8), 16, np.uint8))

    assert find.data_files(pool, tmp_path) == [*own, tmp_path / "pool.npz"]
    found = find.read_data(pool, tmp_path)
    assert (found.classes, len(found.pool)) == (2, 4)  # type: ignore[arg-type]
    rest = Data.model_validate({"name": "digits", "unlabelled": {"count": 2}})
    assert find.data_files(rest, tmp_path) == own
    assert find.read_data(rest, tmp_path).pool is None
