"""A worker's life: jobs in, progress and endings out, and what it prints in the log of its job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench import launch, run, verdicts
from advbench.execute import worker
from advbench.execute.worker import BEGUN, HELPED, READY, UNWRITABLE, into, outcome
from advbench.files import Unwritable
from advbench.plan import Item

FULL = OSError(28, "No space left on device")


def job(label: str, processes: int = 1) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), processes=processes)


class Driver:
    """The other end of its connection: hands out jobs, and then it goes."""

    def __init__(self, *jobs: tuple[Item, bool, list[str]]) -> None:
        self.jobs, self.heard = list(jobs), list[tuple[Any, ...]]()

    def recv(self) -> tuple[Item, bool, list[str]]:
        if not self.jobs:
            raise EOFError
        return self.jobs.pop(0)

    def send(self, news: tuple[Any, ...]) -> None:
        self.heard.append(news)


@pytest.fixture
def serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """A function: driver, device -> what was called on the way. Labels say how a job ends."""
    done: list[Any] = []

    def attempt(item: Item, results: Path, root: Path, device: torch.device, tell: Callable[..., None], share: Any):
        done.append(("attempt", item.label, results, root, device, share))
        sys.stdout.write(f"attempted {item.label}\n")
        if item.label == "full":
            raise Unwritable(tmp_path / "log.txt", FULL)
        tell("train", 1, 2, "words")
        return SimpleNamespace(status="failed", error="x", reason=f"ValueError: {item.label}")

    def assist(item: Item, results: Path, root: Path, device: torch.device) -> None:
        done.append(("assist", item.label, results, root, device))
        sys.stdout.write(f"assisted {item.label}\n")
        if item.label == "full":
            raise Unwritable(tmp_path / "log.txt", FULL)
        if item.label == "bad":
            raise ValueError("of its own")

    monkeypatch.setattr(worker, "attend", lambda: done.append("attends"))
    monkeypatch.setattr(launch, "here", lambda results, root, places: (results, root, tuple(places)))
    monkeypatch.setattr(run, "attempt", attempt)
    monkeypatch.setattr(verdicts, "assist", assist)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("device", device)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70, 100))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empties"))
    monkeypatch.setattr(worker.gc, "collect", lambda: done.append("collects"))

    def serve(driver: Any, device: str = "cpu") -> list[Any]:
        worker._serve(driver, tmp_path, tmp_path / "root", device)
        return done

    return serve


def log(results: Path, label: str) -> str:
    return (results / "runs" / "t" / f"{label}-s0" / "log.txt").read_text("utf-8")


def test_one_job_after_another_until_the_driver_goes(tmp_path: Path, serves):
    driver = Driver((job("a"), False, ["cpu"]), (job("full"), False, ["cpu"]), (job("b", 2), False, ["cpu"]))
    done = serves(driver)

    root, cpu = tmp_path / "root", torch.device("cpu")
    shares = [(tmp_path, root, ("cpu",) * count) for count in (1, 1, 2)]
    assert done == [
        "attends",
        *(
            ("attempt", label, tmp_path, root, cpu, share)
            for label, share in zip(("a", "full", "b"), shares, strict=True)
        ),
    ]
    [full] = Unwritable(tmp_path / "log.txt", FULL).lines
    assert driver.heard == [
        *((BEGUN, 0, 0, ""), ("train", 1, 2, "words"), ("failed", 0, 0, "ValueError: a")),
        *((BEGUN, 0, 0, ""), (UNWRITABLE, 0, 0, full)),
        *((BEGUN, 0, 0, ""), ("train", 1, 2, "words"), ("failed", 0, 0, "ValueError: b")),
    ]
    assert [log(tmp_path, label) for label in ("a", "full", "b")] == [
        "attempted a\n",
        "attempted full\n",
        "attempted b\n",
    ]


def test_who_helps_says_when_nothing_is_left_and_keeps_its_errors_in_the_log(tmp_path: Path, serves):
    driver = Driver(*((job(label), True, ["cpu"]) for label in ("a", "bad", "full")))
    done = serves(driver)

    assert done == [
        "attends",
        *(("assist", label, tmp_path, tmp_path / "root", torch.device("cpu")) for label in ("a", "bad", "full")),
    ]
    begun, helped = (BEGUN, 0, 0, ""), (HELPED, 0, 0, "")
    assert driver.heard[:-1] == [begun, helped, begun, helped, begun]
    assert driver.heard[-1][0] == UNWRITABLE
    assert log(tmp_path, "bad").endswith("ValueError: of its own\n")
    assert log(tmp_path, "a") == "assisted a\n"


def test_on_an_accelerator_it_says_first_what_is_free_there_and_keeps_no_memory_between_jobs(serves):
    driver = Driver((job("a"), False, ["cuda:1"]))
    done = serves(driver, "cuda:1")
    assert done[:2] == ["attends", ("device", "cuda:1")]
    assert done[2][4] == torch.device("cuda:1")
    assert done[3:] == ["collects", "empties"]
    assert driver.heard[:2] == [(READY, 70, 0, ""), (BEGUN, 0, 0, "")]


def test_what_is_printed_goes_on_in_the_log_and_a_place_for_none_is_one_line(tmp_path: Path, capsys):
    file = tmp_path / "a" / "b" / "log.txt"
    for word in ("one", "two"):
        with into(file):
            sys.stdout.write(f"{word}\n")
    assert file.read_text("utf-8") == "one\ntwo\n"
    assert capsys.readouterr().out == ""
    with pytest.raises(Unwritable, match=r"log\.txt/log\.txt: cannot be written"), into(file / "log.txt"):
        pass


def scored(robust: float | None, *flags: str) -> dict[str, Any]:
    share = None if robust is None else SimpleNamespace(accuracy=robust)
    scores = SimpleNamespace(clean=SimpleNamespace(accuracy=0.9534), robust=share)
    return {"scores": scores, "flags": [SimpleNamespace(name=name) for name in flags]}


def claim(name: str, found: float | None) -> SimpleNamespace:
    return SimpleNamespace(name=name, found=found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"error": "Traceback", "reason": "ValueError: no", **scored(0.4)}, "ValueError: no"),
        ({}, ""),
        (scored(0.4), "clean 95.3%, robust 40.0%"),
        (scored(None), "clean 95.3%, no robust accuracy"),
        (scored(0.0, "masked", "odd"), "clean 95.3%, robust 0.0%, masked, odd"),
        (
            {"findings": SimpleNamespace(claims=[claim("gap", 0.12345), claim("none", None), claim("slope", 2.0)])},
            "gap 0.123; slope 2",
        ),
    ],
)
def test_a_record_in_a_few_words(fields: dict[str, Any], words: str):
    record: Any = SimpleNamespace(**{"error": None, "findings": None, "scores": None, "flags": [], **fields})
    assert outcome(record) == words
