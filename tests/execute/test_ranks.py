"""One process of a job that is shared over nodes: what it leaves to its node."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advbench.execute import ranks, torchrun
from advbench.execute.local import Event
from advbench.execute.torchrun import Place
from advbench.execute.wire import Meet
from advbench.execute.worker import BEGUN, UNWRITABLE
from advbench.files import Unwritable
from advbench.plan import Item


def test_the_node_alone_holds_it_to_its_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    done: list[Item] = []

    @contextmanager
    def lead(*_: Any) -> Generator[Callable[..., None]]:
        yield lambda items, *_: done.extend(items)

    monkeypatch.setattr(torchrun, "lead", lead)
    monkeypatch.setattr(ranks, "attend", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "_exit", lambda code: code)
    home, there = Pipe()
    item = Item(task="t", label="d", seed=0, base=Path(), processes=2, minutes=1, memory_gib=2)
    home.send((item, False, ["cpu"]))

    ranks.serve(Place(0, 2, 0), Meet("127.0.0.1", 1), there, tmp_path, tmp_path, "cpu")

    assert done == [item.model_copy(update={"minutes": None, "memory_gib": None})]


@pytest.fixture
def lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[dict[str, str], list[Any], list[Any]]]:
    """A function: rank, lead or follow, its own environment -> the environment it made, what it said, its exit code."""

    def serve(rank: int, works: Callable[..., Any], **own: str) -> tuple[dict[str, str], list[Any], list[Any]]:
        said: list[Any] = []
        ended: list[Any] = []
        item = Item(task="t", label="d", seed=0, base=Path("home"), processes=3)

        @contextmanager
        def lead(*told: Any) -> Generator[Any]:
            yield lambda *asked: works(*told, *asked)

        there: Any = SimpleNamespace(recv=lambda: (item, False, ["cuda:0"]), send=said.append)
        monkeypatch.setattr(torchrun, "lead", lead)
        monkeypatch.setattr(torchrun, "follow", works)
        monkeypatch.setattr(ranks, "attend", lambda: ended.append("attends"))
        monkeypatch.setattr(ranks, "interface", lambda towards: {"10.0.0.1": "eth7"}.get(towards))
        monkeypatch.setattr(os, "environ", dict(own))
        monkeypatch.setattr(os, "_exit", ended.append)
        ranks.serve(Place(rank, 3, 1), Meet("10.0.0.1", 77), there, tmp_path, tmp_path / "root", "cuda:0")
        return dict(os.environ), said, ended

    return serve


def test_the_first_process_leads_and_its_words_are_a_worker_s(lives, tmp_path: Path):
    asked: list[Any] = []

    def lead(place: Place, kind: str, items: list[Item], results: Path, root: Path, devices: Any, tell: Any) -> None:
        asked.append((place, kind, [one.label for one in items], results, root, devices))
        sys.stdout.write("printed\n")
        for stage, done in (("start", 0), ("train", 3), ("ok", 0)):
            tell(Event(items[0], stage, done, 2 * done, f"words of {stage}"))

    environment, said, ended = lives(0, lead)
    place = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "77"}
    assert environment == {**place, "GLOO_SOCKET_IFNAME": "eth7"}
    assert asked == [(Place(0, 3, 1), "cuda", ["d"], tmp_path, tmp_path / "root", ["cuda:0"])]
    assert said == [(BEGUN, 0, 0, "words of start"), ("train", 3, 6, "words of train"), ("ok", 0, 0, "words of ok")]
    assert ended == ["attends", False]
    assert (tmp_path / "runs" / "t" / "d-s0" / "log.txt").read_text("utf-8") == "printed\n"


@pytest.mark.parametrize(("code", "last"), [(0, "ok"), (1, "failed")])
def test_another_follows_and_says_how_it_ended(lives, tmp_path: Path, code: int, last: str):
    asked: list[Any] = []

    def follow(*told: Any) -> int:
        *words, begun = told
        asked.append(tuple(words))
        begun()
        begun()
        return code

    environment, said, ended = lives(2, follow, GLOO_SOCKET_IFNAME="mine")
    assert (environment["RANK"], environment["GLOO_SOCKET_IFNAME"]) == ("2", "mine")
    assert asked == [(Place(2, 3, 1), "cuda", tmp_path / "root", Path("home"))]
    assert said == [(BEGUN, 0, 0, ""), (BEGUN, 0, 0, ""), (last, 0, 0, "")], "begun when it is told to, and not before"
    assert ended == ["attends", False]


def test_its_own_errors_stand_in_the_log_and_a_full_disk_is_said(lives, tmp_path: Path):
    def breaks(*_: Any) -> None:
        raise ValueError("of its own")

    def fills(*_: Any) -> None:
        raise Unwritable(tmp_path / "x", OSError(28, "No space left on device"))

    _, said, ended = lives(0, breaks)
    assert (said, ended) == ([], ["attends", True])
    assert (tmp_path / "runs" / "t" / "d-s0" / "log.txt").read_text("utf-8").endswith("ValueError: of its own\n")
    _, said, ended = lives(0, fills)
    [(stage, done, total, line)] = said
    assert (stage, done, total, ended) == (UNWRITABLE, 0, 0, ["attends", False])
    assert line.startswith(f"{tmp_path / 'x'}: cannot be written: No space left on device; ")


def test_a_place_to_meet_has_a_port_that_nobody_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.util", SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"))
    found = ranks.free_place()
    assert found.address == "127.0.0.1"
    assert found.port > 1023
    with socket.socket() as taken:
        taken.bind(found)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_this_machine_reaches_itself_over_its_own_interface():
    assert ranks.interface("127.0.0.1") == "lo"
    assert ranks.interface("no address of anything") is None
