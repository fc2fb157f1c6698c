"""What a gate asks, whom it judges at which level, and the four ways in which it is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.compare.read import Group, read
from advbench.gate import show
from advbench.gate.judge import Asked, Judgement, check, judge
from advbench.gate.limits import Limit
from advbench.gate.publish import junit, markdown
from advbench.record import Accuracy, Flag, Scores
from advbench.spec import BadInput

LIMITS = (
    Limit("robust accuracy", "PASS", "+1.00 points", ("decided now", "[b]12[/b] :smile:"), {"value": 0.01}),
    Limit("flags", "FAIL", "new: dead"),
    Limit("drift", "INCONCLUSIVE", "x" * 100),
)
ONE = Judgement("t/new", "t/old", "these defenses", LIMITS, ("a_remark", "another"))
OTHER = Judgement("t/b", "t/a", "these checkpoints", LIMITS[:1])


@pytest.mark.parametrize(
    ("points", "asked"),
    [
        ((0, None), Asked(0, 0)),
        ((100, 0), Asked(1, 0)),
        ((5, 0.5, 0.5, 1.5), Asked(0.05, 0.005, 0.5, 1.5)),
    ],
)
def test_limits_are_asked_for_in_points_and_ratios(points: Any, asked: Asked):
    assert Asked.of(*points) == asked


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((100.5, None), "--margin: points of accuracy between 0 and 100, not 100.5"),
        ((math.nan, 5), "--margin"),
        ((5, -0.5), "--clean-margin: points of accuracy between 0 and 100, not -0.5"),
        ((5, math.inf), "--clean-margin"),
        ((5, None, math.inf), "--passes: how many times the old cost, such as 1.1, not inf"),
        ((5, None, None, 0), "--seconds: how many times the old cost, such as 1.1, not 0"),
        ((5, None, None, math.nan), "--seconds"),
    ],
)
def test_no_other_limits_are_taken(points: Any, said: str):
    with pytest.raises(BadInput, match=f"^{said}"):
        Asked.of(*points)


def group(folder: Path, lay_record: Any, label: str, wrong: int, seeds: int = 1, **fields: Any) -> Group:
    """Seeds whose first `wrong` examples of 2,000 fall, without an attack as with one."""
    for seed in range(seeds):
        stands = np.arange(2000) >= wrong + seed
        lay_record(folder, label, seed, stands, clean=stands, **fields)
    return read(folder / "records/t" / label)[0]


def test_limits_share_the_level_at_which_any_of_them_fails(tmp_path: Path, lay_record):
    """4 % for robust accuracy and 1 % for clean accuracy, half of it beside seconds; without an attack all of it."""
    stands = np.arange(2000) >= 1000
    clean = Accuracy(accuracy=float(stands.mean()), low=0, high=1, n=2000)
    old, new = (group(tmp_path, lay_record, *one) for one in (("old", 100), ("new", 1000)))
    lay_record(tmp_path, "plain", 0, stands, clean=stands, scores=Scores(clean=clean))
    [plain] = read(tmp_path / "records/t/plain")

    def levels(new: Group, asked: Asked, among: int = 1) -> dict[str, str]:
        found = judge(new, old, asked, among).limits
        return {one.name: one.said.partition(" with ")[2].partition(" %")[0] for one in found if "accuracy" in one.name}

    both, timed = Asked.of(5, None), Asked.of(5, None, seconds=2)
    assert levels(new, both) == {"robust accuracy": "96", "clean accuracy": "99"}
    assert levels(new, timed) == {"robust accuracy": "96", "clean accuracy": "99.5"}
    assert levels(new, both, among=4) == {"robust accuracy": "99", "clean accuracy": "99.75"}
    assert levels(plain, both) == {"clean accuracy": "95"}
    assert levels(plain, timed) == {"clean accuracy": "97.5"}
    names = [limit.name for limit in judge(new, old, Asked.of(5, None, 2, 2)).limits]
    assert names == ["robust accuracy", "clean accuracy", "training passes", "training seconds", "flags"]


@pytest.mark.parametrize(
    ("seeds", "about"),
    [
        ((1, 1), "this checkpoint, not the defense"),
        ((3, 2), "these 3 checkpoints, not the defense"),
        ((3, 4), "this defense, 3 seeds against 4"),
    ],
)
def test_whom_a_judgement_is_about(tmp_path: Path, lay_record, seeds, about):
    k, m = seeds
    dead = Flag(name="dead", message="one class")
    old = group(tmp_path, lay_record, "old", 100, m, flags=(dead,))
    found = judge(group(tmp_path, lay_record, "new", 110, k, flags=(dead,)), old, Asked.of(5, None))

    few = "fewer than 3 seeds on a side support no claim about a defense; add seeds for one"
    assert found.about == about
    assert list(found.remarks) == [
        *(f"OLD, seed {seed}: dead" for seed in range(m)),
        *(f"NEW, seed {seed}: dead" for seed in range(k)),
        *([few] if min(seeds) < 3 else []),
    ]


def test_who_has_no_partner_is_said_once_at_the_end(tmp_path: Path, lay_record):
    for side, labels in (("new", "abx"), ("old", "aby")):
        for label in labels:
            dead = (Flag(name="dead", message="one class"),) if label == "b" else ()
            group(tmp_path / side, lay_record, label, 100, flags=dead)

    one, other = check(tmp_path / "new", tmp_path / "old", Asked.of(5, None))

    assert (one.new, other.old) == ("t/a-s0", "t/b-s0")
    assert not [text for text in one.remarks if "dead" in text or "judged" in text]
    assert other.remarks == (
        *("OLD, seed 0: dead", "NEW, seed 0: dead", *one.remarks),
        *("not judged, only in NEW: t/x-s0", "not judged, only in OLD: t/y-s0"),
    )


def test_the_ci_has_a_case_a_limit():
    assert junit([ONE, OTHER]).decode() == (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        '<testsuites name="advbench check">'
        '<testsuite name="t/new" tests="3" failures="1" errors="0" skipped="1">'
        '<testcase classname="t/new" name="robust accuracy" time="0">'
        "<system-out>+1.00 points\ndecided now\n[b]12[/b] :smile:</system-out></testcase>"
        '<testcase classname="t/new" name="flags" time="0"><failure message="new: dead" />'
        "<system-out>new: dead</system-out></testcase>"
        f'<testcase classname="t/new" name="drift" time="0"><skipped message="{"x" * 100}" />'
        f"<system-out>{'x' * 100}</system-out></testcase></testsuite>"
        '<testsuite name="t/b" tests="1" failures="0" errors="0" skipped="0">'
        '<testcase classname="t/b" name="robust accuracy" time="0">'
        "<system-out>+1.00 points\ndecided now\n[b]12[/b] :smile:</system-out></testcase></testsuite></testsuites>\n"
    )


def test_its_summary_has_a_table_a_pair():
    assert markdown([ONE, OTHER]).splitlines() == [
        *("## ❌ advbench check: FAIL", ""),
        *("**t/new** against t/old, about these defenses", ""),
        *("| limit | verdict | |", "| --- | --- | --- |"),
        r"| robust accuracy | ✅ PASS | +1.00 points<br>decided now<br>\[b\]12\[/b\] :smile: |",
        "| flags | ❌ FAIL | new: dead |",
        f"| drift | ❔ INCONCLUSIVE | {'x' * 100} |",
        *("", r"* a\_remark", "* another", ""),
        *("**t/b** against t/a, about these checkpoints", ""),
        *("| limit | verdict | |", "| --- | --- | --- |"),
        r"| robust accuracy | ✅ PASS | +1.00 points<br>decided now<br>\[b\]12\[/b\] :smile: |",
    ]


def test_a_person_reads_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """As they are, even where a terminal would have colours: nothing is wrapped on the way into a file."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    told = [
        *("NEW: t/new", "OLD: t/old"),
        "PASS          robust accuracy: +1.00 points",
        "              decided now",
        "              [b]12[/b] :smile:",
        "FAIL          flags: new: dead",
        f"INCONCLUSIVE  drift: {'x' * 100}",
        *("note: a_remark", "note: another", "FAIL, about these defenses"),
    ]

    for found, last in (([ONE], []), ([ONE, OTHER], [*told[2:5], "PASS, about these checkpoints", "FAIL"])):
        monkeypatch.setattr(show, "check", lambda *_, found=found: found)
        assert show.show(Path(), Path(), Asked(0.1, 0.1), None, None, as_json=False) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[: len(told)] == told
        assert [line for line in lines[len(told) :] if line not in ("NEW: t/b", "OLD: t/a")] == last


def test_a_script_reads_everything(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(show, "check", lambda *_: [OTHER])

    assert show.show(Path(), Path(), Asked(0.1, 0.1), tmp_path / "a/x.xml", tmp_path / "x.md", as_json=True) == 0
    said = capsys.readouterr().out
    limit = {"name": "robust accuracy", "verdict": "PASS", "said": "+1.00 points", "numbers": {"value": 0.01}}
    judgement = {"new": "t/b", "old": "t/a", "verdict": "PASS", "about": "these checkpoints", "remarks": []}
    judgement["limits"] = [limit | {"advice": ["decided now", "[b]12[/b] :smile:"]}]
    assert json.loads(said) == {"verdict": "PASS", "judgements": [judgement]}
    assert said.splitlines()[1] == ' "verdict": "PASS",'
    assert (tmp_path / "a/x.xml").read_bytes() == junit([OTHER])
    assert (tmp_path / "x.md").read_text("utf-8") == markdown([OTHER])
