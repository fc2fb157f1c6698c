"""What the pages of the repository print: fenced blocks, the command lines in them, and prose without either."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

from typer.main import get_command

from advbench import cli

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages(repo: Path) -> list[Path]:
    """Every page that a person reads, the README first."""
    folders = (repo, repo / "tasks", repo / "baselines", repo / "leaderboard")
    named = [*(folder / "README.md" for folder in folders), repo / "CONTRIBUTING.md", repo / "CHANGELOG.md"]
    return [*named, *sorted((repo / "docs").glob("*.md"))]


def block(page: Path, marker: str) -> str:
    """The fenced block after the line `<!-- marker -->`."""
    found = re.search(rf"^<!-- {marker} -->\n+{FENCE.pattern}", page.read_text("utf-8"), FENCE.flags)
    assert found, f"{page.name}: no fenced block after a line '<!-- {marker} -->'"
    return found[1]


def prose(text: str) -> str:
    """Without fenced blocks and without code in a line."""
    return re.sub(r"`[^`]*`", "", FENCE.sub("", text))


def commands(text: str) -> list[list[str]]:
    """What every `advbench` in the fenced blocks is given, on its own, in a chain or under a launcher."""
    found: list[list[str]] = []
    for code in FENCE.findall(text):
        for line in code.replace("\\\n", " ").splitlines():
            if re.search(r"\badvbench\b", line):
                found += [words for part in _simple(line) if (words := _given(part))]
    return found


def _simple(line: str) -> list[list[str]]:
    """The simple commands of a line of shell, without its comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _given(words: list[str]) -> list[str]:
    """What follows `advbench`, `.venv/bin/advbench` or `-m advbench`; nothing of another command."""
    if words and words[0].rpartition("/")[2] == "advbench":
        return words[1:]
    launched = [i for i, pair in enumerate(pairwise(words)) if pair == ("-m", "advbench")]
    return words[launched[0] + 2 :] if launched else []


def inline(text: str) -> list[list[str]]:
    """The words of every `advbench ...` in a line of prose, which may have placeholders."""
    spans = re.findall(r"`([^`]*)`", FENCE.sub("", text))
    return [span.split()[1:] for span in spans if span.split()[:1] == ["advbench"]]


def parse(words: list[str]) -> None:
    """Have the real command line take `words`, without running anything. Raises what a user would be told."""
    command, rest = _command(words)
    command.make_context(command.name, rest)


def named(words: list[str]) -> set[str]:
    """The options in words that may have placeholders, less those that their command has: what is wrong with them."""
    command, rest = _command(words)
    has = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    return {word.strip("[].,") for word in rest if word.startswith(("-", "[-"))} - has


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, and what it is given. Raises KeyError where there is none."""
    command: Any = get_command(cli.app)
    while words and not words[0].startswith("-") and (inside := getattr(command, "commands", None)):
        name, *words = words
        command = inside[name]
    return command, words
