"""What a run shows while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from advbench.board import studies
from advbench.board.rows import MARK
from advbench.board.studies import Studied
from advbench.board.table import Section
from advbench.execute.local import Event
from advbench.experiment import Experiment
from advbench.plan import Item

LINES = 40
"""Of a plan; more of them nobody reads."""
PRIOR_SECONDS = 10
"""How much work of each worker the estimates count for: the first seconds, when they start, say little of the speed."""
WHOLE = 3
"""So many seeds stay in one line of a standing, on 80 columns too; their notes are wrapped instead."""
PLAIN_SECONDS = 15
"""How often a plain log says where a job stands."""


def span(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def show_plan(console: Console, items: Sequence[Item], workers: int) -> None:
    """The plan as a table: a line per defense of a task, with what will happen to its seeds and why.

    Where that is more than a person reads, a line per task.
    """
    by_defense = _grouped(items, lambda item: (item.task, item.label, item.state))
    by_task = _grouped(items, lambda item: (item.task, item.state))
    table = Table(title="Plan", title_justify="left")
    names = ("task", "defense", "seeds") if len(by_defense) <= LINES else ("task", "defenses", "jobs")
    for column in (*names, "state", "estimate"):
        table.add_column(column, justify="right" if column == "estimate" else "left", overflow="fold")
    if len(by_defense) <= LINES:
        for (task, label, state), members in by_defense.items():
            table.add_row(task, label, _numbers([item.seed for item in members]), state, _cost(members, state))
    else:
        for (task, state), members in list(by_task.items())[:LINES]:
            labels = len({item.label for item in members})
            table.add_row(task, str(labels), str(len(members)), state, _cost(members, state))
    console.print(table)
    if len(by_defense) > LINES and len(by_task) > LINES:
        console.print(f"... and {len(by_task) - LINES} lines more")
    show_skipped(console, items)
    todo = [item for item in items if item.state == "run"]
    counts = [(len(todo), "to run"), (sum(item.cached for item in items), "cached")]
    counts.append((sum(item.state == "skip" for item in items), "skipped"))
    line = f"{len(items)} job{'s' if len(items) > 1 else ''}: " + ", ".join(f"{n} {word}" for n, word in counts if n)
    if todo:
        line += f"; about {span(wall(todo, workers))} with {workers} worker{'s' if workers > 1 else ''} ({basis(todo)})"
    console.print(line)


def wall(todo: Sequence[Item], workers: int) -> float:
    """Seconds until `todo` is done: its sum shared among the workers, but no less than its longest job."""
    return max(sum(item.seconds for item in todo) / workers, max((item.seconds for item in todo), default=0))


def basis(todo: Sequence[Item]) -> str:
    """Where the estimates of these jobs come from."""
    if all(isinstance(item.job, Experiment) for item in todo):
        return "as their studies say"
    counts = {item.records for item in todo}
    if 0 in counts:
        return "measured now" if len(counts) == 1 else "partly from records"
    few, many = min(counts), max(counts)
    return f"from {few if few == many else f'{few} to {many}'} record{'s' if many > 1 else ''}"


def _grouped(items: Sequence[Item], key: Callable[[Item], tuple[str, ...]]) -> dict[tuple[str, ...], list[Item]]:
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _cost(members: Sequence[Item], state: str) -> str:
    return span(sum(item.seconds for item in members)) if state == "run" else ""


def _numbers(seeds: Sequence[int]) -> str:
    """`0 1 2`, or of many in a row the ends: `0-99`."""
    whole = len(seeds) > 6 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}-{seeds[-1]}" if whole else " ".join(map(str, seeds))


def show_skipped(console: Console, items: Sequence[Item]) -> None:
    """A line for each reason to skip; not in the table, which would break a command that a person wants to copy."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in items:
        if item.state == "skip":
            labels = groups.setdefault((item.task, item.skip), [])
            if item.label not in labels:
                labels.append(item.label)
    for (task, reason), labels in groups.items():
        console.print(f"skipped {task} ({', '.join(labels)}): {reason}", soft_wrap=True)


def show_board(console: Console, section: Section) -> None:
    """A task's standing as a table; a number that needs its notes is marked as on the pages, which say more."""
    # What robust means stands above the table: in its head it would take the room of the seeds.
    title = f"{section.title}: {section.setting}\nrobust: {section.protocol}"
    table = Table(title=title, title_justify="left")
    seeds = [
        " ".join("FAILED" if r.failed else _percent(r.robust.accuracy if r.robust else None, r.marked) for r in g.rows)
        for g in section.groups
    ]
    for column in ("defense", "clean", "robust", "seeds", "training", "notes"):
        table.add_column(column, justify="right" if column in ("clean", "training") else "left", overflow="fold")
    table.columns[3].no_wrap = all(len(group.rows) <= WHOLE for group in section.groups)
    for group, each in zip(section.groups, seeds, strict=True):
        cost = span(group.train_seconds) if group.train_seconds else ""
        notes = "; ".join(note.text for note in group.notes)
        table.add_row(group.label, _percent(group.clean), _percent(group.robust, group.marked), each, cost, notes)
    console.print(table)


