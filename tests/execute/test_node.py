"""What a node does with a job, on workers without processes: what it says, what it sends home, and what it leaves."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scripted import Scripted

from advbench import find
from advbench.data.base import Missing
from advbench.execute import node, ranks
from advbench.execute.torchrun import Place
from advbench.execute.wire import Done, Errand, Found, Meet, News, Over, Piece, Refused, Said, Told, versions
from advbench.plan import Item, record_folder, run_folder
from advbench.task import Data

MEET = Meet("10.0.0.1", 7)
OK = Said("ok", 0, 0, "clean 95.0%")


def told(results: Path, **fields: Any) -> Told:
    """The word of a driver whose folder this is."""
    (results / "runs").mkdir(parents=True, exist_ok=True)
    token = results / "runs" / ".ray.1.tmp"
    token.write_bytes(b"secret")
    given: dict[str, Any] = {"results": results, "root": results / "root", "device": "cpu", "token": token}
    given |= {"secret": b"secret", "versions": versions(), "environment": {}}
    return Told(**(given | fields))


def job(base: Path = Path(), **fields: Any) -> Item:
    return Item(task="t", label="d", seed=0, base=base, **fields)


def test_a_node_says_what_it_has_and_which_data_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def data_files(data: Data, root: Path) -> None:
        asked.append((data.name, root))
        if data.name == "gone":
            raise Missing("it is gone")

    monkeypatch.setattr(find, "data_files", data_files)
    data = {name: Data(name=name) for name in ("there", "gone")}
    assert node.probe(told(tmp_path), data) == Found(versions(), sees=True, lacking={"gone": "it is gone"})
    assert asked == [("there", tmp_path / "root"), ("gone", tmp_path / "root")]
    # With other versions nothing more is asked: the answer is no.
    other = told(tmp_path, versions={"torch": "9"}, secret=b"another")
    assert node.probe(other, data) == Found(versions(), sees=False)
    assert len(asked) == 2


def test_a_folder_is_the_driver_s_where_its_token_is_and_a_file_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = told(tmp_path)
    assert node.sees(home) is True
    assert [path.name for path in home.token.parent.iterdir()] == [home.token.name]
    assert node.sees(told(tmp_path, secret=b"another")) is False
    assert node.sees(told(tmp_path, token=tmp_path / "runs" / "none")) is False

    def full(self: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", full)
    assert node.sees(home) is False


def drained(news: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """All that it yields, and what it returns."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(news))
        except StopIteration as end:
            return found, end.value


class Hand(Scripted):
    """A worker that is stopped or not."""

    def stop(self) -> None:
        self.done.append("stop")


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[News], SimpleNamespace]]:
    """A function: told, errand, end, lays=... -> what `work` says, and what was seen.

    `lays` is called with the folder where the worker works.
    """
    seen = SimpleNamespace(worker=Hand(), serve=None, sent=None, item=None, results=None)
    monkeypatch.setattr(node, "_scratch", lambda: tmp_path / "scratch")
    monkeypatch.setattr(ranks, "free_place", lambda: MEET)
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(get=lambda ref: ref))

    def hand(results: Path, told: Told, serve: Any) -> Hand:
        seen.results, seen.serve = results, serve
        return seen.worker

    def run(
        told: Told, errand: Errand, end: Any, lays: Callable[[Path], Any] = lambda _: None
    ) -> tuple[list[News], SimpleNamespace]:
        def watched(worker: Hand, item: Item, told: Told, sent: Any) -> Generator[News, None, Any]:
            seen.item, seen.sent = item, sent
            yield Said("train", 1, 2, "")
            lays(seen.results)
            if isinstance(end, Exception):
                worker.item = item
                raise end
            return end

        monkeypatch.setattr(node, "_worker", hand)
        monkeypatch.setattr(node, "_watched", watched)
        return drained(node.work(told, errand))[0], seen

    return run


TRAIN = Said("train", 1, 2, "")


def test_where_the_driver_s_folder_is_the_worker_works_there_and_stays(tmp_path: Path, works, lay_record):
    stands = np.ones(4, bool)
    lays = lambda results: lay_record(results, "d", 0, stands)  # noqa: E731
    news, seen = works(told(tmp_path / "home"), Errand(job(), {}, [{"runs/x": b"not needed"}]), OK, lays)

    record = record_folder(tmp_path / "home", "t/d-s0") / "record.json"
    assert news == [TRAIN, Done("ok", "clean 95.0%", record.read_bytes(), None)]
    assert (seen.results, seen.serve, seen.sent, seen.item) == (tmp_path / "home", None, None, job())
    assert seen.worker.done == []
    assert not (tmp_path / "scratch").exists()


def test_elsewhere_it_works_in_a_folder_of_its_own_and_all_of_it_comes_home(tmp_path: Path, works, lay_record):
    def lays(scratch: Path) -> None:
        assert (run_folder(scratch, "t/d-s0") / "checkpoint.pt").read_bytes() == b"kept at home"
        (run_folder(scratch, "t/d-s0") / "last.safetensors").write_bytes(b"weights")
        lay_record(scratch, "d", 0, np.ones(4, bool))
        seen_there.update({file.name: file.read_bytes() for file in record_folder(scratch, "t/d-s0").iterdir()})

    seen_there: dict[str, bytes] = {}
    away = told(tmp_path / "home", secret=b"another")
    kept = {"runs/t/d-s0/checkpoint.pt": b"kept at home"}
    news, seen = works(away, Errand(job(tmp_path / "home"), {"a.py": b"own"}, [kept]), OK, lays)

    json = seen_there.pop("record.json")
    assert set(seen_there) == {"examples.parquet"}
    assert news == [
        TRAIN,
        Piece("runs/t/d-s0/last.safetensors", b"weights", grows=False),
        Done("ok", "clean 95.0%", json, seen_there),
    ]
    assert seen.results == tmp_path / "scratch"
    assert seen.item == job(tmp_path / "scratch" / "task")  # where its own file is
    assert seen.sent.folder == run_folder(tmp_path / "scratch", "t/d-s0")
    assert not run_folder(tmp_path / "scratch", "t/d-s0").exists()
    assert not record_folder(tmp_path / "scratch", "t/d-s0").exists()


