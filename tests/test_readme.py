"""What the pages print works as printed: the defense, the task, command lines; and what they count is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from printed import block, commands, inline, named, pages, parse

from advbench.interop.about import About, of
from advbench.options import Format
from advbench.resolve import resolve
from advbench.run import attempt


@pytest.mark.slow
def test_the_defense_of_the_readme_trains_beside_the_starter_suite(repo: Path, tmp_path: Path):
    starter = (repo / "tasks" / "digits-linf.toml").read_text("utf-8")
    small = starter.replace("epochs = 30", "epochs = 2").replace('name = "digits"', 'name = "digits"\ntest = 40')
    small = re.sub(r"attacks = .*", 'attacks = ["fgsm"]', small)
    readme = repo / "README.md"
    (tmp_path / "my_defense.py").write_text(block(readme, "my-defense"), "utf-8")
    task = tmp_path / "mine.toml"
    task.write_text(f"{small}\n{block(readme, 'my-task')}", "utf-8")

    items = resolve(task, tmp_path, {}).items
    mine = next(item for item in items if item.path == "mine/half-and-half-s0")
    record = attempt(mine, tmp_path / "results", tmp_path, torch.device("cpu"), lambda *_: None)

    five = {"pgd-at", "fast-at", "dynamic-at", "fast-bat", "dat"}
    assert {item.label for item in items} == {"standard", "half-and-half"} | five
    assert record.error is None
    assert record.job["defense"]["steps"] == 7
    # 1,294 training digits, two epochs; seven steps, then one pass for each of the two losses.
    assert (record.cost.train_forward, record.cost.train_backward) == (1294 * 2 * 9, 1294 * 2 * 9)


def test_what_a_page_says_of_a_model_is_read(repo: Path, tmp_path: Path):
    (tmp_path / "about.toml").write_text(block(repo / "docs" / "formats.md", "about"), "utf-8")
    told = About.read(tmp_path / "about.toml")

    assert of(told, "pgd-at").id == "Lovelace2026Ovens"
    assert {of(told, label).authors for label in ("pgd-at", "dat")} == {"Ada Lovelace, Grace Hopper"}
    assert of(told, "dat").link is None


def test_the_page_of_formats_names_every_one(repo: Path):
    page = (repo / "docs" / "formats.md").read_text("utf-8")

    assert re.findall(r"^\* `(\w+)`", page, re.MULTILINE) == [kind.value for kind in Format]


def test_the_gate_of_the_readme_is_the_one_that_its_page_walks_through(repo: Path):
    gate = block(repo / "README.md", "gate")

    assert f"```\n{gate}```" in (repo / "docs" / "gate.md").read_text("utf-8")


def test_the_readme_s_figures_are_lines_of_the_page_that_has_all(repo: Path):
    rows = [re.findall(r"^\| .*", text, re.MULTILINE) for text in _after_figures(repo)]

    assert len(rows[0]) > 5
    assert [row for row in rows[0] if row not in rows[1]] == []


def _after_figures(repo: Path) -> tuple[str, str]:
    readme = (repo / "README.md").read_text("utf-8").partition("<!-- figures -->\n")[2].partition("\n\n")[0]
    return readme, (repo / "docs" / "performance.md").read_text("utf-8")


def test_the_readme_counts_the_defenses_there_are(repo: Path):
    [trains] = re.findall(r"^\| trains \|.* \| (\d+) defenses", (repo / "README.md").read_text("utf-8"), re.MULTILINE)

    assert int(trains) == len(list((repo / "baselines").glob("*.py")))


def test_every_command_line_of_a_page_is_one_that_the_command_line_takes(repo: Path):
    lines = [(page.name, words) for page in pages(repo) for words in commands(page.read_text("utf-8"))]

    assert {words[0] for _, words in lines} >= {"run", "new", "check", "evaluate", "audit"}
    wrong: list[str] = []
    for page, words in lines:
        try:
            parse(words)
        except Exception as error:  # whatever a user would be told
            wrong.append(f"{page}: advbench {' '.join(words)}: {error!r}")
    assert wrong == []


def test_every_command_in_a_sentence_has_the_options_that_it_is_given(repo: Path):
    lines = [(page.name, words) for page in pages(repo) for words in inline(page.read_text("utf-8"))]

    assert len(lines) > 80
    assert [(page, words, bad) for page, words in lines if (bad := named(words))] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("advbench run tasks/ --job 2", "No such option: --job"),
        ("cd x && .venv/bin/advbench fun tasks/", "fun"),
        ("advbench check new --against old  # no margin", "Missing parameter: margin"),
        ("advbench check new --against old --margin much", "valid number"),
        ("torchrun --nnodes 2 -m advbench run \\\n    --devise cpu", "No such option: --devise"),
        ("advbench list defences", "'defences' is not one of"),
        ("advbench results tidy", "tidy"),
    ],
)
def test_a_command_line_that_would_be_refused_is_seen(line, said):
    [words] = commands(f"```\n{line}\n```\n")

    with pytest.raises(Exception, match=said):
        parse(words)


def test_an_option_that_a_command_lacks_is_seen_in_a_sentence():
    [words] = inline("It is `advbench\ncollect MODEL --task FILE [--figure png]`, and `advbench.api` is none.")

    assert named(words) == {"--figure"}
