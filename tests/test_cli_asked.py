"""What each command asks of the code behind it, with all its defaults and with all its options; and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from advbench import cli, notice
from advbench.options import Executor
from advbench.spec import BadInput
from advbench.suite import Cluster

P = Path
Heard = list[tuple[tuple[Any, ...], dict[str, Any]]]
RUN: dict[str, Any] = {"dry_run": False, "download": False, "per_device": None, "cluster": None, "store": None}
LIMITS: dict[str, Any] = {"minutes": None, "memory_gib": None}
ASKED: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("run", "suite.run", ([], [], P("results"), P("data"), "auto", None), RUN),
    (
        "run a b --only x --only y --results r --data-root d --download --device cpu --jobs 2 --store s3://b",
        "suite.run",
        ([P("a"), P("b")], ["x", "y"], P("r"), P("d"), "cpu", 2),
        RUN | {"download": True, "store": "s3://b"},
    ),
    (
        "run --dry-run --per-device 3 --executor ray --address auto",
        "suite.run",
        ([], [], P("results"), P("data"), "auto", None),
        RUN | {"dry_run": True, "per_device": 3, "cluster": Cluster("auto")},
    ),
    (
        "run --executor ray",
        "suite.run",
        ([], [], P("results"), P("data"), "auto", None),
        RUN | {"cluster": Cluster(None)},
    ),
    ("validate", "quote.validate", ([], P("results"), P("data"), "auto", None), {"as_json": False}),
    (
        "validate a --results r --data-root d --device cpu --jobs 2 --json",
        "quote.validate",
        ([P("a")], P("r"), P("d"), "cpu", 2),
        {"as_json": True},
    ),
    (
        "reproduce a",
        "reproduce.reproduce",
        (P("a"), P(), None, P("data"), "auto"),
        {"as_json": False, **LIMITS},
    ),
    (
        "reproduce a --results r --task-folder t --data-root d --device cpu --minutes 0.01 --memory-gib 0.25 --json",
        "reproduce.reproduce",
        (P("a"), P("t"), P("r"), P("d"), "cpu"),
        {"as_json": True, "minutes": 0.01, "memory_gib": 0.25},
    ),
    ("list tasks", "catalogue.show", ("tasks",), {"as_json": False}),
    ("list models --json", "catalogue.show", ("models",), {"as_json": True}),
    ("doctor", "doctor.show", (P("results"), P("data")), {"as_json": False}),
    ("doctor --results r --data-root d --json", "doctor.show", (P("r"), P("d")), {"as_json": True}),
]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, Heard]]:
    """A function: what stands behind a command, words of a person, its code or error -> exit code, output, calls."""

    def tell(behind: str, *words: str, code: Any = 0) -> tuple[int, str, Heard]:
        heard: Heard = []

        def stands_in(*args: Any, **kwargs: Any) -> Any:
            heard.append((args, kwargs))
            if isinstance(code, BaseException):
                raise code
            return code

        monkeypatch.setattr(f"advbench.{behind}", stands_in)
        done = CliRunner().invoke(cli.app, list(words))
        return done.exit_code, done.output, heard

    return tell


@pytest.mark.parametrize(("words", "behind", "args", "kwargs"), ASKED, ids=[one[0] for one in ASKED])
def test_a_command_asks_for_what_was_said_and_for_its_defaults(
    told: Callable[..., Any], words: str, behind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert told(behind, *words.split()) == (0, "", [(args, kwargs)])


@pytest.mark.parametrize(
    ("words", "behind"), [("run", "suite.run"), ("reproduce a", "reproduce.reproduce"), ("doctor", "doctor.show")]
)
def test_the_exit_code_is_the_one_that_was_found(told: Callable[..., Any], words: str, behind: str) -> None:
    assert [told(behind, *words.split(), code=code)[0] for code in (0, 1, 2)] == [0, 1, 2]


def test_who_is_interrupted_learns_what_is_kept_and_the_code_says_by_what(told: Callable[..., Any]) -> None:
    kept = "interrupted; nothing is lost: the same command goes on where it stopped\n"

    assert told("suite.run", "run", code=KeyboardInterrupt())[:2] == (130, kept)
    assert told("suite.run", "run", code=notice.Terminated())[:2] == (143, kept)
    lost = "interrupted; nothing was compared\n"
    assert told("reproduce.reproduce", "reproduce", "a", code=KeyboardInterrupt())[:2] == (130, lost)


def test_an_address_without_ray_is_refused(told: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match="--address: is Ray's; say --executor ray as well"):
        cli.run(address="auto", executor=Executor.local)


def test_a_board_is_built_in_its_place_or_elsewhere_without_looking_for_garbage(
    told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    off: list[int] = []
    monkeypatch.setattr(gc, "disable", lambda: off.append(1))
    pages = [P("r/README.md"), P("r/index.html")]

    assert told("board.build", "board", code=pages) == (0, "r/README.md\nr/index.html\n", [((P("results"), None), {})])
    assert told("board.build", "board", "r", "--out", "o", code=[])[2] == [((P("r"), P("o")), {})]
    assert off == [1, 1]


def test_a_new_file_goes_here_or_where_it_is_said(told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advbench.new.told", lambda kind, files: [f"{kind}:", *map(str, files)])

    assert told("new.new", "new", "attack", "mine", code=[P("mine.py")]) == (
        0,
        "attack:\nmine.py\n",
        [(("attack", "mine", P()), {})],
    )
    assert told("new.new", "new", "task", "mine", "-o", "o", code=[])[2] == [(("task", "mine", P("o")), {})]


def test_a_schema_is_indented_by_one(told: Callable[..., Any]) -> None:
    assert told("schema.schema", "schema", code={"type": "object"})[:2] == (0, '{\n "type": "object"\n}\n')


def test_help_is_plain_lists_the_commands_and_is_what_no_words_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = CliRunner().invoke(cli.app, ["--help"]).output

    assert CliRunner().invoke(cli.app, []).output == page
    assert "Is this defense really better, at what cost, and why? Example: advbench run tasks/" in " ".join(
        page.split()
    )
    assert page.startswith("Usage: advbench [OPTIONS] COMMAND")
    assert page.isascii(), "no boxes"
    assert "completion" not in page
    commands = "run validate reproduce evaluate collect board compare check audit export import results list doctor new"
    assert {*commands.split(), "schema"} <= {line.split()[0] for line in page.splitlines() if line.strip()}
    assert cli.app.pretty_exceptions_enable is False, "a traceback is Python's own"


class Said(StringIO):
    """A stream that knows whether all of it has left."""

    left = 0

    def flush(self) -> None:
        self.left = len(self.getvalue())


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function: how the command ended, further words -> exit code of `main`, and what stood on stderr."""

    def end(error: BaseException, *words: str) -> tuple[Any, str]:
        out, err = Said(), Said()

        def app(**how: Any) -> None:
            assert how == {"standalone_mode": True}
            sys.stdout.write("a page")
            sys.stderr.write("")
            raise error

        def leave(code: int) -> None:
            assert (out.left, err.left) == (len(out.getvalue()), len(err.getvalue())), "nothing is lost"
            raise SystemExit(f"at once: {code}")

        with monkeypatch.context() as patched:
            patched.setattr(cli, "app", app)
            patched.setattr(os, "_exit", leave)
            patched.setattr(sys, "argv", ["advbench", *words])
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as caught:
                cli.main()
        assert out.left == len("a page")
        return caught.value.code, err.getvalue()

    return end


