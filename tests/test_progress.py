"""What a run shows: lines that a log can keep, bars on a terminal, and names exactly as they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from planned import ODD, items
from rich.console import Console

from advbench import progress
from advbench.board.table import sections
from advbench.execute.local import Event
from advbench.plan import Job
from advbench.progress import Show, show_board, show_plan, span
from advbench.recipe import Training
from advbench.record import Accuracy, Flag, Record, Scores
from advbench.task import Data, Evaluation, ThreatModel


def console(terminal: bool = False, width: int = 100) -> Console:
    """As `advbench run` makes it, into a string."""
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        soft_wrap=not terminal,
        highlight=False,
        markup=False,
        emoji=False,
    )


def shown(made: Console) -> str:
    assert isinstance(made.file, io.StringIO)
    return made.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_spans_are_said_as_people_say_them(seconds, words):
    assert span(seconds) == words


def test_the_plan_counts_its_jobs_and_shares_their_time_among_workers():
    made = console()
    todo, cached = items(60, 60, 60, 60), items(5, label="e", cached=True)
    show_plan(made, [*todo, *cached], 2)

    assert "5 jobs: 4 to run, 1 cached; about 2 min 0 s with 2 workers" in shown(made)
    [row] = [line for line in shown(made).splitlines() if "│ d " in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["t", "d", "0 1 2 3", "run", "4 min 0 s"]


def test_the_longest_job_bounds_the_estimate_however_many_workers_there_are():
    made = console()
    show_plan(made, items(600, 1), 16)

    assert "about 10 min 0 s with 16 workers" in shown(made)


def test_a_reason_to_skip_is_one_whole_line_that_can_be_copied():
    made = console()
    reason = 'x is not there; get it with: python -c "' + "y" * 200 + '[0]"'
    show_plan(made, [*items(1, 1, skip=reason), *items(1, label="e", skip=reason), *items(1, label="f")], 1)

    assert f"skipped t (d, e): {reason}" in shown(made).splitlines()
    assert "4 jobs: 1 to run, 3 skipped; about 1 s with 1 worker" in shown(made)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_errors_are_shown_as_they_are(terminal):
    made = console(terminal)
    [item] = items(1, label=ODD)
    show_plan(made, [item], 1)
    with Show(made, [item], 1) as show:
        show(Event(item, "start"))
        show(Event(item, "train", 1, 2, ODD))
        if terminal:
            show.progress.refresh()
        show(Event(item, "failed", words=f"no {ODD}", seconds=3))

    assert f"FAILED t/{ODD}-s0  no {ODD}  [1/1, 3 s]" in shown(made)
    assert f"│ {ODD} │" in shown(made), "in the plan"
    if terminal:
        assert f"train: epoch 1/2 {ODD}" in shown(made), "beside its bar"


def test_a_log_gets_a_line_at_the_start_at_the_end_and_now_and_then(clock):
    made = console()
    first, second = items(100, 100)
    with Show(made, [first, second], 1) as show:
        show(Event(first, "start"))
        for step in range(40):
            clock[0] += 1
            show(Event(first, "train", step + 1, 80, "clean 0.9"))
        show(Event(first, "ok", words="robust 50.0%", seconds=40))

    lines = shown(made).splitlines()
    assert lines[0] == "start  t/d-s0"
    assert lines[-1] == "done   t/d-s0  robust 50.0%  [1/2, 40 s]"
    told = [line for line in lines if line.startswith("  ...  t/d-s0  train: epoch ")]
    assert len(told) == len(lines) - 2 == 2, "every 15 seconds"
    assert told[0].startswith("  ...  t/d-s0  train: epoch 16/80 clean 0.9 (")


def test_the_time_left_follows_how_the_estimates_did(clock):
    first, second = items(100, 100)
    show = Show(console(), [first, second], 1)
    assert show.eta() == "", "nothing is known yet"
    show(Event(first, "start"))
    clock[0] += 50
    show(Event(first, "evaluate", 0, 10))  # half of it: 50 of 200 planned seconds took 50
    assert show.eta() == "2 min 30 s left"
    clock[0] += 150
    show(Event(first, "ok"))  # 100 of 200 took 200, and 10 more count as they were planned: 100 * 210 / 110
    assert show.eta() == "3 min 11 s left"


def test_a_study_is_as_far_as_it_says():
    [study] = items(100)
    show = Show(console(), [study], 1)
    show(Event(study, "start"))
    show(Event(study, "study", 1, 4))
    assert show.left == {study.path: 75}
    show(Event(study, "study", 4, 4))
    assert show.left == {study.path: 0}


def test_the_seconds_in_which_workers_start_are_not_taken_for_their_speed(clock):
    many = items(7, 7, 7)
    show = Show(console(), many, 2)
    show(Event(many[0], "start"))
    clock[0] += 16
    show(Event(many[0], "train", 1, 8))  # a sixteenth of a job

    # 16 seconds of two workers and 20 as planned, for 7/16 + 20 of planned work: 2.54 times as long.
    assert show.eta() == "26 s left"


def test_on_a_terminal_each_running_job_has_a_bar_until_it_ends():
    made = console(terminal=True)
    first, second = items(1, 1)
    with Show(made, [first, second], 2) as show:
        show(Event(first, "start"))
        show(Event(second, "start"))
        assert set(show.bars) == {"t/d-s0", "t/d-s1"}
        show(Event(first, "evaluate", 5, 10, "pgd"))
        bar = next(task for task in show.progress.tasks if task.id == show.bars["t/d-s0"])
        assert bar.completed == 0.75
        assert bar.fields["words"] == "evaluate: attack step 5/10 pgd"
        show(Event(first, "ok"))
        assert set(show.bars) == {"t/d-s1"}
        assert show.progress.tasks[0].completed == 1


@pytest.fixture
def record() -> Callable[..., Record]:
    """A record of the task `t`, half of whose test examples withstood everything."""
    job = Job(
        task="t",
        title=ODD,
        label="d",
        seed=0,
        data=Data(name="digits"),
        data_sha256="0",
        model={"name": "linear"},
        threat=ThreatModel.model_validate({"norm": "Linf", "eps": "1/10"}),
        training=Training(epochs=1, seeds=(0, 1)),
        evaluation=Evaluation(),
        defense={"name": "d", "file": None, "sha256": "0"},
        threads=1,
        accelerator=False,
    )
    half = Accuracy(accuracy=0.5, low=0.4, high=0.6, n=100, protocol="autoattack")
    values = {"schema": 1, "id": "0", "task": "t", "defense": "d", "label": "d", "job": job.plain(), "status": "ok"}

    def build(seed: int, robust: float = 0.5, **fields: Any) -> Record:
        scores = Scores(clean=half, robust=half.model_copy(update={"accuracy": robust}))
        return Record.model_validate({**values, "seed": seed, "scores": scores, **fields})

    return build


def test_the_board_shows_a_failed_seed_beside_the_others(record: Callable[..., Record]):
    made = console()
    [section] = sections([record(0), record(1, status="failed", scores=None, error="no")])
    show_board(made, section)

    assert "50.0% FAILED" in shown(made)
    assert shown(made).startswith(ODD)


def test_of_a_thousand_lines_a_plan_shows_the_tasks(monkeypatch: pytest.MonkeyPatch):
    made = console()
    many = [line for n in range(100) for line in items(60, 60, label=f"d{n}")]
    show_plan(made, [*many, *items(5, 5, label="e", cached=True)], 2)

    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown(made).splitlines() if "│" in line]
    assert rows == [["t", "100", "200", "run", "3 h 20 min"], ["t", "1", "2", "cached", ""]]
    assert "202 jobs: 200 to run, 2 cached" in shown(made)

    made = console()
    show_plan(made, [line for n in range(100) for line in items(60, task=f"t{n}")], 2)
    assert shown(made).count("│ run") == progress.LINES
    assert "... and 60 lines more" in shown(made)


def test_many_seeds_in_a_row_are_told_by_their_ends():
    made = console()
    show_plan(made, items(*[1.0] * 100), 2)

    assert "│ 0-99 " in shown(made)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ((0, 0), "measured now"),
        ((9, 9), "from 9 records"),
        ((1,), "from 1 record"),
        ((1, 4), "from 1 to 4 records"),
        ((0, 4), "partly from records"),
    ],
)
def test_a_plan_says_where_its_estimate_comes_from(records, words):
    made = console()
    show_plan(made, [items(1, records=count)[0] for count in records], 1)

    assert f"with 1 worker ({words})" in shown(made)


def test_the_board_marks_a_collapsed_seed_and_the_mean_that_holds_it(record: Callable[..., Record]):
    made = console()
    collapsed = Flag(name="catastrophic-overfitting", message="...")
    [section] = sections([record(0), record(1, 0.02, flags=(collapsed,)), record(2)])
    show_board(made, section)

    [row] = [line for line in shown(made).splitlines() if "│ d " in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["d", "50.0%", "34.0%†", "50.0% 2.0%† 50.0%", "", "1 of 3 collapsed"]


def test_on_80_columns_three_seeds_stay_in_one_line(record: Callable[..., Record]):
    made = console(width=80)
    collapsed = Flag(name="catastrophic-overfitting", message="...")
    [section] = sections([record(seed, 0.02, flags=(collapsed,)) for seed in range(3)])
    show_board(made, section)

    lines = shown(made).splitlines()
    assert sum("│ 2.0%† 2.0%† 2.0%† │" in line for line in lines) == 1
    assert {len(line) for line in lines if line[:1] in "┏┃│└"} <= set(range(81))
    assert "robust: autoattack on 100 test examples" in lines
