"""A comparison's numbers and words, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from advbench.compare.comparison import compare
from advbench.compare.read import read
from advbench.compare.show import show
from advbench.record import Flag, Measure, load, save


def half(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


def both(tmp_path: Path, lay_record, seeds: int, n: int = 400, loss: int = 40, **changes):
    """`a` and `b`, which loses `loss` more examples; seeds differ in a few."""
    for label, wrong in (("a", 100), ("b", 100 + loss)):
        for seed in range(seeds):
            more = changes if label == "b" and seed == 0 else {}
            lay_record(tmp_path, label, seed, half(n, wrong + seed), **more)
    [a], [b] = (read(tmp_path / "records/t" / label) for label in "ab")
    return compare(a, b)


def test_two_checkpoints_are_told_apart_by_mcnemar(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 1)

    assert found.main.name == "robust"
    assert found.main.change
    assert found.main.change.value == pytest.approx(-0.1)
    assert found.main.change.p == pytest.approx(binomtest(0, 40).pvalue)
    assert found.about == "these two checkpoints"
    assert found.verdict().startswith("B is worse in robust accuracy: -10.00 points")
    assert (found.gained, found.lost) == ((), tuple(range(100, 140)))
    assert any("fewer than 3 seeds" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("seeds", "about"), [(2, "these checkpoints, 2 of A and 2 of B"), (3, "these defenses, 3 seeds each")]
)
def test_three_seeds_are_the_least_that_speak_of_a_defense(tmp_path: Path, lay_record, seeds, about):
    found = both(tmp_path, lay_record, seeds)

    assert found.about == about
    assert any("fewer than 3 seeds" in remark for remark in found.remarks) == (seeds < 3)
    assert found.claim == ("defenses" if seeds == 3 else "checkpoints")


def test_equal_sides_show_no_difference(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 3, loss=0)

    assert found.verdict().startswith("no difference in robust accuracy is shown: +0.00 points")


def test_a_flagged_seed_is_said(tmp_path: Path, lay_record):
    flag = Flag(name="catastrophic-overfitting", message="fell")

    found = both(tmp_path, lay_record, 3, flags=(flag,))

    assert "B, seed 0: catastrophic-overfitting" in found.remarks
    assert any("a flagged one is not" in remark for remark in found.remarks)


def test_the_table_has_clean_rungs_curve_and_cost(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 1)

    names = ["clean", "after pgd", "robust", "at radius 1/10", "train passes", "train seconds"]
    assert [line.name for line in found.lines] == names
    assert json.loads(json.dumps(found.plain()))["lines"][4]["a"] == 1000


def test_the_numbers_of_collectors_are_compared(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    for label, value in (("a", 3.2), ("b", 1.6)):
        folder = lay_record(tmp_path, label, 0, half(40, 9))
        told = {"top1": Measure(value=value, unit="nats", meaning=""), "none": Measure(value=None, unit="", meaning="")}
        record = load(folder / "record.json").model_copy(update={"measures": {"input-hessian": told}})
        save(record, folder, {name: (folder / name).read_bytes() for name in record.files})
    one, other = tmp_path / "records" / "t" / "a-s0", tmp_path / "records" / "t" / "b-s0"

    show(one, other, as_json=True)
    [found] = json.loads(capsys.readouterr().out)["comparisons"]
    lines = [line for line in found["lines"] if line["kind"] == "measure"]
    assert lines == [{"name": "input-hessian top1", "kind": "measure", "a": 3.2, "b": 1.6, "change": None}]
    show(one, other, as_json=False)
    assert "1 numbers of collectors: --json has them" in capsys.readouterr().out


def test_the_command_on_committed_records(repo: Path, command):
    records = repo / "leaderboard" / "records" / "digits-linf"

    done = command(repo, "compare", records / "pgd-at", records / "fast-at")
    refused = command(repo, "compare", records / "pgd-at", records.parent / "mnist-linf" / "pgd-at")

    assert done.returncode == 0
    assert "B is worse in robust accuracy: -6.50 points" in done.stdout
    assert "about these defenses, 5 seeds each" in done.stdout
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "cannot be compared; they differ in: data_sha256" in refused.stderr


def test_json_has_what_the_table_has(repo: Path, capsys: pytest.CaptureFixture[str]):
    records = repo / "leaderboard" / "records" / "digits-linf"

    show(records / "pgd-at-s0", records / "dat-s1", as_json=True)

    [found] = json.loads(capsys.readouterr().out)["comparisons"]
    lines = {line["name"]: line for line in found["lines"]}
    assert found["claim"] == "checkpoints"
    assert found["p_together"] == lines["robust"]["change"]["p"]
    assert lines["robust"]["change"]["gained"] == len(found["gained"]) == 8
    assert lines["robust"]["change"]["lost"] == len(found["lost"]) == 14
    assert found["odds"]["value"] == pytest.approx(8 / 14)
    assert lines["at radius 1/5"]["change"] is None


def test_two_folders_are_judged_together(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    for side, wrong in (("x", (100, 100, 100)), ("y", (100, 108, 110))):
        for label, count in zip("abc", wrong, strict=True):
            lay_record(tmp_path / side, label, 0, half(400, count))

    show(tmp_path / "x", tmp_path / "y", as_json=False)
    told = " ".join(capsys.readouterr().out.split())

    # Alone: 1, 2 / 2^8 and 2 / 2^10; Holm multiplies the smallest by 3 and the next by 2.
    assert "t/a: no difference in robust accuracy is shown" in told
    assert "t/b: B is worse in robust accuracy: -2.00 points" in told
    assert "p 0.02)" in told
    assert "p 0.0059)" in told


def test_json_says_what_holds_when_all_are_judged_together(tmp_path: Path, lay_record, capsys):
    for side, wrong in (("x", (100, 100, 100)), ("y", (100, 106, 100))):
        for label, count in zip("abc", wrong, strict=True):
            lay_record(tmp_path / side, label, 0, half(400, count))

    show(tmp_path / "x", tmp_path / "y", as_json=True)

    _, found, _ = json.loads(capsys.readouterr().out)["comparisons"]
    # Alone 2 / 2^6, which is below 5 %; of three pairs it is not.
    assert found["p_together"] == pytest.approx(3 * 2 / 2**6)
    assert found["verdict"].startswith("no difference in robust accuracy is shown")


def test_a_pair_with_a_side_that_failed_is_named(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    for side in "xy":
        lay_record(tmp_path / side, "a", 0, half(40, 9))
    lay_record(tmp_path / "x", "b", 0, half(40, 9))
    lay_record(tmp_path / "y", "b", 0, half(40, 9), status="failed", error="x")

    show(tmp_path / "x", tmp_path / "y", as_json=False)
    assert "not compared, every job FAILED: t/b-s0" in capsys.readouterr().out
    show(tmp_path / "x", tmp_path / "y", as_json=True)
    assert json.loads(capsys.readouterr().out)["failed"] == ["t/b-s0"]


def test_a_hostile_label_steers_no_terminal(tmp_path: Path, lay_record, command):
    folder = lay_record(tmp_path, "a", 0, half(40, 9))
    text = (folder / "record.json").read_text("utf-8")
    (folder / "record.json").write_text(text.replace('"label": "a"', '"label": "../../x\\u001b[2J\\n[red]"'), "utf-8")

    done = command(tmp_path, "compare", folder, folder)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "A: t/../../x?[2J?[red]-s0" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records"]


def test_ten_thousand_examples_take_under_a_second(tmp_path: Path, lay_record):
    """By CPU time in a fresh process, after imports."""
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        lay_record(tmp_path, "a", seed, rng.random(10_000) < 0.5)
    code = (
        "import time, sys; from pathlib import Path; from advbench.compare.show import show; t = time.process_time()\n"
        "show(Path('records/t/a-s0'), Path('records/t/a-s1'), as_json=False)\n"
        "print(time.process_time() - t, file=sys.stderr); assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert float(done.stderr) < 1
