from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from advbench.board import export
from advbench.board.table import sections
from advbench.record import Accuracy, Flag
from advbench.spec import BadInput

DEAD = Flag(name="dead", message="The model answers with one class.", evidence={"top_class": 1.0})


def notes(group: Any) -> list[str]:
    return [note.text for note in group.notes]


def test_means_and_range_by_hand(make: Any) -> None:
    (section,) = sections(
        [make(seed=s, robust=r, clean=c) for s, r, c in [(0, 0.5, 0.9), (1, 0.6, 0.8), (2, 0.1, 1.0)]]
    )
    (group,) = section.groups
    assert group.robust == pytest.approx(0.4)
    assert group.clean == pytest.approx(0.9)
    assert (group.lowest, group.highest) == (0.1, 0.6)
    assert group.pgd == pytest.approx(0.6)
    assert group.train_seconds == pytest.approx(11)
    assert group.train_passes == 5_100_000
    assert section.setting == "digits · Linf 3/20 · digits-cnn · 30 epochs"
    assert section.protocol == "autoattack on 360 test examples"
    assert section.title == "Digits under Linf 0.15"


def test_order_is_robust_then_clean_then_label_and_the_unscored_last(make: Any) -> None:
    records = [
        make("failed", error="ValueError: x"),
        make("unattacked", robust=None),
        make("dead", robust=0.0),
        make("b", robust=0.5),
        make("a", robust=0.5),
        make("cleaner", robust=0.5, clean=0.95),
        make("best", robust=0.7, clean=0.1),
    ]
    (section,) = sections(records)
    labels = [group.label for group in section.groups]
    assert labels == ["best", "cleaner", "a", "b", "dead", "unattacked", "failed"]


def test_seeds_stand_in_numeric_order(make: Any) -> None:
    (section,) = sections([make(seed=s) for s in (10, 2, 0)])
    assert [row.record.seed for row in section.rows] == [0, 2, 10]


def test_a_flagged_seed_stays_in_the_mean_and_marks_it(make: Any) -> None:
    (section,) = sections(
        [make(seed=0, robust=0.6), make(seed=1, robust=0.0, flags=(DEAD, DEAD)), make(seed=2, robust=0.6)]
    )
    (group,) = section.groups
    assert group.robust == pytest.approx(0.4)
    assert [row.marked for row in group.rows] == [False, True, False]
    assert group.marked
    assert notes(group) == ["1 of 3 dead"]


def test_flags_are_said_in_plain_words(make: Any) -> None:
    def fallen(best: Any, last: Any) -> Flag:
        evidence = {"best": best, "best_epoch": 75, "last": last, "drop": 0.1}
        return Flag(name="robust-overfitting", message="...", evidence=evidence)

    collapsed = Flag(name="catastrophic-overfitting", message="...")
    odd = Flag(name="robust-overfitting", message="...", evidence={"best": None, "last": [1]})
    records = [
        make("a", 0, flags=(collapsed, fallen(0.521, 0.44))),
        make("a", 1),
        make("a", 2, flags=(fallen(0.5, 0.4),)),
        make("b", flags=(odd,)),
        make("c", flags=(Flag(name="something-new", message="..."),)),
    ]
    (section,) = sections(records)
    by_label = {group.label: group for group in section.groups}
    assert notes(by_label["a"]) == [
        "1 of 3 collapsed",
        "2 of 3 overfitted robustly: PGD fell from 52.1% to 44.0%, from 50.0% to 40.0%",
    ]
    assert notes(by_label["b"]) == ["1 of 1 overfitted robustly"]
    assert notes(by_label["c"]) == ["1 of 1 something-new"]
    remarks = [row.remark for row in by_label["a"].rows]
    assert remarks == ["seed 0: collapsed, overfitted robustly", "seed 1", "seed 2: overfitted robustly"]
    # Data keep the flag's own name.
    assert by_label["a"].flags == {"catastrophic-overfitting": 1, "robust-overfitting": 2}


def test_a_failed_seed_is_no_number_but_a_note(make: Any) -> None:
    trace = "Traceback (most recent call last):\n  File x\nRuntimeError: loss is not finite\n\n"
    (section,) = sections([make(seed=0, robust=0.6), make(seed=1, error=trace), make(seed=2, error="")])
    (group,) = section.groups
    assert group.robust == pytest.approx(0.6)
    assert group.train_seconds == pytest.approx(10)
    assert group.marked
    assert notes(group) == ["1 of 3 FAILED: RuntimeError: loss is not finite", "1 of 3 FAILED: no traceback was kept"]


def test_declared_deviations_are_no_disagreement(make: Any) -> None:
    free = [make("free-at", s, job={"training": {"epochs": 8}, "deviations": {"epochs": 8}}) for s in range(3)]
    (section,) = sections([make(), *free])
    by_label = {group.label: group for group in section.groups}
    # Three of four records train 8 epochs, but the task says 30.
    assert section.setting.endswith("30 epochs")
    assert notes(by_label["free-at"]) == ["trained differently: epochs 8"]
    assert notes(by_label["pgd-at"]) == []


def test_records_of_a_changed_task_file_say_so(make: Any) -> None:
    changed = {"threat": {"eps": "8/255"}, "training": {"epochs": 8}}
    other = make("old", 0, 0.9, job=changed)
    (section,) = sections([make(seed=0), make(seed=1), other])
    assert notes(section.groups[0]) == [
        "1 of 1 under other settings: threat.eps 8/255, not 3/20; training.epochs 8, not 30"
    ]
    assert section.groups[0].marked
    assert not section.groups[1].marked