def show_claims(console: Console, studied: Sequence[Studied]) -> None:
    """The claims of each study, and how they did."""
    for study in studied:
        table = Table(title=f"{study.title}: {len(study.seeds)} seeds", title_justify="left")
        for column in ("claim", "required", "found", "verdict"):
            table.add_column(column, justify="right" if column == "found" else "left")
        for one in study.judged:
            table.add_row(one.claim.statement, studies.required(one), studies.number(one.found), one.verdict)
        console.print(table)


def _percent(share: float | None, marked: bool = False) -> str:
    return "" if share is None else f"{share:.1%}{MARK if marked else ''}"


def _plain(text: str) -> TextColumn:
    return TextColumn(text, markup=False)


class Show:
    """Receives every Event of a run; a context manager around it."""

    def __init__(self, console: Console, items: Sequence[Item], workers: int) -> None:
        self.console = console
        self.live = console.is_terminal
        self.left = {item.path: item.seconds for item in items}
        self.planned = sum(self.left.values())
        self.workers = workers
        self.started = time.monotonic()
        self.said: dict[str, float] = {}
        self.ended = 0
        self.count = len(items)
        self.bars: dict[str, TaskID] = {}
        columns = (_plain("{task.description}"), BarColumn(), _plain("{task.fields[words]}"))
        self.progress = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Self:
        if self.live:
            self.progress.start()
            self.all = self.progress.add_task("all jobs", total=self.planned or 1, words="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.live:
            self.progress.stop()

    def eta(self) -> str:
        """Time left by the estimates, corrected by how they did so far; empty until something is known."""
        remaining = sum(self.left.values())
        finished = self.planned - remaining
        elapsed = time.monotonic() - self.started
        if finished <= 0.02 * self.planned or elapsed < 3:
            return ""
        workers = max(1, min(self.workers, self.count))
        prior = PRIOR_SECONDS * workers
        slower = (elapsed * workers + prior) / (finished + prior)
        return f"{span(remaining / workers * slower)} left"

    def __call__(self, event: Event) -> None:
        path = event.item.path
        match event.stage:
            case "start":
                self._begin(path)
            case "ok" | "failed":
                self._end(event, path)
            case "note":
                self.console.print(f"note   {path}  {event.words}", highlight=False, markup=False, soft_wrap=True)
            case _:
                self._move(event, path)

    def _begin(self, path: str) -> None:
        self.said[path] = time.monotonic()
        if self.live:
            self.bars[path] = self.progress.add_task(path, total=None, words="starting")
        else:
            self.console.print(f"start  {path}", highlight=False, markup=False)

    def _end(self, event: Event, path: str) -> None:
        self.left[path] = 0
        self.ended += 1
        word = "done  " if event.stage == "ok" else "FAILED"
        if path in self.bars:
            self.progress.remove_task(self.bars.pop(path))
            self.progress.update(self.all, completed=self.planned - sum(self.left.values()), words=self.eta())
        line = f"{word} {path}  {event.words}  [{self.ended}/{self.count}, {span(event.seconds)}]"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _move(self, event: Event, path: str) -> None:
        # Training and evaluation are taken as halves of a job: rough, but it moves, and the next end corrects it.
        begun, part = {"train": (0.0, 0.5), "evaluate": (0.5, 0.5), "study": (0.0, 1.0)}.get(event.stage, (1.0, 0.0))
        share = min(begun + part * event.done / max(event.total, 1), 1.0)
        self.left[path] = event.item.seconds * (1 - share)
        unit = {"train": "epoch", "evaluate": "attack step", "study": "part"}.get(event.stage, "collector")
        words = f"{event.stage}: {unit} {event.done}/{event.total} {event.words}"
        if path in self.bars:
            self.progress.update(self.bars[path], total=1.0, completed=share, words=words)
            self.progress.update(self.all, completed=self.planned - sum(self.left.values()), words=self.eta())
        elif time.monotonic() - self.said[path] > PLAIN_SECONDS:
            self.said[path] = time.monotonic()
            tail = f" ({self.eta()})" if self.eta() else ""
            self.console.print(f"  ...  {path}  {words}{tail}", highlight=False, markup=False, soft_wrap=True)
