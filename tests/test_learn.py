"""Estimates learned from records are nearer to the truth than guesses, and need no measuring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench import machine
from advbench.index import Cost, Entry, Index, canonical, engine, protocol
from advbench.learn import Learned, priced
from advbench.plan import Item, Job, record_folder
from advbench.record import Record, save
from advbench.resolve import resolve

TRAIN, ATTACK = 3e-3, 2e-3
"""Seconds of a pass on the machine that the test makes up, far from any guess."""


@pytest.fixture
def lines(tmp_path: Path, tiny: Callable[..., Path]) -> list[Item]:
    path = tiny(
        tmp_path,
        "t",
        ("seeds = [0]", "seeds = 3"),
        more='[[defense]]\nname = "pgd-at"\n[[defense]]\nname = "fast-at"\n',
    )
    return resolve(path, tmp_path / "data", {}).items


def lay(results: Path, item: Item, per_example: float, memory: int = 0, collected: float = 0, **changes: Any) -> float:
    """A record as that machine would leave it; the seconds that the job took but for what it `collected`."""
    job, work = item.job, item.work
    assert job is not None
    assert work is not None
    train, attack = round(work.train), round(per_example * work.test)
    cost = {"train_seconds": train * TRAIN, "train_forward": train, "eval_seconds": attack * ATTACK, "forward": attack}
    cost |= {"peak_memory_bytes": memory, "collect_seconds": collected}
    accuracy = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": work.test}
    provenance = {"device": machine.cpu(), "threads": 1, **changes}
    record = Record.model_validate(
        {"id": job.id, "task": job.task, "defense": job.defense["name"], "label": job.label, "seed": job.seed}
        | {"status": "ok", "job": job.plain(), "scores": {"clean": accuracy}, "cost": cost, "provenance": provenance}
    )
    save(record, record_folder(results, job.path))
    return cost["train_seconds"] + cost["eval_seconds"] + work.validation * ATTACK


def collecting(item: Item, table: dict[str, Any] | None) -> Item:
    """The line with these collectors."""
    assert item.job is not None
    return item.model_copy(update={"job": item.job.model_copy(update={"collect": table})})


def learned(results: Path) -> Learned:
    return Learned((entry for _, entry in Index(results).all()), machine.cpu())


def of(lines: list[Item], label: str) -> list[Item]:
    return [line for line in lines if line.label == label]


def test_a_learned_estimate_is_nearer_to_the_truth_than_the_guess(tmp_path: Path, lines):
    seen, *others = of(lines, "pgd-at")
    truth = lay(tmp_path, seen, per_example=700)
    after = priced(others, learned(tmp_path))

    for guess, told in zip(others, after, strict=True):
        assert abs(told.seconds - truth) < 0.01 * truth < abs(guess.seconds - truth)
        assert (guess.records, told.records) == (0, 1)


def test_what_collectors_took_is_learned_from_the_same_ones_and_else_guessed(tmp_path: Path, lines):
    table = {"margins": {"examples": 7}}
    one, two, three = (collecting(line, table) for line in of(lines, "pgd-at"))
    truth = lay(tmp_path, one, per_example=700, collected=11.0)
    lay(tmp_path, collecting(of(lines, "fast-at")[0], table), per_example=700, collected=1_000.0)

    # Its own defense's first; another one's where it has none; and what others collect says nothing.
    standard = of(lines, "standard")[0]
    plain, asked, other, none = (
        told.seconds
        for told in priced(
            [collecting(standard, None), collecting(standard, table), two, collecting(three, None)], learned(tmp_path)
        )
    )
    assert other == pytest.approx(truth + 11, rel=1e-3)
    assert none == pytest.approx(truth, rel=1e-3)
    assert asked - plain == pytest.approx((11 + 1_000) / 2)
    assert two.work is not None
    work = two.work.model_copy(update={"collect": 5_000.0})
    [guessed] = priced([collecting(two, {"fosc": {}}).model_copy(update={"work": work})], learned(tmp_path))
    assert guessed.seconds == pytest.approx(truth + 5_000 * ATTACK, rel=1e-3)


def test_a_defense_of_the_same_kind_says_how_many_passes_an_attack_takes(tmp_path: Path, lines):
    lay(tmp_path, of(lines, "pgd-at")[0], per_example=700)
    lay(tmp_path, of(lines, "standard")[0], per_example=50)
    after = {line.label: line for line in priced(lines, learned(tmp_path))}

    work = after["fast-at"].work
    assert work is not None
    assert after["fast-at"].seconds == pytest.approx(
        work.train * TRAIN + (700 * work.test + work.validation) * ATTACK, rel=1e-3
    )
    assert after["standard"].seconds < after["fast-at"].seconds / 5
    assert (after["standard"].records, after["fast-at"].records) == (1, 2)


def test_memory_is_the_largest_peak_of_the_same_defense(tmp_path: Path, lines):
    for seed, memory in enumerate((5_000, 7_000)):
        lay(tmp_path, of(lines, "pgd-at")[seed], per_example=700, memory=memory)
    lay(tmp_path, of(lines, "standard")[0], per_example=50)  # which did not say
    after = priced(lines, learned(tmp_path))

    told = {line.label: line.memory for line in after}
    assert told == {"standard": None, "pgd-at": 7_000, "fast-at": None}


@pytest.mark.parametrize("change", [{"device": "another"}, {"threads": 2}])
def test_another_machine_s_records_teach_nothing(tmp_path: Path, lines, change):
    lay(tmp_path, lines[0], per_example=700, **change)

    assert priced(lines, learned(tmp_path)) == lines


def test_another_model_s_or_other_data_s_records_teach_nothing(tmp_path: Path, lines):
    lay(tmp_path, lines[0], per_example=700)
    for update in ({"model": {"name": "mlp"}}, {"data_sha256": "other"}):
        line = lines[1].model_copy(update={"job": lines[1].job.model_copy(update=update)})
        assert priced([line], learned(tmp_path)) == [line]


def test_with_other_attacks_only_the_speed_is_learned(tmp_path: Path, lines):
    lay(tmp_path, lines[0], per_example=700)
    job = lines[1].job
    more = job.evaluation.model_copy(update={"alone": 3})
    line = lines[1].model_copy(update={"job": job.model_copy(update={"evaluation": more})})
    [told] = priced([line], learned(tmp_path))

    assert line.work is not None
    assert told.seconds == pytest.approx(
        line.work.train * TRAIN + (line.work.attack + line.work.validation) * ATTACK, rel=1e-3
    )


def test_where_there_are_records_nothing_is_measured(tmp_path: Path, lines, monkeypatch):
    for line in lines[:3]:
        lay(tmp_path, line, per_example=700)
    monkeypatch.setattr("advbench.resolve.rate", lambda *_: pytest.fail("measured"))

    found = resolve(tmp_path / "t.toml", tmp_path / "data", {}, learned(tmp_path)).items
    assert [line.seconds > 0 and line.records == 3 for line in found] == [True] * len(found)


def test_a_pass_in_another_number_format_is_believed_only_where_there_is_no_better(tmp_path: Path, lines):
    lay(tmp_path, lines[0], per_example=700)
    job = lines[1].job
    other = {"training": job.training.model_copy(update={"batch": 7})}
    line = lines[1].model_copy(update={"job": job.model_copy(update=other)})
    [before] = priced([line], learned(tmp_path))

    file = record_folder(tmp_path, line.path) / "record.json"
    lay(tmp_path, line, per_example=700)
    file.write_text(file.read_text().replace(f'"train_seconds": {line.work.train * TRAIN}', '"train_seconds": 1e6'))
    [after] = priced([line], learned(tmp_path))

    assert before.records == after.records == 1
    assert after.seconds > 1e6 > before.seconds


def test_the_likest_jobs_there_are_say_how_many_passes_an_attack_takes(lines: list[Item]):
    """Same defense, evaluation and threat; then the same kind; then other threats; then nobody."""
    [item, *_] = of(lines, "pgd-at")
    job, work = item.job, item.work
    assert isinstance(job, Job)
    assert work is not None
    evaluation, threat = protocol(job.evaluation.plain()), canonical(job.threat.plain())
    common = {"model": canonical(job.model), "data": job.data_sha256, "device": "here", "threads": 1}
    common |= {"engine": engine(job.training.plain()), "train_seconds": 1.0, "train_passes": 1, "eval_seconds": 1.0}
    common |= {"test": 1, "collect": "null", "collect_seconds": 0, "memory": 0}

    def seconds(*costs: tuple[str, str, str, int]) -> float:
        """Of `pgd-at`, after records of (defense, evaluation, threat, passes of an example)."""
        names = ("defense", "evaluation", "threat", "eval_passes")
        made = [Cost(**common, **dict(zip(names, one, strict=True))) for one in costs]  # type: ignore[arg-type]
        known = Learned((Entry("1", True, True, cost) for cost in made), "here", kinds=KINDS)
        found = known.seconds(job, work)
        assert found
        # A pass of the attack takes what it took per pass there, by all records of this defense or else by all.
        own = [cost for cost in made if cost.defense == "pgd-at"] or made
        assert found[1] == len(own)
        pace = sum(cost.eval_seconds for cost in own) / sum(cost.eval_passes for cost in own)
        return ((found[0] - work.train) / pace - work.validation) / work.test

    likest = [
        ("pgd-at", evaluation, threat, 50),
        ("fast-at", evaluation, threat, 40),
        ("pgd-at", evaluation, "other", 30),
        ("fast-at", evaluation, "other", 20),
    ]
    for first, (*_, passes) in enumerate(likest):
        unlike = [("standard", evaluation, threat, 7), ("pgd-at", "other", threat, 9)]
        assert seconds(*likest[first:], *unlike) == pytest.approx(passes)
    assert seconds(("standard", evaluation, threat, 7)) == pytest.approx(work.attack / work.test)


KINDS = {"fast-at": True, "standard": False}


def test_records_that_count_nothing_teach_nothing(lines: list[Item]):
    assert Learned([Entry("1", True, True), Entry("2", False, True)], "here").groups == {}


def test_the_kinds_of_all_lines_are_known_before_the_first_is_asked(tmp_path: Path, lines):
    lay(tmp_path, of(lines, "pgd-at")[0], per_example=700)
    lay(tmp_path, of(lines, "standard")[0], per_example=50)
    fast, pgd, standard = (of(lines, label)[1] for label in ("fast-at", "pgd-at", "standard"))

    one, other = (priced(order, learned(tmp_path)) for order in ([fast, pgd, standard], [standard, pgd, fast]))
    assert one == other[::-1]
    assert isinstance(fast.job, Job)
    assert fast.work is not None
    asked = Learned((entry for _, entry in Index(tmp_path).all()), machine.cpu(), kinds={"pgd-at": True})
    found = asked.seconds(fast.job, fast.work)
    assert found
    assert (found[0], found[1]) == (one[0].seconds, one[0].records)


def test_a_line_without_a_job_or_without_work_keeps_its_price(tmp_path: Path, lines):
    lay(tmp_path, lines[0], per_example=700)
    for update in ({"job": None}, {"work": None}):
        line = lines[1].model_copy(update=update)
        assert priced([line], learned(tmp_path)) == [line]
