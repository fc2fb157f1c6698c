"""evaluate and collect hand on what a person asked for, and say how to go on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advbench import assess, observe
from advbench.cli import app
from advbench.judging import Where
from advbench.outside import Asked
from advbench.until import Until

Told = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the commands hand on, which is done by nobody."""
    calls: Told = []
    monkeypatch.setattr(assess, "assess", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr(observe, "observe", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


HERE = Where(Path("results"), Path("data"), "auto")
THERE = Where(Path("r"), Path("d"), "cpu")
PLACES = "--results r --data-root d --device cpu"
GIVEN = "--only t* --weights w.pth --weights-sha256 ab --checkpoint last --label mine"


@pytest.mark.parametrize(
    ("options", "args", "kwargs"),
    [
        (
            "",
            (Asked("resnet18"), Path("t.toml"), None, None, None, HERE),
            {"as_json": False, "until": None, "stop": True, "jobs": None},
        ),
        (
            f"{GIVEN} --until decided --width 3 --no-stop --jobs 2 --json --examples 5 {PLACES}",
            (Asked("resnet18", Path("w.pth"), "ab", "last"), Path("t.toml"), "t*", "mine", 5, THERE),
            {"as_json": True, "until": Until(None, None, 0.03), "stop": False, "jobs": 2},
        ),
        (
            "--until decided --against a --margin 2",
            (Asked("resnet18"), Path("t.toml"), None, None, None, HERE),
            {"as_json": False, "until": Until(Path("a"), 0.02, None), "stop": True, "jobs": None},
        ),
    ],
    ids=["nothing", "everything", "against"],
)
def test_evaluate_does_what_it_is_told(told: Told, options: str, args: tuple[Any, ...], kwargs: dict[str, Any]):
    done = CliRunner().invoke(app, ["evaluate", "resnet18", "--task", "t.toml", *options.split()])

    assert done.exit_code == 0, done.output
    assert told == [(args, kwargs)]


@pytest.mark.parametrize(
    ("options", "args", "kwargs"),
    [
        ("", (Asked("resnet18"), Path("t.toml"), None, None, [], HERE), {"as_json": False, "figures": None}),
        (
            f"{GIVEN} --collector fosc --collector own.py --figures svg --json {PLACES}",
            (Asked("resnet18", Path("w.pth"), "ab", "last"), Path("t.toml"), "t*", "mine", ["fosc", "own.py"], THERE),
            {"as_json": True, "figures": "svg"},
        ),
    ],
    ids=["nothing", "everything"],
)
def test_collect_does_what_it_is_told(told: Told, options: str, args: tuple[Any, ...], kwargs: dict[str, Any]):
    done = CliRunner().invoke(app, ["collect", "resnet18", "--task", "t.toml", *options.split()])

    assert done.exit_code == 0, done.output
    assert told == [(args, kwargs)]


@pytest.mark.parametrize("name", ["evaluate", "collect"])
def test_an_interruption_is_told_on_stderr_and_by_the_code(monkeypatch: pytest.MonkeyPatch, name: str):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assess, "assess", interrupted)
    monkeypatch.setattr(observe, "observe", interrupted)

    done = CliRunner().invoke(app, [name, "resnet18", "--task", "t.toml"])

    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted; nothing is lost: the same command goes on where it stopped\n"


@pytest.mark.parametrize("line", ["evaluate resnet18", "collect resnet18", "evaluate m --task t.toml --examples 0"])
def test_what_lacks_a_task_or_an_example_is_refused(told: Told, line: str):
    assert CliRunner().invoke(app, line.split()).exit_code == 2
    assert told == []
