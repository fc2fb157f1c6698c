"""A newcomer's walk: the wheel, not the checkout, in an empty folder, by the real command, from help to a flag.

Each step asks for what a person would look for. What the gate's page promises is walked in gate/test_walk.py.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import built_wheel
import chromium
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file
from walked import Walk

from advbench.data.base import Examples

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

SMALLER = (
    ("epochs = 10", "epochs = 8"),
    ("lr = 0.1", 'optimizer = "adam"\nlr = 5e-3'),
    (', "autoattack-fast"]', "]"),
    ('curve = ["1/10", "3/20", "1/5"]', "curve = []"),
)
"""Of the task that `advbench new task` writes: its ten minutes become two. The whole ladder has tests of its own."""
LOSS = "return state.cross_entropy(state.model(x_adv), y)"
TERMS = "clean, adversarial = (state.cross_entropy(state.model(images), y) for images in (x, x_adv))"
LOSSES = {
    "my-defense": LOSS,
    "worse": f"{TERMS}\n        return (9 * clean + adversarial) / 10",
    "better": LOSS,
    "collapse": f"{TERMS}\n        return adversarial if state.progress < 0.5 else clean + 9 / (1 + adversarial)",
    "conceal": "return state.cross_entropy(state.model(x) / 50, y)",
}
"""Nine parts clean is worse. From the middle on `collapse` likes to be fooled: PGD accuracy falls. `conceal` learns
logits so large that softmax is 0 or 1 and has no gradient left (defensive distillation): it looks robust."""
STEPS = {"my-defense": 3, "worse": 3, "better": 5, "collapse": 3, "conceal": 1}
MINE = "results/records/mine"

NETS = """\
from torch import nn


