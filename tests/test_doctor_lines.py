"""Check by check on a machine put in by hand: what each line says, from which number on it warns, and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench import doctor, machine, precision
from advbench.data.base import DATA_ROOT
from advbench.doctor import GIB, Finding

Check = Callable[..., Iterator[Finding]]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float, bool], list[Finding]]:
    """A function: cores, GiB, fast bf16 -> what is said of the CPU."""

    def tell(cores: int, gib: float, fast: bool) -> list[Finding]:
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gib * GIB) // 4096}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "cpu", lambda: "cpu: X 1")
        monkeypatch.setattr(precision, "bf16_is_fast", lambda device: fast and device.type == "cpu")
        return list(doctor._cpu())

    return tell


SLOW, FAST = "bf16 emulated, so training stays fp32", "bf16 fast, so training passes use it"


@pytest.mark.parametrize(
    ("cores", "gib", "fast", "said", "short", "jobs"),
    [
        (4, 6, True, f"X 1, 4 cores, 6 GiB, {FAST}", "", 0),  # one and a half for each
        (5, 6, False, f"X 1, 5 cores, 6 GiB, {SLOW}", "6.0 GiB for 5 workers, each of about 1 GiB", 4),
        (1, 1.5, False, f"X 1, 1 core, 2 GiB, {SLOW}", "", 0),
        (1, 1.25, False, f"X 1, 1 core, 1 GiB, {SLOW}", "1.2 GiB for 1 workers, each of about 1 GiB", 1),
    ],
)
def test_a_worker_should_have_a_gib_and_a_half(
    memory: Callable[..., list[Finding]], cores: int, gib: float, fast: bool, said: str, short: str, jobs: int
) -> None:
    warned = [Finding("memory", "warn", short, f"fewer jobs at a time: --jobs {jobs}")] if short else []

    assert memory(cores, gib, fast) == [Finding("cpu", "ok", said), *warned]


def test_accelerators_are_there_or_cannot_be_used_or_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    driver: list[str] = []

    class Dev:
        def __init__(self, path: str) -> None:
            assert path == "/dev"

        def glob(self, names: str) -> list[str]:
            assert names == "nvidia[0-9]*"
            return driver

    monkeypatch.setattr(doctor, "Path", Dev)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    none = Finding("accelerator", "ok", "none; tasks that need one are skipped")
    assert list(doctor._accelerators()) == [none]
    driver.append("nvidia0")
    fix = "install a build of torch for its driver: pytorch.org/get-started"
    text = f"there is a GPU, but torch {torch.__version__} cannot use it"
    assert list(doctor._accelerators()) == [Finding("accelerator", "warn", text, fix)]

    about = SimpleNamespace(name="NVIDIA X", total_memory=24 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0"])
    monkeypatch.setattr(precision, "bf16_is_fast", lambda device: False)
    meter = "no meter of joules: pip install 'advbench[energy]', if it has one"
    for names in (["nvidia0"], []):
        driver[:] = names
        assert list(doctor._accelerators()) == [Finding("cuda:0", "ok", f"NVIDIA X, 24 GiB, no fast bf16, {meter}")]


@pytest.mark.parametrize(("version", "state"), [((3, 11), "ok"), ((3, 11, 4), "ok"), ((3, 10, 9), "FAIL")])
def test_python_is_new_enough_from_3_11_on(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], state: str
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    [found] = doctor._python()

    assert (found.name, found.state) == ("python", state)
    assert found.fix == ("install Python 3.11 or newer" if state == "FAIL" else "")


@pytest.mark.parametrize(("free", "state", "gib"), [(GIB, "ok", 1), (GIB - 1, "warn", 1), (40 * GIB, "ok", 40)])
def test_a_disk_should_have_a_gib_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: Any, gib: int
) -> None:
    seen: list[Path] = []

    def usage(home: Path) -> Any:
        seen.append(home)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(doctor.shutil, "disk_usage", usage)
    results = tmp_path / "not" / "yet"
    fix = "make room, or choose another disk with --results" if state == "warn" else ""

    assert list(doctor._results(results)) == [
        Finding("results", state, f"{results} can be written, {gib} GiB free", fix)
    ]
    assert seen == [tmp_path], "the nearest folder that there is"
    monkeypatch.setattr(os, "access", lambda home, mode: (home, mode) != (tmp_path, os.W_OK | os.X_OK))
    refused = Finding("results", "FAIL", f"{results} cannot be written", "choose another folder with --results")
    assert list(doctor._results(results)) == [refused]


@pytest.mark.parametrize(
    ("there", "asked", "compiler"),
    [
        ({"git", "c++", "g++"}, "", "c++"),
        ({"git", "clang++"}, "", "clang++"),
        ({"git", "c++", "icpx"}, "icpx", "icpx"),
        (set(), "icpx", None),
    ],
)
def test_tools_are_found_or_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, there: set[str], asked: str, compiler: str | None
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setenv("CXX", asked)
    git, built = doctor._tools()

    names = "records name the commit of a checkout"
    assert git == (
        Finding("git", "ok", names)
        if "git" in there
        else Finding("git", "warn", "not found", f"install it, so that {names}")
    )
    assert built == (
        Finding("compiler", "ok", f"{compiler}, for torch.compile")
        if compiler
        else Finding("compiler", "warn", "no C++ compiler", 'install g++ for training.compile = "on"')
    )


def test_a_data_root_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    for root, more in ((tmp_path, ""), (tmp_path / "away", ", which is not there")):
        first, *_ = doctor._data(root)
        assert first == Finding("data root", "ok", f"{root.resolve()}{more}", f"{DATA_ROOT} says another")


def test_findings_are_shown_as_they_are_and_only_what_is_broken_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    found = [Finding("a[b]x[/b]", "ok", "12 :smile: " + "word " * 20 + "end"), Finding("c", "warn", "d", "e")]
    monkeypatch.setattr(doctor, "examine", lambda *_: found)

    assert doctor.show(tmp_path, tmp_path, as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok   a[b]x[/b]: 12 :smile: " + "word " * 20 + "end",
        "warn c: d; e",
    ]
    found.append(Finding("f", "FAIL", "g"))
    assert doctor.show(tmp_path, tmp_path, as_json=True) == 1
    out = capsys.readouterr().out
    assert json.loads(out) == [vars(finding) for finding in found]
    assert out.startswith('[\n {\n  "name": "a[b]x[/b]",\n')
