"""The gate in a scratch folder, end to end: a worsened defense, the same, too little of it, and a collapsed one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from advbench import cli
from advbench.compare.read import read
from advbench.gate.judge import Asked, Judgement, check, judge, together
from advbench.gate.limits import Limit
from advbench.gate.publish import junit, markdown
from advbench.gate.show import show
from advbench.record import Flag
from advbench.spec import BadInput

COLLAPSED = Flag(name="catastrophic-overfitting", message="PGD fell from 48.0% to 3.1%", evidence={"epoch": 17})


def seeds(folder: Path, lay_record, label: str, accuracy: float, n: int = 2000, draw: int = 0, **fields) -> Path:
    """Three seeds of a defense whose verdicts are drawn: some examples hard for everybody, some for a few."""
    ease = np.random.default_rng(0).normal(0, 1, n)
    rng = np.random.default_rng(draw)
    for seed in range(3):
        score = ease + rng.normal(0, 0.25, n)
        # The share that stands is near the accuracy, and no seed hits it exactly.
        stands = score > np.quantile(score, 1 - accuracy) + rng.normal(0, 0.01)
        lay_record(folder, label, seed, stands, **(fields if seed == 1 else {}))
    return folder / "records" / "t" / label


@pytest.mark.parametrize(
    ("accuracy", "n", "fields", "code", "said"),
    [
        (0.50, 2000, {}, 0, "PASS, about this defense, 3 seeds against 3"),
        (0.40, 2000, {}, 1, "FAIL          robust accuracy: -10."),
        (0.50, 60, {}, 3, "would decide"),
        (0.50, 2000, {"flags": (COLLAPSED,)}, 1, "FAIL          flags: new: seed 1: catastrophic-overfitting"),
    ],
    ids=["same", "worse", "few", "collapsed"],
)
def test_the_gate_from_records_to_exit_code(
    tmp_path: Path, lay_record, monkeypatch: pytest.MonkeyPatch, accuracy, n, fields, code, said
):
    seeds(tmp_path / "baseline", lay_record, "mine", 0.5, n)
    # The defense was changed and trained again: other jobs, another draw.
    seeds(tmp_path / "results", lay_record, "mine", accuracy, n, draw=1, **fields)
    for file in (tmp_path / "results").glob("records/t/*/record.json"):
        file.write_text(re.sub(r'"(mine-\d)"', r'"new-\1"', file.read_text("utf-8")), "utf-8")
    monkeypatch.chdir(tmp_path)

    options = ["--against", "baseline/records/t/mine", "--margin", "3", "--junit", "gate.xml", "--markdown", "out/g.md"]
    done = CliRunner().invoke(cli.app, ["check", "results/records/t/mine", *options])

    assert done.exit_code == code, done.output
    assert said in done.output
    verdict = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[code]
    assert f"advbench check: {verdict}\n" in (tmp_path / "out/g.md").read_text("utf-8")
    suite = ET.parse(tmp_path / "gate.xml").getroot().find("testsuite")  # noqa: S314  # written by the line above
    assert suite is not None
    assert (suite.get("failures") != "0") == (verdict == "FAIL")
    assert (suite.get("skipped") != "0") == (verdict == "INCONCLUSIVE")
    assert [case.get("name") for case in suite] == ["robust accuracy", "clean accuracy", "flags"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--margin", "-1"), "--margin: points of accuracy between 0 and 100, not -1.0"),
        (("--margin", "nan"), "--margin: points of accuracy between 0 and 100, not nan"),
        (("--margin", "5", "--passes", "0"), "--passes: how many times the old cost, such as 1.1, not 0.0"),
        (("--margin", "5", "--against", "empty"), "empty: holds no record"),
        (("--margin", "5", "--junit", "old/record"), "old/record: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path: Path, lay_record, monkeypatch, capsys, options, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").write_bytes(b"a file, not a folder")
    lay_record(tmp_path, "a", 0, np.arange(20) > 9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["advbench", "check", "records/t/a-s0", "--against", "records/t/a-s0", *options])

    with pytest.raises(SystemExit) as done:
        cli.main()

    err = capsys.readouterr().err
    assert done.value.code == 2
    assert err.startswith(f"advbench: {said}")
    assert err.count("\n") == 1


def test_json_and_the_code_agree(tmp_path: Path, lay_record, capsys):
    lay_record(tmp_path, "a", 0, np.arange(400) > 100)
    lay_record(tmp_path, "b", 0, np.arange(400) > 200)
    home = tmp_path / "records/t"

    code = show(home / "b", home / "a", Asked.of(5, 2), None, None, as_json=True)

    told = json.loads(capsys.readouterr().out)
    [judgement] = told["judgements"]
    assert (code, told["verdict"], judgement["verdict"]) == (1, "FAIL", "FAIL")
    assert judgement["about"] == "this checkpoint, not the defense"
    assert judgement["limits"][0]["numbers"]["margin"] == 0.05
    assert judgement["limits"][1]["numbers"]["margin"] == 0.02


def test_among_many_pairs_a_fail_needs_more(tmp_path: Path, lay_record):
    lay_record(tmp_path, "a", 0, np.arange(400) > 100)
    lay_record(tmp_path, "b", 0, np.arange(400) > 130)
    [a], [b] = read(tmp_path / "records/t/a"), read(tmp_path / "records/t/b")
    asked = Asked.of(4.9, None)

    assert judge(b, a, asked).verdict == "FAIL"
    assert judge(b, a, asked, among=100).verdict == "INCONCLUSIVE"


def test_an_old_side_without_results_holds_nothing(tmp_path: Path, lay_record):
    [a] = read(lay_record(tmp_path, "a", 0, np.ones(20, bool)))
    [failed] = read(lay_record(tmp_path, "b", 0, np.ones(20, bool), status="failed", error="KeyError: x"))

    with pytest.raises(BadInput, match="every job of the old side FAILED"):
        judge(a, failed, Asked.of(5, None))
    assert judge(failed, a, Asked.of(5, None)).verdict == "FAIL"


def test_verdicts_together():
    assert together(["PASS", "INCONCLUSIVE", "FAIL"]) == "FAIL"
    assert together(["PASS", "INCONCLUSIVE"]) == "INCONCLUSIVE"
    assert together(["PASS", "PASS"]) == "PASS"


def test_what_a_record_says_breaks_no_page():
    limit = Limit("flags", "FAIL", "new: <b>|x| \x00\x1b[2J & `rm`\n| a | b |")
    hostile = [Judgement("t/<script>|a", "t/b", "x", (limit,), ("# note",))]

    root = ET.fromstring(junit(hostile))  # noqa: S314  # written by the line itself
    assert junit(hostile).startswith(b"<?xml ")  # some readers take a file for XML by this alone
    case = root.find("testsuite/testcase/failure")
    assert case is not None
    assert case.get("message") == "new: <b>|x| ??[2J & `rm`?| a | b |"
    text = markdown(hostile)
    assert "<script>" not in text
    assert "<b>" not in text
    row = next(line for line in text.splitlines() if line.startswith("| flags"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_other_protocols_of_the_evaluation_are_refused(tmp_path: Path, lay_record):
    old = lay_record(tmp_path / "old", "a", 0, np.arange(20) % 4 > 0)
    new = lay_record(tmp_path / "new", "a", 0, np.arange(20) % 4 > 0, job={"evaluation_protocol": 4})

    with pytest.raises(BadInput, match=r"differ in: evaluation_protocol 3 there, 4 here$"):
        check(new, old, Asked.of(5, None))