def small(classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, classes))
"""
EVALUATED = ("nets.py:small", "--weights", "small.safetensors", "--task", "mine.toml")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, repo: Path, command_env: dict[str, str]) -> Walk:
    """The wheel is installed; what it depends on is there already."""
    site = tmp_path_factory.mktemp("site")
    made = built_wheel.build(repo, tmp_path_factory.mktemp("dist"))
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(made)]
    subprocess.run(words, check=True)
    path = f"{site / 'bin'}{os.pathsep}{command_env['PATH']}"
    env = command_env | {"PYTHONPATH": str(site), "PATH": path, "COLUMNS": "80"}
    found = Walk(tmp_path_factory.mktemp("home"), env)
    # What runs is the wheel's: the tasks that come with it lie in the site.
    assert {Path(task["path"]).is_relative_to(site) for task in found.reads("list", "tasks")} == {True}
    return found


@pytest.fixture(scope="module")
def mine(walk: Walk) -> Walk:
    """A task with a defense, its worse and its better sister and two that go wrong, interrupted and then run."""
    assert walk("new", "task", "mine")[0] == walk("new", "defense", "my-defense")[0] == 0
    code = (walk.folder / "my_defense.py").read_text("utf-8")
    assert code.count(LOSS) == 1
    task = (walk.folder / "mine.toml").read_text("utf-8").partition("[[defense]]")[0]
    for old, new in SMALLER:
        assert task.count(old) == 1, old
        task = task.replace(old, new)
    for label, loss in LOSSES.items():
        file = f"{label.replace('-', '_')}.py"
        made = code.replace("my-defense", label).replace(LOSS, loss)
        (walk.folder / file).write_text(made, "utf-8")
        task += f'[[defense]]\nfile = "{file}"\nsteps = {STEPS[label]}\n'
    (walk.folder / "mine.toml").write_text(task, "utf-8")
    asked = ["run", "mine.toml", "--only", "mine/[!c]*", "--only", "mine/co*-s0"]

    process = walk.start(*asked)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("done"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate()
    assert process.returncode == 130, out + err
    assert "interrupted; nothing is lost: the same command goes on where it stopped" in out
    done = len(list((walk.folder / MINE).glob("*/record.json")))
    assert 1 <= done < 11

    code_, text = walk(*asked)
    assert code_ == 0, text
    assert f"11 jobs: {11 - done} to run, {done} cached" in text
    assert "board: results/index.html" in text
    return walk


@pytest.fixture(scope="module")
def outside(mine: Walk, digits_test: Examples) -> tuple[Walk, float]:
    """A network of another code base, trained there, and its clean accuracy as that code base would find it."""
    (mine.folder / "nets.py").write_text(NETS, "utf-8")
    from sklearn.datasets import load_digits

    made = load_digits()
    held = {
        tuple(image) for image in (digits_test.pixels(torch.arange(len(digits_test))).flatten(1) * 16).int().tolist()
    }
    rows = [n for n, image in enumerate(made.data.astype(int).tolist()) if tuple(image) not in held]
    x, y = torch.tensor(made.images[rows] / 16, dtype=torch.float32)[:, None], torch.tensor(made.target[rows])
    torch.manual_seed(0)
    model = runpy.run_path(str(mine.folder / "nets.py"))["small"](10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    save_file(model.state_dict(), mine.folder / "small.safetensors")
    with torch.no_grad():
        answers = model(digits_test.pixels(torch.arange(len(digits_test)))).argmax(1)
    return mine, (answers == digits_test.labels).double().mean().item()


@pytest.fixture(scope="module")
def judged(outside: tuple[Walk, float]) -> Walk:
    """With the outside network's record among the task's own."""
    walk, clean = outside
    told = walk.reads("evaluate", *EVALUATED)
    assert told["scores"]["clean"]["accuracy"] == clean > 0.9
    assert told["scores"]["robust"]["accuracy"] < 0.5, "nobody has made it robust"
    return walk


@pytest.fixture
def page(judged: Walk) -> Iterator[Page]:
    """The board in a browser that is offline; a page that complains fails the test."""
    file, told = (judged.folder / "results/index.html").as_uri(), []
    with chromium.running() as browser:
        opened = browser.new_context(offline=True).new_page()
        chromium.listen(opened, file, told)
        opened.goto(f"{file}#/mine")
        opened.wait_for_selector("html[data-ready]", state="attached")
        yield opened
    assert told == []


def test_help_and_lists_are_read_on_80_columns(walk: Walk):
    code, told = walk("--help")
    assert code == 0
    assert {"run", "evaluate", "check", "new"} <= {line.split()[0] for line in told.splitlines() if line.strip()}
    defenses = walk("list", "defenses")[1]
    assert re.search(r"^pgd-at +Linf, L2, L1 +11 forward, 11 backward$", defenses, re.MULTILINE)

    for text in (told, defenses):
        assert max(map(len, text.splitlines())) <= 80
        assert "..." not in text.partition("\n")[2], "no sentence is cut"


def test_without_a_path_the_starter_suite_is_meant_and_its_jobs_are_picked(walk: Walk):
    code, told = walk("run", "--only", "*/standard-s0", "--only", "*/pgd-at-s0", "--dry-run")

    assert code == 0, told
    assert re.search(r"^│ digits-linf │ pgd-at +│ 0 +│ run ", told, re.MULTILINE)
    assert "2 jobs: 2 to run" in told
    assert not list(walk.folder.glob("results")), "a plan writes nothing"


def test_typing_mistakes_are_all_told_at_once_with_what_was_meant(mine: Walk):
    text = (mine.folder / "mine.toml").read_text("utf-8")
    wrong = text.replace('"digits-cnn"', '"digits-cn"').replace("steps = 5", "stpes = 5")
    (mine.folder / "wrong.toml").write_text(wrong, "utf-8")

    code, told = mine("validate", "wrong.toml")
    (mine.folder / "wrong.toml").unlink()

    assert code == 2
    assert told.splitlines() == [
        "advbench: wrong.toml: model: no model 'digits-cn'; did you mean 'digits-cnn'?",
        "advbench: wrong.toml: defense[2] \"better.py\": no field 'stpes'; did you mean 'steps'?",
    ]


@pytest.mark.parametrize(
    ("label", "code", "said"),
    [
        ("worse", 1, r"^FAIL +robust accuracy: -"),
        ("better", 0, r"^PASS, about this defense, 3 seeds against 3$"),
        ("collapse", 1, r"^FAIL +flags: new: .*catastrophic-overfitting \(in epoch"),
        ("conceal", 1, r"^FAIL +flags: new: .*zero-gradient \(the loss has an input gradient of exactly zero"),
    ],
)
def test_the_gate_fails_what_is_worse_or_flagged_and_passes_what_is_better(mine: Walk, label, code, said):
    found, told = mine("check", f"{MINE}/{label}", "--against", f"{MINE}/my-defense", "--margin", "5")

    assert found == code, told
    assert re.search(said, told, re.MULTILINE), told


def test_two_records_are_compared_and_one_is_made_again(mine: Walk):
    code, told = mine("compare", f"{MINE}/worse", f"{MINE}/better")
    assert code == 0
    assert re.search(r"^B is better in robust accuracy: \+.* about these defenses, 3 seeds each$", told, re.MULTILINE)

    code, told = mine("reproduce", f"{MINE}/worse-s0", "--results", "again")
    assert code == 0, told
    assert "EQUAL" in told.splitlines()
    assert (
        mine.record("mine/worse-s0")["scores"]
        == json.loads((mine.folder / "again/records/mine/worse-s0/record.json").read_text("utf-8"))["scores"]
    )


def test_a_record_is_audited_exported_and_verified(judged: Walk):
    code, told = judged("audit", f"{MINE}/better-s0", "results/runs/mine/better-s0", "--seed", "1")
    assert code == 0, told
    assert told.splitlines()[-1] == "CONFIRMED, under the seed 1"

    code, told = judged("export", "parquet")
    assert code == 0, told
    rows = pyarrow.parquet.read_table(judged.folder / "exported/parquet/records.parquet").to_pylist()
    assert {row["label"] for row in rows} == {*LOSSES, "nets-small-small"}
    assert [row["robust"] for row in rows if (row["label"], row["seed"]) == ("better", 0)] == [
        judged.record("mine/better-s0")["scores"]["robust"]["accuracy"]
    ]

    assert re.search(r"^results: \d+ files, .*: all as written$", judged("results", "verify")[1], re.MULTILINE)


def test_the_input_hessian_of_an_outside_network_goes_into_its_record(judged: Walk):
    code, told = judged("collect", *EVALUATED, "--collector", "input-hessian")
    assert code == 0, told
    assert re.search(r"│ clean_top1_median +│ +[\d.]+ │ nats per squared pixel unit │", told), told

    kept = judged.record("mine/nets-small-small-s0")["measures"]["input-hessian"]
    assert all({"value", "unit", "meaning"} <= measure.keys() for measure in kept.values())
    # Of a network that is linear in pieces, cross-entropy is convex in the pixels: no eigenvalue is above the trace.
    assert 0 < kept["clean_top1_mean"]["value"] <= kept["clean_trace_mean"]["value"]


def test_the_board_has_the_rows_a_record_s_page_and_what_its_flag_means(judged: Walk, page: Page):
    rows = {cells[0]: cells for row in page.query_selector_all("table.standings tbody tr") if (cells := _cells(row))}
    assert set(rows) == {*LOSSES, "nets-small-small"}
    assert list(rows).index("better") < list(rows).index("worse")
    means = [judged.record(f"mine/worse-s{seed}")["scores"]["robust"]["accuracy"] for seed in range(3)]
    assert rows["worse"][2].split()[0] == f"{100 * sum(means) / 3:.1f}"
    assert "trained elsewhere: nets.py:small" in rows["nets-small-small"][-1]

    page.get_by_role("button", name="1 of 1 collapsed").first.click()
    told = page.get_by_role("dialog").inner_text()
    [flag] = judged.record("mine/collapse-s0")["flags"]
    for words in (
        flag["name"],
        f"in epoch {flag['evidence']['epoch']} PGD-10 leaves",
        "What it means",
        "What to do next",
    ):
        assert words in told
    page.keyboard.press("Escape")

    page.get_by_role("link", name="collapse", exact=True).first.click()
    page.get_by_role("link", name="seed 0").click()
    page.wait_for_selector("h1:has-text('seed 0')")
    record = page.locator("main").inner_text()
    assert "advbench run mine.toml --only mine/collapse-s0" in record
    assert f"{100 * judged.record('mine/collapse-s0')['scores']['robust']['accuracy']:.1f}" in record


def _cells(row: Any) -> list[str]:
    return [cell.inner_text().strip() for cell in row.query_selector_all("td, th")]
