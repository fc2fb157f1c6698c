"""The driver of a Ray cluster, on a Ray that only takes notes: what it makes of every word and every silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from noted_ray import RayError, job, told_of

from advbench import run as running
from advbench.execute import mirror
from advbench.execute.local import Ended, Event
from advbench.execute.ray import TICK, TRIES, WRECK, _Driver, _Try
from advbench.execute.wire import Done, Over, Piece, Refused, Said
from advbench.execute.worker import BEGUN
from advbench.spec import BadInput


def test_all_that_has_come_is_taken_at_once(ray_notes: SimpleNamespace, ray_driver, monkeypatch: pytest.MonkeyPatch):
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(_Driver, "_hear", lambda self, one, rank: heard.append((one.item.label, rank)))
    driver = ray_driver()
    one, other, gone = _Try(job("a")), _Try(job("b")), _Try(job("c"))
    streams = [iter([]) for _ in range(3)]
    one.streams, other.streams = {0: streams[0], 1: streams[1]}, {0: streams[2]}
    gone.streams, gone.until = {0: iter([])}, 99.0
    gone.end = Over("")
    over: list[str] = []
    monkeypatch.setattr(_Driver, "_over", lambda self, ended: over.append(ended.item.label))
    driver.tries = [one, other, gone]
    driver._listen()
    assert (heard, over) == ([], ["c"])
    assert ray_notes.waits == [(4, 1, TICK)]  # with nothing there, one wait
    ray_notes.ready, ray_notes.waits[:] = streams[1:], []
    driver._listen()
    assert heard == [("a", 1), ("b", 0)]
    assert ray_notes.waits == [(4, 1, TICK), (4, 4, 0)]


def news(*words: Any) -> Iterator[Any]:
    for word in words:
        if isinstance(word, Exception):
            raise word
        yield word


def test_a_stream_that_ends_is_one_less_and_one_that_breaks_is_a_lost_node(ray_notes: SimpleNamespace, ray_driver):
    driver, one = ray_driver(), _Try(job())
    one.streams = {0: news(Over("why")), 1: news(), 2: news(RayError("trace\nnode died")), 3: news(RayError("later"))}
    for rank in range(3):
        driver._hear(one, rank)
    assert one.end == Over("why")
    assert list(one.streams) == [0, 3]
    assert one.lost == "its node was lost: RayError: node died"
    assert one.until == 100 + WRECK
    ray_notes.now = 105.0
    driver._hear(one, 3)
    assert (one.lost, one.until) == ("its node was lost: RayError: node died", 100 + WRECK)


def test_what_the_first_process_says_is_told_and_what_all_write_is_taken_home(
    ray_notes: SimpleNamespace, ray_driver, events: list[Event], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    taken: list[Any] = []
    monkeypatch.setattr(mirror, "take", lambda *told: taken.append(told))
    driver, one = ray_driver(), _Try(job())
    for now, word in ((100.0, "note"), (101.0, BEGUN), (104.0, BEGUN), (105.0, "train")):
        ray_notes.now = now
        driver._take(one, 0, Said(word, 1, 2, "w"))
        driver._take(one, 1, Said(word, 3, 4, "of another"))
    assert told_of(events) == [
        *(("d", "note", 1, 2, "w", 0.0), ("d", "start", 0, 0, "", 0), ("d", "train", 1, 2, "w", 4.0)),
    ]
    assert one.began == 101.0
    piece = Piece("x", b"x", grows=False)
    driver._take(one, 1, piece)
    assert taken == [(tmp_path, piece)]
    with pytest.raises(BadInput, match="the disk is full"):
        driver._take(one, 1, Refused("the disk is full"))
    for end in (Over("why"), Done("ok", "", b"", None)):
        driver._take(one, 1, end)  # of another's end the first one hears
        assert (one.end, one.until) == (None, float("inf"))


@pytest.mark.parametrize("end", [Over("why"), Done("ok", "", b"", None)])
def test_when_the_first_process_ends_the_others_have_some_seconds(
    ray_notes: SimpleNamespace, ray_driver, end: Over | Done
):
    driver, one = ray_driver(), _Try(job())
    driver._take(one, 0, end)
    assert (one.end, one.until, one.lost) == (end, 100 + WRECK, "")
    ray_notes.now = 105.0
    driver._take(one, 1, Over("killed", again=True))
    driver._take(one, 1, Over("killed again", again=True))
    assert (one.end, one.until, one.lost) == (end, 100 + WRECK, "killed")


@pytest.mark.parametrize(("first", "then"), [("limit", ("", "took too long")), ("killed", ("killed", ""))])
def test_of_a_process_that_was_killed_and_one_that_took_too_much_the_first_is_the_cause(
    ray_notes: SimpleNamespace, ray_driver, first: str, then: tuple[str, str]
):
    driver, one = ray_driver(), _Try(job(), streams={3: news(RayError("node died"))})
    ends = [Over("took too long", limit=True), Over("killed", again=True), Over("more", limit=True)]
    for rank, end in enumerate(ends if first == "limit" else reversed(ends[:2]), start=1):
        driver._take(one, rank, end)
        ray_notes.now += 1
    driver._hear(one, 3)
    assert (one.lost, one.limit) == then
    assert (one.end, one.until) == (None, 100 + WRECK)


LOST = "its node was lost"


def endings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words with which tries will end."""
    found: list[str] = []
    monkeypatch.setattr(_Driver, "_done", lambda self, one, end: found.append("done"))
    monkeypatch.setattr(_Driver, "_failed", lambda self, one, why: found.append(f"failed: {why}"))
    return found


