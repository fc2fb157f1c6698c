"""What a person reads of a comparison, to the letter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.compare.show import show
from advbench.record import Flag, Measure, load, save
from advbench.spec import BadInput
from advbench.stats.paired import Pair

FEW = "fewer than 3 seeds on a side support no claim about a defense: this speaks of the checkpoints"


def half(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred columns with colours, of which only a table's head has any."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")


def told(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> list[str]:
    show(a, b, as_json=False)
    return re.sub("\x1b\\[[01]m", "", capsys.readouterr().out).splitlines()


def interval(lost: int) -> str:
    low, high = Pair(0, lost, 400).interval()
    return f"{100 * low:+.2f} to {100 * high:+.2f}"


def test_one_pair_line_by_line(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    for label, wrong in (("a", 100), ("b", 112)):
        folder = lay_record(tmp_path, label, 0, half(400, wrong))
        record = load(folder / "record.json")
        measures = {"fosc": {"mean": Measure(value=1.0, unit="1", meaning="m")}}
        beside = {name: (folder / name).read_bytes() for name in record.files}
        save(record.model_copy(update={"measures": measures}), folder, beside)

    assert told(capsys, tmp_path / "records/t/a", tmp_path / "records/t/b") == [
        "A: t/a-s0",
        "B: t/b-s0",
        "┏━━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━┓",
        "┃                ┃       A ┃       B ┃ B - A ┃  95 % interval ┃      p ┃",
        "┡━━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━┩",
        f"│ clean          │ 100.00% │ 100.00% │ +0.00 │ {interval(0)} │   1.00 │",
        f"│ after pgd      │  75.00% │  72.00% │ -3.00 │ {interval(12)} │ 0.0005 │",
        f"│ robust         │  75.00% │  72.00% │ -3.00 │ {interval(12)} │ 0.0005 │",
        "│ at radius 1/10 │  50.00% │  50.00% │ +0.00 │                │        │",
        "│ train passes   │   1,000 │   1,000 │   x 1 │                │        │",
        "│ train seconds  │      10 │      10 │   x 1 │                │        │",
        "└────────────────┴─────────┴─────────┴───────┴────────────────┴────────┘",
        "1 numbers of collectors: --json has them",
        "0 of 400 examples: B right and A wrong",
        "12 of 400 examples: A right and B wrong: 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, ...",
        f"note: {FEW}",
        (
            f"B is worse in robust accuracy: -3.00 points (95 % interval {interval(12)}, p 0.0005), "
            "about these two checkpoints"
        ),
    ]


def test_ten_examples_are_shown_whole_and_of_groups_they_are_those_of_every_seed(
    tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "64")
    for label, counts in (("a", (90, 100)), ("b", (110, 120))):
        for seed, wrong in enumerate(counts):
            lay_record(tmp_path, label, seed, half(400, wrong))

    lines = told(capsys, tmp_path / "records/t/a", tmp_path / "records/t/b")

    ten = ", ".join(map(str, range(100, 110)))
    assert f"10 of 400 examples: A right and B wrong, whatever the seed: {ten}" in lines
    # Of numbers nothing is cut in a narrow window.
    shown = [line for line in lines if "76.25%" in line]
    assert len(shown) == 2
    assert all(
        re.search(r"│  76.25% │  71.25% │ -5.00 │ -\d\.\d\d to -\d\.\d\d │ +<?\d\.\d+ │$", line) for line in shown
    )


def both(tmp_path: Path, lay_record: Any) -> tuple[Path, Path]:
    """Two folders: a pair of equals, one of which B lost ten, one that failed, and one on either side alone."""
    flags = {"flags": (Flag(name="dead", message=""),)}
    failed = {"status": "failed", "error": "x"}
    for side, labels in (("x", ("a", "b", "c", "only [x] :smile:")), ("y", ("a", "b", "c", "e"))):
        for label in labels:
            fields = failed if (side, label) == ("y", "c") else flags if label == "b" else {}
            lay_record(tmp_path / side, label, 0, half(400, 110 if (side, label) == ("y", "b") else 100), **fields)
    return tmp_path / "x", tmp_path / "y"


def test_several_pairs_are_a_line_each(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    assert told(capsys, *both(tmp_path, lay_record)) == [
        "┏━━━━━┳━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━┓",
        "┃     ┃ accuracy ┃      A ┃      B ┃ B - A ┃  95 % interval ┃ p (Holm) ┃ about                 ┃",
        "┡━━━━━╇━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━┩",
        f"│ t/a │ robust   │ 75.00% │ 75.00% │ +0.00 │ {interval(0)} │     1.00 │ these two checkpoints │",
        f"│ t/b │ robust   │ 75.00% │ 72.50% │ -2.50 │ {interval(10)} │   0.0039 │ these two checkpoints │",
        "└─────┴──────────┴────────┴────────┴───────┴────────────────┴──────────┴───────────────────────┘",
        *(f"note: t/a: {FEW}", "note: t/a: the same jobs on both sides"),
        *("note: t/b: A, seed 0: dead", "note: t/b: B, seed 0: dead"),
        *(f"note: t/b: {FEW}", "note: t/b: the same jobs on both sides"),
        (
            f"t/a: no difference in robust accuracy is shown: +0.00 points (95 % interval {interval(0)}, p 1.00), "
            "about these two checkpoints"
        ),
        (
            f"t/b: B is worse in robust accuracy: -2.50 points (95 % interval {interval(10)}, p 0.0039), "
            "about these two checkpoints"
        ),
        "not compared, every job FAILED: t/c-s0",
        "only in A: t/only [x] :smile:-s0",
        "only in B: t/e-s0",
    ]


def test_a_script_is_told_who_was_left_out(tmp_path: Path, lay_record, capsys: pytest.CaptureFixture[str]):
    show(*both(tmp_path, lay_record), as_json=True)
    text = capsys.readouterr().out
    found = json.loads(text)

    assert text == json.dumps(found, indent=1) + "\n"
    assert [one["a"] for one in found.pop("comparisons")] == ["t/a-s0", "t/b-s0"]
    assert found == {"failed": ["t/c-s0"], "only_a": ["t/only [x] :smile:-s0"], "only_b": ["t/e-s0"]}


def test_where_every_job_of_a_side_failed_nothing_is_compared(tmp_path: Path, lay_record):
    one = lay_record(tmp_path / "x", "a", 0, half(40, 9))
    other = lay_record(tmp_path / "y", "a", 0, half(40, 9), status="failed", error="x")

    for pair in ((one, other), (other, one)):
        with pytest.raises(BadInput, match="every job of one side FAILED: nothing to compare"):
            show(*pair, as_json=False)


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


def test_a_hostile_label_steers_no_terminal(tmp_path: Path, lay_record, command):
    folder = lay_record(tmp_path, "a", 0, half(40, 9))
    text = (folder / "record.json").read_text("utf-8")
    (folder / "record.json").write_text(text.replace('"label": "a"', '"label": "../../x\\u001b[2J\\n[red]"'), "utf-8")

    done = command(tmp_path, "compare", folder, folder)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "A: t/../../x?[2J?[red]-s0" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records"]
