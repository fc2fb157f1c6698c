"""Would a test notice? `python tests/benchmarks/mutants.py --count 200 [--log mutants.jsonl] [--jobs 2]`.

A mutant is one small change to one place of suite/advbench or baselines: a comparison's edge, an operator, a number, a
statement left out, a condition negated. Each is made in a clone of the last commit, and the tests that answer for its
file are run until one fails. A mutant that all of them pass shows what nobody checks.

Which tests answer for a file:
* suite/advbench/a/x.py: tests/a/test_x.py and tests/a/test_x_*.py, except those of another file with a longer name;
  likewise baselines/x.py;
* what is found by its name, and so imported nowhere, or has its tests elsewhere: as NAMED says;
* another file: every test file that imports it; if there is none, the tests of the files that import it;
* and, for each: what holds its whole folder to the same promises, tests/a/test_a.py and tests/a/test_all.py, and
  test_declared.py for what a task file may set (PARTS).
Tests marked slow are left out. Cheap files of tests come first, by what they take without a mutant; a mutant that takes
three times as long and 30 s hangs, and counts as caught.

Mutants are drawn by the hash of the seed (default: the commit) and of the mutant, at most one a line, so that a change
elsewhere draws no others. Those that change no behaviour are told by hand in mutants_equivalent.toml, each with the
reason, and do not count. `--log` keeps every outcome, and the same command goes on where it stopped; `--again` runs
those that survived once more, after a change to the tests. `tests/mutations.py` says what is changed and what is not.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutations import Mutant, draw  # beside this folder

REPO = Path(__file__).resolve().parents[2]
PRELOADED = ["torch", "torchvision", "scipy.stats", "sklearn.datasets", "pandas", "pyarrow.parquet", "pydantic", "rich"]
"""What most tests import and no mutant changes: loaded once, and every run is forked from there."""
NAMED = {
    "suite/advbench/__main__.py": "tests/test_cli.py",
    "suite/advbench/attacks/foolbox.py": "tests/attacks/test_library*.py",
    "suite/advbench/attacks/torchattacks.py": "tests/attacks/test_library*.py",
    "suite/advbench/folder.py": "tests/results/test_*.py",
    "suite/advbench/starters/my_attack.py": "tests/test_new.py",
    "suite/advbench/starters/my_collector.py": "tests/test_new.py",
    "suite/advbench/starters/my_defense.py": "tests/test_new.py",
}
PARTS = {"attacks", "collectors", "data", "models", "studies", "baselines", "task.py", "recipe.py"}
"""Folders and files of what a task file may set."""


class Tests:
    """Which test files answer for a file of source."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.sources = sorted(repo.glob("suite/advbench/**/*.py"))
        self.tests = sorted(repo.glob("tests/**/test_*.py"))

    def of(self, file: str) -> tuple[str, list[str]]:
        """How they are found, and the files."""
        how, found = self._own(file)
        path = Path(file)
        together = [f"{_folder(path)}/test_all.py", f"{_folder(path)}/test_{path.parent.name}.py"]
        if path.parent.name in PARTS or path.name in PARTS:
            together.append("tests/test_declared.py")
        return how, sorted({*found, *(test for test in together if (self.repo / test).exists())})

    def _own(self, file: str) -> tuple[str, list[str]]:
        path = Path(file)
        if mirrored := self._mirrored(path):
            return "mirrored", mirrored
        if file in NAMED:
            return "named", [str(test.relative_to(self.repo)) for test in self.repo.glob(NAMED[file])]
        if path.parts[0] == "baselines":
            return "those of all", []
        if importing := self._importing(path, self.tests):
            return "imported", importing
        users = self._importing(path, self.sources)
        return "by its users", [test for user in users for test in self._own(user)[1]]

    def _mirrored(self, path: Path) -> list[str]:
        longer = [other.stem for other in (self.repo / path).parent.glob(f"{path.stem}_*.py")]
        return [
            str(test.relative_to(self.repo))
            for test in sorted((self.repo / _folder(path)).glob(f"test_{path.stem}*.py"))
            if (test.stem + "_").startswith(f"test_{path.stem}_")
            and not any((test.stem + "_").startswith(f"test_{other}_") for other in longer)
        ]

    def _importing(self, path: Path, among: list[Path]) -> list[str]:
        """Those that import the module, whole or a name of it."""
        parts = path.relative_to("suite").with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return [str(other.relative_to(self.repo)) for other in among if module in _imports(other)]