@pytest.mark.parametrize(
    ("place", "meet", "says"), [(Place(0, 2, 0), None, [MEET]), (Place(1, 2, 0), MEET, []), (None, None, [])]
)
@pytest.mark.parametrize("seen", [True, False])
def test_of_those_who_share_a_job_the_first_says_where_to_meet_and_all_end_with_it(
    tmp_path: Path, works, lay_record, place: Place | None, meet: Meet | None, says: list[News], seen: bool
):
    home = told(tmp_path / "home", **({} if seen else {"secret": b"another"}))
    errand = Errand(job(), {}, [], place, meet)
    news, found = works(home, errand, OK, lambda results: lay_record(results, "d", 0, np.ones(4, bool)))

    first = place is None or place.rank == 0
    assert news[:-1] == [*says, TRAIN]
    assert isinstance(news[-1], Done) if first else news[-1] == OK
    assert found.worker.done == (["stop"] if place else [])
    assert (found.sent is not None) == (first and not seen)
    if place:
        assert isinstance(found.serve, partial)
        assert (found.serve.func, found.serve.args) == (ranks.serve, (place, MEET))
    else:
        assert found.serve is None


@pytest.mark.parametrize(
    ("end", "cached", "rank", "last"),
    [
        (Over("the worker process ended: signal 9"), True, None, Done),
        (Over("the worker process ended: signal 9"), False, None, Over),
        (Over(""), True, None, Over),
        (Over("the worker process ended: signal 9"), True, 1, Over),
        (Refused("the disk is full"), True, None, Refused),
    ],
)
def test_one_that_died_after_its_last_write_has_done_its_job(
    tmp_path: Path,
    works,
    lay_record,
    monkeypatch: pytest.MonkeyPatch,
    end: News,
    cached: bool,
    rank: int | None,
    last: type,
):
    asked: list[Any] = []
    monkeypatch.setattr(node, "finished", lambda *made: (asked.append(made), SimpleNamespace(cached=cached))[1])
    place = None if rank is None else Place(rank, 2, 0)
    errand = Errand(job(), {}, [], place, MEET if place else None)
    home = told(tmp_path / "home")
    news, _ = works(home, errand, end, lambda results: lay_record(results, "d", 0, np.ones(4, bool)))

    assert type(news[-1]) is last
    if last is Done:
        assert (news[-1].status, news[-1].words) == ("ok", "")  # type: ignore[union-attr]
        assert asked == [(job(), tmp_path / "home")]
    else:
        assert news[-1] == end


def test_a_worker_in_the_middle_of_its_job_is_stopped_and_its_folder_goes(tmp_path: Path, works):
    away, found = told(tmp_path / "home", secret=b"another"), list[Path]()

    def lays(scratch: Path) -> None:
        for folder in (run_folder(scratch, "t/d-s0"), record_folder(scratch, "t/d-s0")):
            folder.mkdir(parents=True)
            found.append(folder)

    with pytest.raises(ValueError, match="of its own"):
        works(away, Errand(job(), {}), ValueError("of its own"), lays)
    assert len(found) == 2
    assert not any(folder.exists() for folder in found)


def test_a_node_of_other_versions_refuses_the_job(tmp_path: Path):
    other = told(tmp_path, versions={"torch": "9"})
    ours = versions()["torch"]
    line = f"node {platform.node()} has torch {ours} where the driver has 9; install the same on every node"
    assert drained(node.work(other, Errand(job(), {}))) == ([Refused(line)], None)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node, "_scratch", lambda: tmp_path / "scratch")
    return tmp_path / "scratch"


@pytest.mark.parametrize(
    ("there", "found"),
    [({}, "base"), ({"../c.py": None}, "scratch"), ({"a.py": b"other"}, "scratch"), ({"b/b.py": b"older"}, "scratch")],
)
def test_own_files_are_found_at_home_or_laid_out_as_they_are_there(
    tmp_path: Path, scratch: Path, there: dict[str, bytes | None], found: str
):
    base = tmp_path / "home" / "tasks"
    absolute = str(tmp_path / "home" / "d.py")
    files = {"a.py": b"a", "b/b.py": b"b", "../c.py": b"c", absolute: b"d"}
    for name, content in (files | there).items():
        if content is not None:
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(content)
    here = node._base(Errand(job(base), files))

    assert here == (base if found == "base" else scratch / "task" / "in")
    if found == "scratch":
        assert {name: (here / name).read_bytes() for name in files} == files
        inside = {str(path.relative_to(scratch)) for path in scratch.rglob("*.py")}
        assert inside == {"task/c.py", "task/in/a.py", "task/in/b/b.py"}


def test_the_folder_for_what_is_not_there_is_one_s_own_and_those_of_the_dead_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    later: list[Any] = []
    monkeypatch.setattr(node.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(node.atexit, "register", lambda *what, **how: later.append((what, how)))
    dead, alive = (tmp_path / f".advbench-node.{pid}.tmp" for pid in (2**22 + 1, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
    made = node._scratch.__wrapped__()

    assert made == tmp_path / f".advbench-node.{os.getpid()}.tmp"
    assert made.stat().st_mode & 0o777 == 0o700
    assert later == [((node.shutil.rmtree, made), {"ignore_errors": True})]
    assert sorted(tmp_path.iterdir()) == sorted([made, alive])
