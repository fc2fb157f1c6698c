"""The README's own defense and task lines work as printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from advbench.interop.about import About, of
from advbench.options import Format
from advbench.resolve import resolve
from advbench.run import attempt


def block(repo: Path, marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", (repo / "README.md").read_text("utf-8"), re.DOTALL)
    assert found, marker
    return found[1]


def test_the_defense_of_the_readme_trains_beside_the_starter_suite(repo: Path, tmp_path: Path):
    starter = (repo / "tasks" / "digits-linf.toml").read_text("utf-8")
    small = starter.replace("epochs = 30", "epochs = 2").replace('name = "digits"', 'name = "digits"\ntest = 40')
    small = re.sub(r"attacks = .*", 'attacks = ["fgsm"]', small)
    (tmp_path / "my_defense.py").write_text(block(repo, "my-defense"), "utf-8")
    task = tmp_path / "mine.toml"
    task.write_text(f"{small}\n{block(repo, 'my-task')}", "utf-8")

    items = resolve(task, tmp_path, {}).items
    mine = next(item for item in items if item.path == "mine/half-and-half-s0")
    record = attempt(mine, tmp_path / "results", tmp_path, torch.device("cpu"), lambda *_: None)

    five = {"pgd-at", "fast-at", "dynamic-at", "fast-bat", "dat"}
    assert {item.label for item in items} == {"standard", "half-and-half"} | five
    assert record.error is None
    assert record.job["defense"]["steps"] == 7
    # 1,294 training digits, two epochs; seven steps, then one pass for each of the two losses.
    assert (record.cost.train_forward, record.cost.train_backward) == (1294 * 2 * 9, 1294 * 2 * 9)


def test_what_the_readme_says_of_a_model_is_read(repo: Path, tmp_path: Path):
    (tmp_path / "about.toml").write_text(block(repo, "about"), "utf-8")
    told = About.read(tmp_path / "about.toml")

    assert of(told, "pgd-at").id == "Lovelace2026Ovens"
    assert {of(told, label).authors for label in ("pgd-at", "dat")} == {"Ada Lovelace, Grace Hopper"}
    assert of(told, "dat").link is None


def test_the_readme_names_every_format(repo: Path):
    section = re.search(r"^## Formats\n(.*?)^## ", (repo / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)

    assert section
    assert re.findall(r"^\* `(\w+)`", section[1], re.MULTILINE) == [kind.value for kind in Format]