def _folder(path: Path) -> Path:
    """Where the tests of a file would lie."""
    return Path("tests") / (path.parent if path.parts[0] == "baselines" else path.parent.relative_to("suite/advbench"))


@cache
def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


class Room:
    """A clone of the commit, in which one run of tests happens at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "tree"
        folder.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--shared", str(REPO), str(self.tree)], check=True)
        if (shared := REPO.parent / "shared").exists():
            (folder / "shared").symlink_to(shared)  # where tests look for real data
        # A file that is changed and put back within a second may keep its time and size: only its hash tells.
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
        subprocess.run([*command, "suite", "baselines", "tests"], cwd=self.tree, check=True)
        self.pid, self.ends, self.started = 0, 0.0, 0.0
        self.work: Any = None

    def start(self, work: Any, tests: list[str], limit: float, mutant: Mutant | None) -> None:
        self.work = work
        self.kept = (self.tree / mutant.file, (self.tree / mutant.file).read_bytes()) if mutant else None
        if mutant and self.kept:
            self.kept[0].write_bytes(mutant.applied(self.kept[1]))
        self.started = time.monotonic()
        self.ends = self.started + limit
        self.pid = os.fork()
        if not self.pid:
            self._test(tests)

    def _test(self, tests: list[str]) -> None:
        """In the child: the tests, as a fresh interpreter would run them."""
        code = 70
        try:
            os.setsid()
            os.chdir(self.tree)
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            ours = {str(REPO / folder) for folder in ("suite", "tests", "tests/benchmarks")}
            sys.path[:] = [str(self.tree / "suite"), *(e for e in sys.path if str(Path(e).resolve()) not in ours)]
            os.environ |= {"PYTHONPATH": sys.path[0], "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
            sys.dont_write_bytecode = True
            import pytest

            options = ["-x", "-q", "-m", "not slow", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=line"]
            options.append(f"--basetemp={self.folder / 'tmp'}")
            code = int(pytest.main([*options, *tests])) if tests else 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    def ended(self) -> tuple[str, float] | None:
        """What came of the run and after how many seconds; None while it lasts."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if hung := not pid and time.monotonic() > self.ends:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        elif not pid:
            return None
        if self.kept:
            self.kept[0].write_bytes(self.kept[1])
        code = os.waitstatus_to_exitcode(status)
        outcome = "hung" if hung else {0: "survived", 5: "no tests"}.get(code, "caught")
        return outcome, round(time.monotonic() - self.started, 1)

    def failed(self) -> str:
        """The test that failed, of what pytest said."""
        said = (self.folder / "said.txt").read_text("utf-8", errors="replace").splitlines()
        return next((line for line in said if line.startswith(("FAILED", "ERROR"))), said[-1] if said else "")[:200]


Work = tuple[Any, list[str], float, Mutant | None]
"""What to call it, test files, seconds that it may take, what to change."""


def through(rooms: list[Room], works: Iterable[Work]) -> Iterator[tuple[Any, str, float, str]]:
    """(what it is called, outcome, seconds, the test that failed) of each work as it ends, one work a room."""
    left, busy = iter(works), []
    while True:
        for room in rooms:
            if room not in busy and (work := next(left, None)):
                room.start(*work)
                busy.append(room)
        if not busy:
            return
        time.sleep(0.05)
        for room in [*busy]:
            if ended := room.ended():
                busy.remove(room)
                yield room.work, *ended, room.failed() if ended[0] == "caught" else ""