def test_bad_input_is_a_line_each_and_ends_with_2(ended: Callable[..., Any]) -> None:
    error = BadInput("a\n  b", "c")

    assert ended(error) == (2, "advbench: a b\nadvbench: c\n")
    code, said = ended(error, "--debug")
    assert code == 2
    assert said.startswith("Traceback")
    assert said.endswith("advbench: a b\nadvbench: c\n")


@pytest.mark.parametrize(("code", "number"), [(3, 3), (0, 0), (None, 0), ("why", 1)])
def test_in_a_group_the_process_ends_at_once_with_its_code(
    ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, code: Any, number: int
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setitem(sys.modules, "torch.distributed", sys)  # as where somebody has trained in a group
    assert ended(SystemExit(code)) == (code, "")
    monkeypatch.setenv("RANK", "0")
    assert ended(SystemExit(code)) == (f"at once: {number}", "")
    monkeypatch.delitem(sys.modules, "torch.distributed")
    assert ended(SystemExit(code)) == (code, ""), "a launcher's process that loaded no torch ends as any other"


def test_a_reader_that_has_gone_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def app(**_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "app", app)
    with (tmp_path / "out").open("w") as out, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out.write("more")  # as the interpreter does at its exit
    assert caught.value.code == 1
    assert (tmp_path / "out").read_text("utf-8") == ""
