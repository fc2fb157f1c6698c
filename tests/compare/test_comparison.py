"""A comparison's numbers and words, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from advbench.compare.comparison import compare, said_p
from advbench.compare.read import Group, read
from advbench.compare.show import show
from advbench.record import Accuracy, Cost, Flag, Measure, Scores, load, save
from advbench.stats.paired import Pair


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


@pytest.mark.parametrize(
    ("p", "said"),
    [
        *((0.0, "<0.0001"), (0.000099, "<0.0001"), (0.0001, "0.0001"), (0.00015, "0.0001"), (0.0099, "0.0099")),
        *((0.01, "0.01"), (0.015, "0.01"), (0.25, "0.25"), (1.0, "1.00")),
    ],
)
def test_a_p_value_is_said_as_people_write_it(p, said):
    assert said_p(p) == said


def test_a_difference_is_shown_below_five_percent_and_not_at_it(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 1, loss=-40)

    assert found.verdict(0.0499).startswith("B is better in robust accuracy: +10.00 points")
    assert found.verdict(0.05).startswith("no difference in robust accuracy is shown")


def test_of_groups_unequal_in_number_both_are_said(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 3)
    more = found.b.results[:1] * 4

    assert compare(found.a, replace(found.b, results=more)).about == "these defenses, 3 and 4 seeds"
    few = compare(found.a, replace(found.b, results=found.b.results[:2]))
    assert (few.claim, few.about) == ("checkpoints", "these checkpoints, 3 of A and 2 of B")


def test_as_json_it_is_all_that_is_known(tmp_path: Path, lay_record):
    folders = [lay_record(tmp_path, label, 0, half(4, wrong)) for label, wrong in (("a", 1), ("b", 2))]
    [a], [b] = map(read, folders)
    one = compare(a, b)
    low, high = Pair(0, 1, 4).interval()
    change = {"value": -0.25, "low": low, "high": high, "p": 1.0, "gained": 0, "lost": 1}
    equal = dict(zip(("low", "high"), Pair(0, 0, 4).interval(), strict=True))

    assert one.plain() == {
        "a": "t/a-s0",
        "b": "t/b-s0",
        "seeds": {"a": [0], "b": [0]},
        "claim": "checkpoints",
        "about": "these two checkpoints",
        "verdict": one.verdict(),
        "examples": 4,
        "lines": [
            {"name": name, "kind": kind, "a": x, "b": y, "change": told}
            for name, kind, x, y, told in (
                ("clean", "accuracy", 1, 1, {"value": 0, **equal, "p": 1, "gained": 0, "lost": 0}),
                ("after pgd", "accuracy", 0.75, 0.5, change),
                ("robust", "accuracy", 0.75, 0.5, change),
                ("at radius 1/10", "curve", 0.5, 0.5, None),
                ("train passes", "cost", 1000, 1000, None),
                ("train seconds", "cost", 10, 10, None),
            )
        ],
        # Of a single discordant example nothing is known but that it may be nine in ten: 39 to 1 at 95 %.
        "odds": {"value": 0, "low": 0, "high": pytest.approx(39)},
        "gained": [],
        "lost": [1],
        "remarks": list(one.remarks),
    }
    assert compare(a, a).plain()["odds"] == {"value": None, "low": 0, "high": None}
    seeds = both(tmp_path / "more", lay_record, 3).plain()
    assert seeds["odds"] is None
    assert set(seeds["lines"][0]["change"]) == {"value", "low", "high", "p"}


def test_what_stands_for_every_seed_of_one_side_and_for_none_of_the_other(tmp_path: Path, lay_record):
    for label, counts in (("a", (2, 5)), ("b", (8, 7))):
        for seed, wrong in enumerate(counts):
            lay_record(tmp_path, label, seed, half(20, wrong), index=np.arange(20) + 50)
    [a], [b] = (read(tmp_path / "records/t" / label) for label in "ab")

    assert (compare(a, b).gained, compare(a, b).lost) == ((), (55, 56))
    assert (compare(b, a).gained, compare(b, a).lost) == ((55, 56), ())


def test_without_an_attack_clean_accuracy_is_what_is_compared(tmp_path: Path, lay_record):
    for label, wrong in (("a", 1), ("b", 3)):
        clean = Accuracy(accuracy=1 - wrong / 20, low=0, high=1, n=20)
        lay_record(tmp_path, label, 0, half(20, wrong), clean=half(20, wrong), scores=Scores(clean=clean))
    lay_record(tmp_path, "c", 0, half(20, 5), clean=half(20, 3))
    [a], [b], [c] = (read(tmp_path / "records/t" / label) for label in "abc")

    for other in (b, c):  # on one side or on both
        found = compare(a, other)
        assert found.main.name == "clean"
        assert [line.name for line in found.lines if line.kind == "accuracy"] == ["clean"]
        assert found.lost == (1, 2)


def test_radii_go_outward_and_costs_are_those_of_all_seeds(tmp_path: Path, lay_record):
    def laid(label: str, costs: list[Cost], curve: dict[str, float]) -> Group:
        for seed, cost in enumerate(costs):
            folder = lay_record(tmp_path, label, seed, half(4, 1), cost=cost)
            record = load(folder / "record.json")
            assert record.scores
            beside = {name: (folder / name).read_bytes() for name in record.files}
            save(
                record.model_copy(update={"scores": record.scores.model_copy(update={"curve": curve})}), folder, beside
            )
        return read(tmp_path / "records/t" / label)[0]

    curve = {"1/5": 0.1, "0.15": 0.2, "1/10": 0.3, "beyond": 0.0, "1/0": 0.0}
    spent = [Cost(train_forward=3, train_backward=2, forward=7, backward=4), Cost(train_forward=5, train_seconds=2)]
    a, b = laid("a", spent, curve), laid("b", spent[:1], {"1/5": 0.5, "1/10": 0.5})

    assert [(line.name, line.a, line.b) for line in compare(a, b).lines if line.kind != "accuracy"] == [
        *(("at radius 1/10", 0.3, 0.5), ("at radius 1/5", 0.1, 0.5), ("train passes", 5, 5)),
    ]
    radii = [line.name for line in compare(a, a).lines if line.kind == "curve"]
    assert radii == [f"at radius {eps}" for eps in ("beyond", "1/0", "1/10", "0.15", "1/5")]
    assert [line.name for line in compare(b, b).lines if line.kind == "cost"] == ["train passes", "evaluation passes"]
    assert compare(b, b).lines[-1].a == 11


def test_equal_sides_show_no_difference(tmp_path: Path, lay_record):
    found = both(tmp_path, lay_record, 3, loss=0)

    assert found.verdict().startswith("no difference in robust accuracy is shown: +0.00 points")


def test_a_flagged_seed_is_said(tmp_path: Path, lay_record):
    flag = Flag(name="catastrophic-overfitting", message="fell")

    found = both(tmp_path, lay_record, 3, flags=(flag,))

    assert "B, seed 0: catastrophic-overfitting" in found.remarks
    assert any("a flagged one is not" in remark for remark in found.remarks)
    assert "the same jobs on both sides" not in found.remarks
    assert not any("a flagged one is not" in remark for remark in compare(found.a, found.a).remarks)
    assert "the same jobs on both sides" in compare(found.a, found.a).remarks


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


@pytest.mark.slow
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


def test_json_says_what_holds_when_all_are_judged_together(tmp_path: Path, lay_record, capsys):
    for side, wrong in (("x", (100, 100, 100)), ("y", (100, 106, 100))):
        for label, count in zip("abc", wrong, strict=True):
            lay_record(tmp_path / side, label, 0, half(400, count))

    show(tmp_path / "x", tmp_path / "y", as_json=True)

    _, found, _ = json.loads(capsys.readouterr().out)["comparisons"]
    # Alone 2 / 2^6, which is below 5 %; of three pairs it is not.
    assert found["p_together"] == pytest.approx(3 * 2 / 2**6)
    assert found["verdict"].startswith("no difference in robust accuracy is shown")


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