@pytest.mark.parametrize(
    ("end", "lost", "number", "leaving", "then"),
    [
        (Done("ok", "w", b"", None), "", 1, False, "done"),
        (Done("ok", "w", b"", None), LOST, 1, False, "done"),
        (Done("ok", "w", b"", None), "", 1, True, "done"),
        (Done("failed", "w", b"", None), "", 1, False, "done"),
        (Done("failed", "w", b"", None), LOST, 1, False, f"{LOST}; going on, try 2 of 4"),
        (None, "", 1, True, ""),
        (Over("exit code 1"), "", 1, True, ""),
        (Over("exit code 1"), "", 1, False, "failed: exit code 1"),
        (Over("exit code 1"), LOST, 2, False, f"{LOST}; going on, try 3 of 4"),
        (Over(""), "", 1, False, "it was asked to end; going on, try 2 of 4"),
        (None, LOST, TRIES - 1, False, f"{LOST}; going on, try 4 of 4"),
        (None, LOST, TRIES, False, f"failed: {LOST} (4 times)"),
        (None, "", TRIES, False, "failed: it was asked to end (4 times)"),
    ],
)
def test_how_a_try_ends(
    ray_notes: SimpleNamespace,
    ray_driver,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
    end,
    lost,
    number,
    leaving,
    then,
):
    found = endings(monkeypatch)
    driver = ray_driver()
    ray_notes.done.clear()
    one, waiting = _Try(job(), number, streams={1: "left"}, end=end, lost=lost, began=90.0), _Try(job("waits"))
    driver.tries, driver.queue, driver.leaving = [one], [waiting], leaving
    driver._over(one)

    assert TRIES == 4
    assert driver.tries == []
    assert ray_notes.done == [("cancel", "left", True)]
    again = "going on" in then
    assert found == ([] if again or not then else [then])
    assert told_of(events) == ([("d", "note", 0, 0, then, 0)] if again else [])
    assert driver.queue == ([_Try(job(), number + 1, began=90.0)] if again else []) + [waiting]


@pytest.mark.parametrize(
    ("end", "leaving", "then"),
    [
        (Done("failed", "another process ended without a word", b"", None), False, ["failed: took too long"]),
        (Over("exit code 1"), False, ["failed: took too long"]),
        (None, False, ["failed: took too long"]),
        (None, True, []),
        (Done("ok", "w", b"", None), False, ["done"]),
    ],
)
def test_what_a_process_took_too_much_of_is_said_whatever_the_first_one_made_of_its_end(
    ray_driver, monkeypatch: pytest.MonkeyPatch, end: Done | Over | None, leaving: bool, then: list[str]
):
    found = endings(monkeypatch)
    driver = ray_driver()
    one = _Try(job(), end=end, limit="took too long")
    driver.tries, driver.leaving = [one], leaving
    driver._over(one)
    assert found == then
    assert driver.queue == []


def test_a_record_comes_home_with_what_lies_beside_it(
    ray_notes: SimpleNamespace, ray_driver, events: list[Event], lay_record, tmp_path: Path
):
    import numpy as np

    there = lay_record(tmp_path / "there", "d", 0, np.ones(4, bool))
    beside = {"examples.parquet": (there / "examples.parquet").read_bytes()}
    record = (there / "record.json").read_bytes()
    driver, one = ray_driver(), _Try(job(), began=90.0)
    home = tmp_path / "records" / "t" / "d-s0"
    driver._done(one, Done("ok", "clean 95.0%", record, None))
    assert not home.exists()  # it was written there
    driver._done(one, Done("ok", "clean 95.0%", record, beside))
    assert {file.name: file.read_bytes() for file in home.iterdir()} == beside | {"record.json": record}
    assert driver.ended == [Ended("t/d-s0", "ok", "")] * 2
    assert told_of(events) == [("d", "ok", 0, 0, "clean 95.0%", 10.0)] * 2


def test_a_job_that_fails_has_its_record_here(
    ray_notes: SimpleNamespace,
    ray_driver,
    events: list[Event],
    make_job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    told: list[Any] = []
    monkeypatch.setattr(running, "failed", lambda *made: (told.append(made), SimpleNamespace(reason="r"))[1])
    driver, item = ray_driver(), job(job=make_job())
    driver._failed(_Try(item), "took too long")
    assert told == [(item.job, tmp_path, "took too long")]
    assert driver.ended == [Ended("t/d-s0", "failed", "r")]
    assert told_of(events) == [("d", "failed", 0, 0, "r", 0.0)]
