"""What a run shows, to the letter: plans, skipped lines, claims, and lines of a log that rich must not touch."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from planned import ODD, items
from rich.console import Console
from rich.progress import ProgressColumn, TextColumn

from advbench import progress
from advbench.execute.local import Event
from advbench.experiment import Experiment
from advbench.progress import Show, basis, show_board, show_claims, show_plan, show_skipped, wall


def console(width: int = 100, **more: Any) -> Console:
    told: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, **more}
    return Console(file=io.StringIO(), width=width, **told)


def shown(made: Console) -> list[str]:
    assert isinstance(made.file, io.StringIO)
    return [line.rstrip() for line in made.file.getvalue().splitlines()]


def test_a_plan_to_the_letter():
    made = console()
    show_plan(made, [*items(60, 60, 60), *items(9, label="e", cached=True)], 2)

    assert shown(made) == [
        "Plan",
        "┏━━━━━━┳━━━━━━━━━┳━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━┓",
        "┃ task ┃ defense ┃ seeds ┃ state  ┃  estimate ┃",
        "┡━━━━━━╇━━━━━━━━━╇━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━┩",
        "│ t    │ d       │ 0 1 2 │ run    │ 3 min 0 s │",
        "│ t    │ e       │ 0     │ cached │           │",
        "└──────┴─────────┴───────┴────────┴───────────┘",
        "4 jobs: 3 to run, 1 cached; about 1 min 30 s with 2 workers (measured now)",
    ]


@pytest.mark.parametrize(("defenses", "tasks", "head", "rows", "more"), [
    (2, 1, "seeds", 2, None),
    (3, 1, "jobs", 1, None),
    (3, 2, "jobs", 2, None),
    (3, 3, "jobs", 2, "... and 1 lines more"),
])  # fmt: skip
def test_a_plan_of_more_lines_than_a_person_reads_is_told_by_task(monkeypatch, defenses, tasks, head, rows, more):
    monkeypatch.setattr(progress, "LINES", 2)
    made = console()
    show_plan(made, [line for n in range(defenses) for line in items(1, label=f"d{n}", task=f"t{n % tasks}")], 1)

    lines = shown(made)
    assert (f"┃ {head}" in lines[2], sum(line.startswith("│") for line in lines)) == (True, rows)
    assert [line for line in lines if line.startswith("...")] == ([more] if more else [])


def test_a_long_name_is_folded_and_never_cut():
    made = console(40)
    show_plan(made, items(1, label="x" * 50, task="y" * 50), 1)

    text = "".join(shown(made))
    assert (text.count("x"), text.count("y"), "…" in text) == (50, 50, False)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([0, 1, 2, 3, 4, 5], "0 1 2 3 4 5"),
        ([0, 1, 2, 3, 4, 5, 6], "0-6"),
        ([3, 4, 5, 6, 7, 8, 9], "3-9"),
        ([0, 1, 2, 3, 4, 5, 7], "0 1 2 3 4 5 7"),
    ],
)
def test_only_many_seeds_without_a_gap_are_told_by_their_ends(seeds: list[int], said: str):
    assert progress._numbers(seeds) == said


def test_estimates_come_from_studies_where_all_jobs_are_of_studies():
    [job] = items(1)
    study = job.model_copy(update={"job": Experiment.model_construct()})

    assert basis([study, study]) == "as their studies say"
    assert basis([study, job]) == "measured now"
    assert wall([], 3) == 0
    assert (wall(items(5, 1), 3), wall(items(5, 5, 5), 3), wall(items(5, 4), 1)) == (5, 5, 9)


def test_a_reason_to_skip_stays_one_line_on_a_terminal_and_names_each_defense_once():
    made = console(40, force_terminal=True)
    reason = "get it with: " + "y" * 60 + "[0]"
    show_skipped(made, [*items(1, 1, skip=reason), *items(1, label="e", skip=reason), *items(1, label="f")])

    assert shown(made) == [f"skipped t (d, e): {reason}"]


def test_a_standing_to_the_letter():
    def row(robust: float | None, *, marked: bool = False, failed: bool = False) -> Any:
        accuracy = None if robust is None else SimpleNamespace(accuracy=robust)
        return SimpleNamespace(failed=failed, robust=accuracy, marked=marked)

    def group(label: str, *rows: Any, **more: Any) -> Any:
        plain = {"train_seconds": 0, "notes": (), "clean": None, "robust": None, "marked": False}
        return SimpleNamespace(label=label, rows=rows, **plain | more)

    notes = (SimpleNamespace(text="1 of 3 collapsed"), SimpleNamespace(text="slow"))
    first = group("d", row(0.5), row(0.02, marked=True), clean=0.9, robust=0.26, marked=True, notes=notes)
    other = group("other", row(None, failed=True), train_seconds=90)
    section: Any = SimpleNamespace(title="T", setting="linear", protocol="pgd", groups=(first, other))
    made = console()
    show_board(made, section)

    assert shown(made) == [
        "T: linear",
        "robust: pgd",
        "┏━━━━━━━━━┳━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┓",
        "┃ defense ┃ clean ┃ robust ┃ seeds       ┃   training ┃ notes                  ┃",
        "┡━━━━━━━━━╇━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━┩",
        "│ d       │ 90.0% │ 26.0%† │ 50.0% 2.0%† │            │ 1 of 3 collapsed; slow │",
        "│ other   │       │        │ FAILED      │ 1 min 30 s │                        │",
        "└─────────┴───────┴────────┴─────────────┴────────────┴────────────────────────┘",
    ]
    many = group("m" * 30, *[row(0.5)] * 9, notes=notes)
    section.groups = (many,)
    made = console(60)
    show_board(made, section)
    text = "".join(shown(made))
    assert (text.count("50.0%"), text.count("m" * 5) > 0, "…" in text) == (9, True, False)
    for seeds, wrapped in ((3, False), (4, True)):
        section.groups = (group("d" * 20, *[row(0.5)] * seeds, notes=notes),)
        made = console(50)
        show_board(made, section)
        assert any(seeds * " 50.0%" in line for line in shown(made)) is not wrapped


def test_claims_to_the_letter():
    def one(statement: str, found: float | None, over: str, verdict: str) -> Any:
        claim = SimpleNamespace(statement=statement, sense="at least", required=0.25, over=over)
        return SimpleNamespace(claim=claim, found=found, verdict=verdict)

    judged = (one("It grows.", 1.23456, "mean", "holds"), one("It ends.", None, "every seed", "does not hold"))
    studied: Any = [SimpleNamespace(title="S", seeds=(0, 1), judged=judged)]
    made = console()
    show_claims(made, studied)

    assert shown(made) == [
        "S: 2 seeds",
        "┏━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━┓",
        "┃ claim     ┃ required                     ┃ found ┃ verdict       ┃",
        "┡━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━┩",
        "│ It grows. │ at least 0.25                │  1.23 │ holds         │",
        "│ It ends.  │ at least 0.25, in every seed │     – │ does not hold │",
        "└───────────┴──────────────────────────────┴───────┴───────────────┘",
    ]


def test_lines_of_a_log_stay_as_they_are_whatever_the_console_would_do(clock):
    made = Console(file=io.StringIO(), width=30, color_system="truecolor", emoji=False)
    [item] = items(100, label="long-name-of-12-letters")
    with Show(made, [item], 1) as show:
        show(Event(item, "start"))
        show(Event(item, "note", words=f"{ODD} 17 {'w ' * 30}end"))
        clock[0] += 16
        show(Event(item, "train", 1, 2, f"{ODD} 17 {'w ' * 30}end"))
        show(Event(item, "failed", words=f"{ODD} 17 {'w ' * 30}end", seconds=3))

    # A quarter of 100 s took 16, and 10 more count as they were planned: 75 * 26 / 35.
    words = f"{ODD} 17 {'w ' * 30}end"
    assert shown(made)[-3:] == [
        f"note   {item.path}  {words}",
        f"  ...  {item.path}  train: epoch 1/2 {words} (56 s left)",
        f"FAILED {item.path}  {words}  [1/1, 3 s]",
    ]


@pytest.mark.parametrize(
    ("done", "elapsed", "said"),
    [(2, 50, ""), (3, 50, "27 min 17 s left"), (50, 2.9, ""), (50, 3, "11 s left")],
)
def test_the_time_left_is_told_once_something_is_known(clock, done: int, elapsed: float, said: str):
    [study] = items(100)
    show = Show(console(), [study], 16)
    show(Event(study, "start"))
    clock[0] += elapsed
    show(Event(study, "study", done, 100))
    # Sixteen workers have one job among them: remaining * (elapsed + 10) / (finished + 10).
    remaining, finished = 100 - done, done
    assert show.eta() == (f"{progress.span(remaining * (elapsed + 10) / (finished + 10))} left" if said else "")


@pytest.mark.parametrize(
    ("stage", "done", "total", "share", "words"),
    [
        ("train", 1, 4, 0.125, "train: epoch 1/4 x"),
        ("train", 4, 4, 0.5, "train: epoch 4/4 x"),
        ("evaluate", 0, 0, 0.5, "evaluate: attack step 0/0 x"),
        ("evaluate", 9, 4, 1.0, "evaluate: attack step 9/4 x"),
        ("study", 1, 4, 0.25, "study: part 1/4 x"),
        ("collect", 1, 4, 1.0, "collect: collector 1/4 x"),
    ],
)
def test_a_bar_is_as_long_as_its_job_is_far(stage, done, total, share, words):
    [item] = items(8)
    made = console(force_terminal=True)
    with Show(made, [item], 1) as show:
        assert show.progress.tasks[0].description == "all jobs"
        assert (show.progress.tasks[0].total, show.progress.tasks[0].fields) == (8, {"words": ""})
        show(Event(item, "start"))
        bar = show.progress.tasks[1]
        assert (bar.description, bar.total, bar.fields["words"]) == (item.path, None, "starting")
        show(Event(item, stage, done, total, "x"))
        assert (bar.total, bar.completed, bar.fields["words"]) == (1.0, share, words)
        assert show.progress.tasks[0].completed == pytest.approx(8 * share)
        assert show.progress.live.transient
    assert not show.progress.live.is_started
    columns: list[ProgressColumn] = [c for c in show.progress.columns if not isinstance(c, str)]
    assert [c.markup for c in columns if isinstance(c, TextColumn)] == [False, False]


def test_a_plan_without_time_has_a_bar_too():
    with Show(console(force_terminal=True), items(0), 1) as show:
        assert show.progress.tasks[0].total == 1