class Log:
    """What has come of files of tests and of mutants; the latest line of each is what counts."""

    def __init__(self, path: Path | None, seed: str) -> None:
        self.path = path
        self.timed: dict[str, dict[str, Any]] = {}
        """By file of tests, without a mutant."""
        self.done: dict[tuple[str, ...], dict[str, Any]] = {}
        """By name of a mutant."""
        for line in path.read_text("utf-8").splitlines() if path and path.exists() else []:
            said = json.loads(line)
            if "tests" in said:
                self.timed[said["tests"]] = said
            elif said["seed"] == seed:
                self.done[tuple(said["name"])] = said

    def keep(self, line: dict[str, Any]) -> None:
        if "tests" in line:
            self.timed[line["tests"]] = line
        else:
            self.done[tuple(line["name"])] = line
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def main() -> None:
    """Draw, time, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", help="default: the commit")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="those that survived, once more")
    asked = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO, check=True, capture_output=True, text=True)
    seed = asked.seed or commit.stdout.strip()
    log = Log(asked.log, seed)
    told = tomllib.loads((Path(__file__).parent / "mutants_equivalent.toml").read_text("utf-8"))["mutant"]
    equivalent = {(one["file"], one["line"], one["before"], one["after"]): one["why"] for one in told}
    for name in PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as name:
        rooms = [Room(Path(name) / str(number)) for number in range(asked.jobs)]
        tree = rooms[0].tree
        for file, line, *_ in equivalent:
            if line not in (tree / file).read_text("utf-8"):
                print(f"mutants_equivalent.toml: {file} has no line {line!r} any more")
        drawn, answers = [*islice(draw(tree, seed), asked.count)], Tests(tree)
        before = {one: log.done[one.name]["outcome"] if one.name in log.done else None for one in drawn}
        todo = [one for one in drawn if one.name not in equivalent]
        todo = [one for one in todo if before[one] == ("survived" if asked.again else None)]
        wanted = sorted({test for one in todo for test in answers.of(one.file)[1]} - log.timed.keys())
        for test, outcome, took, failed in through(rooms, ((test, [test], 900, None) for test in wanted)):
            print(f"{took:6.1f} s  {test}  {'' if outcome == 'survived' else f'left out: {failed}'}", flush=True)
            log.keep({"tests": test, "outcome": outcome, "seconds": took})
        seconds = {test: one["seconds"] for test, one in log.timed.items() if one["outcome"] == "survived"}

        def works() -> Iterator[Work]:
            for one in todo:
                tests = sorted((test for test in answers.of(one.file)[1] if test in seconds), key=seconds.__getitem__)
                yield one, tests, 3 * sum(seconds[test] for test in tests) + 30, one

        for one, outcome, took, failed in through(rooms, works()):
            how = answers.of(one.file)[0]
            print(f"{outcome:8} {took:6.1f} s  {one}  ({how})  {failed}", flush=True)
            came = {"seed": seed, "name": one.name, "how": how, "outcome": outcome, "seconds": took, "failed": failed}
            log.keep(asdict(one) | came)
    _tell([one for one in drawn if one.name not in equivalent], log)
    same = [one for one in drawn if one.name in equivalent]
    print(f"\nequivalent: {len(same)}", *(f"{one}\n    {equivalent[one.name]}" for one in same), sep="\n  ")


def _tell(drawn: list[Mutant], log: Log) -> None:
    """The survivors and the share; of what was drawn and changes something."""
    outcomes = {one: log.done[one.name]["outcome"] for one in drawn if one.name in log.done}
    left = [str(one) for one, outcome in outcomes.items() if outcome not in {"caught", "hung"}]
    hung, caught = [*outcomes.values()].count("hung"), len(outcomes) - len(left)
    print("\nsurvived:", *left, sep="\n  ")
    print(f"\ndrawn {len(drawn)}, run {len(outcomes)}: caught {caught}, {hung} of them hung; survived {len(left)}")
    print(f"share caught: {caught / max(1, len(outcomes)):.1%}")


if __name__ == "__main__":
    main()