def test_seeds_of_two_settings_of_one_label_say_so(make: Any) -> None:
    (section,) = sections([make(seed=0), make(seed=1), make(seed=2, job={"defense": {"steps": 7}}), make("other")])
    group = next(g for g in section.groups if g.label == "pgd-at")
    assert notes(group) == ["1 of 3 under other settings: defense.steps 7, not 10"]


def test_a_failed_job_with_a_bare_job_still_shows(make: Any) -> None:
    bare = make("x", error="KeyError: 'data'").model_copy(update={"job": {}})
    (section,) = sections([bare])
    assert (section.title, section.setting, section.protocol) == ("t", "", "")
    assert notes(section.groups[0]) == ["1 of 1 FAILED: KeyError: 'data'"]


def test_two_records_of_one_seed_are_refused(make: Any) -> None:
    with pytest.raises(BadInput, match="t/pgd-at-s0"):
        sections([make(), make()])


def test_rungs_follow_the_task_and_radii_grow(make: Any) -> None:
    curve = {"1/5": 0.1, "1/20": 0.8, "1/10": 0.5}
    (section,) = sections([make(curve=curve, alone={"square": 0.6, "pgd": 0.6, "apgd-ce": 0.5, "fgsm": 0.8})])
    assert section.rungs == ("fgsm", "pgd", "autoattack")
    assert section.alone == ("fgsm", "pgd", "apgd-ce", "square")
    assert section.radii == ("1/20", "1/10", "1/5")
    assert section.rows[0].curve == [("0", 0, 0.9), ("1/20", 0.05, 0.8), ("1/10", 0.1, 0.5), ("1/5", 0.2, 0.1)]


def test_the_parts_of_an_ensemble_stand_before_it(make: Any) -> None:
    left = {"fgsm": 0.8, "pgd": 0.6, "apgd-ce": 0.55, "square": 0.5, "autoattack": 0.5}
    record = make(attacks=left)
    judged = record.scores.model_copy(
        update={"robust": record.scores.robust.model_copy(update={"protocol": "autoattack"})}
    )
    (section,) = sections([record.model_copy(update={"scores": judged})])
    assert section.rungs == ("fgsm", "pgd", "apgd-ce", "square", "autoattack")


def test_csv_gives_every_number_back(make: Any) -> None:
    records = [
        make(seed=s, robust=r, curve={"1/20": 1 / 3}, flags=(DEAD,)) for s, r in enumerate((1 / 3, 2 / 7, 0.1 + 0.2))
    ]
    records.append(make("broken, badly", error='ValueError: "x",\ny'))
    board = sections(records)
    lines = {(line["label"], line["seed"]): line for line in csv.DictReader(io.StringIO(export.flat(board)))}
    assert len(lines) == 4
    for record in records[:3]:
        line = lines[record.label, str(record.seed)]
        assert float(line["robust"]) == record.scores.robust.accuracy
        assert float(line["robust_low"]) == record.scores.robust.low
        assert float(line["curve.1/20"]) == 1 / 3
        assert float(line["attacks.pgd"]) == 0.6
        assert int(line["train_passes"]) == 5_100_000
        assert line["flags"] == "dead"
        assert line["eps"] == "3/20"
    broken = lines["broken, badly", "0"]
    assert (broken["status"], broken["robust"], broken["attacks.pgd"]) == ("failed", "", "")


def test_json_holds_the_same_numbers(make: Any) -> None:
    board = json.loads(export.nested(sections([make(seed=0, robust=1 / 3), make(seed=1, flags=(DEAD,))])))
    (task,) = board["tasks"]
    (group,) = task["groups"]
    assert group["robust"] == pytest.approx((1 / 3 + 0.5) / 2)
    assert group["records"][0]["robust"] == 1 / 3
    assert group["flags"] == {"dead": 1}


def test_a_pretrained_start_says_what_it_saw_and_elsewhere_nothing_changes(make: Any) -> None:
    model = {"name": "resnet18", "pretrained": "w.safetensors", "extra_data": "ImageNet-1k"}
    plain, board = sections([make()]), sections([make("big", job={"model": model}), make()])

    assert "extra_data" not in export.flat(plain) + export.nested(plain)
    by_label = {group.label: group for group in board[0].groups}
    assert "pretrained start, extra data: ImageNet-1k" in notes(by_label["big"])
    lines = {line["label"]: line["extra_data"] for line in csv.DictReader(io.StringIO(export.flat(board)))}
    assert lines.pop("big") == "ImageNet-1k"
    assert set(lines.values()) == {""}
    groups = {group["label"]: group for group in json.loads(export.nested(board))["tasks"][0]["groups"]}
    assert groups["big"]["records"][0]["extra_data"] == "ImageNet-1k"


def test_a_stopped_evaluation_is_under_no_other_settings_and_says_what_it_is(make: Any) -> None:
    stopped = Flag(name="stopped", message="", evidence={})
    (section,) = sections([make("a"), make("a", 1), make("b", robust=None, flags=(stopped,))])

    by_label = {group.label: group for group in section.groups}
    assert by_label["b"].robust is None
    assert notes(by_label["b"]) == ["1 of 1 was not attacked to the end, so it has no robust accuracy"]


def test_what_a_detector_refuses_stands_in_the_notes(make: Any) -> None:
    share = Accuracy(accuracy=0.03, low=0.01, high=0.05, n=360)
    (section,) = sections([make(rejected=share)])

    assert notes(section.groups[0]) == ["refuses 3.0% of untouched images"]
