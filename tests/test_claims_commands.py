"""compare, check and audit: what each asks of the code behind it, and whose exit code it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advbench import cli
from advbench.gate.judge import Asked as Limits
from advbench.outside import Asked

P = Path
ASKED: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("compare a b", "compare", (P("a"), P("b")), {"as_json": False}),
    ("compare a b --json", "compare", (P("a"), P("b")), {"as_json": True}),
    ("check a --against b --margin 5", "gate", (P("a"), P("b"), Limits(0.05, 0.05), None, None, False), {}),
    (
        "check a --against b --margin 5 --clean-margin 2 --passes 1.5 --seconds 3 --junit j --markdown m --json",
        "gate",
        (P("a"), P("b"), Limits(0.05, 0.02, 1.5, 3), P("j"), P("m"), True),
        {},
    ),
    ("audit a net", "audit", (P("a"), Asked("net"), None, None, P("data"), "auto"), {"as_json": False}),
    (
        "audit a net --weights w --checkpoint last --examples 1 --seed 0 --data-root d --device cpu --json",
        "audit",
        (P("a"), Asked("net", P("w"), None, "last"), 1, 0, P("d"), "cpu"),
        {"as_json": True},
    ),
]


@pytest.mark.parametrize(("words", "room", "args", "kwargs"), ASKED, ids=[one[0] for one in ASKED])
def test_a_command_asks_for_what_was_said_and_ends_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, words: str, room: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(f"advbench.{room}.show.show", lambda *args, **kwargs: heard.append((args, kwargs)) or 3)
    done = CliRunner().invoke(cli.app, words.split())

    assert heard == [(args, kwargs)]
    # What two results share is no verdict.
    assert (done.exit_code, done.output) == (0 if room == "compare" else 3, "")


@pytest.mark.parametrize("words", ["audit a net --examples 0", "audit a net --seed -1", "check a --against b"])
def test_what_no_command_can_mean_is_refused(words: str) -> None:
    assert CliRunner().invoke(cli.app, words.split()).exit_code == 2
