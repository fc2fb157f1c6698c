"""Does the building still stand straight? Layers, rooms without torch, baselines, the README and the command line."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
from printed import block

LONGEST = 300
"""Lines. A longer file has something second in it that wants a file of its own."""

BASELINES_MAY_IMPORT = {
    *("advbench.attacks", "advbench.defense", "advbench.losses", "advbench.seeds", "advbench.spec", "advbench.threat"),
    "advbench.wrapper",  # a base of its own
    "advbench.data.randaugment",  # views of its own
    *("advbench.exchange", "advbench.parallel", "advbench.recipe"),  # several processes, an optimizer of its own
    "advbench.bounds",  # what the logits can be in a box of pixels
    *("torch", "pydantic", "timm.optim"),
    *sys.stdlib_module_names,
}


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in it; ".x" for a relative import."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from advbench import losses` names a module too.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "advbench" else {module}
    return found


def test_a_file_imports_only_from_layers_below_it(repo: Path):
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f(['--no-cache'])"],
        capture_output=True,
        text=True,
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(repo / "suite")},
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("module", ["spec", "task", "record", "watch", "plan", "board"])
def test_reading_tasks_and_records_imports_no_torch(module):
    done = python(f"import sys, advbench.{module}; sys.exit('torch' in sys.modules)")

    assert done.returncode == 0, done.stderr


def test_help_imports_none_of_the_slow_packages():
    done = python(
        "import sys\n"
        "from advbench.cli import main\n"
        "sys.argv = ['advbench', '--help']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "slow = {'torch', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'robustbench'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )

    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_run_starts_without_the_packages_that_few_jobs_ask_for():
    """Each of them would cost every process of every run a part of a second."""
    done = python(
        "import sys, advbench.suite, advbench.run\n"
        "rare = {'pandas', 'sklearn', 'torchvision', 'scipy.ndimage', 'scipy.special', 'torch._dynamo', 'ray'}\n"
        "assert not rare & set(sys.modules), rare & set(sys.modules)\n"
    )

    assert done.returncode == 0, done.stderr


def test_every_command_has_help_an_example_and_a_line_in_the_readme(repo: Path):
    typer = pytest.importorskip("typer", reason="the command line needs typer")
    from typer.testing import CliRunner

    from advbench import cli

    commands = typer.main.get_command(cli.app).commands
    readme = (repo / "README.md").read_text(encoding="utf-8")
    missing = []
    for name, command in commands.items():
        shown = CliRunner().invoke(cli.app, [name, "--help"])
        lacks = {
            "help": not (command.help or "").strip() or shown.exit_code != 0,
            "an example": f"advbench {name}" not in shown.output or "Example" not in shown.output,
            "a line in README.md": f"advbench {name}" not in readme,
        }
        missing += [f"{name}: {what}" for what, is_missing in lacks.items() if is_missing]

    assert "run" in commands
    assert missing == []


def test_a_baseline_imports_only_what_a_stranger_s_defense_may(repo: Path):
    files = sorted((repo / "baselines").glob("*.py"))
    assert files

    wrong = [
        f"{path.name}: {name}"
        for path in files
        for name in sorted(imports(path))
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in BASELINES_MAY_IMPORT)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import advbench.train", "advbench.train"),
        ("from advbench import train", "advbench.train"),
        ("from advbench.baselines.pgd_at import PGDAT", "advbench.baselines.pgd_at"),
        ("from .pgd_at import PGDAT", ".pgd_at"),
        ("def f():\n    import numpy.linalg", "numpy.linalg"),
    ],
)
def test_the_search_for_imports_sees_each_way_to_write_one(tmp_path: Path, line, name):
    (tmp_path / "x.py").write_text(line, encoding="utf-8")

    assert imports(tmp_path / "x.py") == {name}


def test_every_file_is_read_in_one_sitting(repo: Path):
    files = [path for folder in ("suite", "baselines", "tests") for path in sorted((repo / folder).rglob("*.py"))]
    lines = {str(path.relative_to(repo)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}

    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def tree(text: str) -> set[str]:
    """The paths of an indented tree, one a line, what follows a path being a remark."""
    found: set[str] = set()
    above: list[tuple[int, str]] = []
    for line in filter(str.strip, text.splitlines()):
        depth = len(line) - len(line.lstrip())
        above = [(d, folder) for d, folder in above if d < depth]
        path = (f"{above[-1][1]}/" if above else "") + line.split()[0].rstrip("/")
        above.append((depth, path))
        found.add(path)
    return found


def test_the_tree_is_what_lies_on_the_disk(repo: Path):
    listed = tree(block(repo / "docs" / "tree.md", "tree"))
    ignored = {line.strip().strip("/") for line in (repo / ".gitignore").read_text(encoding="utf-8").splitlines()}
    package = repo / "suite" / "advbench"
    there = {path.name for path in repo.iterdir() if not path.name.startswith(".")} - ignored
    there |= {f"suite/advbench/{path.name}" for path in package.iterdir() if path.suffix in {"", ".py"}}
    there -= {"suite/advbench/__init__.py", "suite/advbench/__pycache__"}

    assert sorted(path for path in listed if not (repo / path).exists()) == []
    assert sorted(there - listed) == []


def test_a_tree_may_be_written_with_whole_paths_or_with_indents():
    assert tree("a/        one\n  b/  two\n    c.py\n  d.py  three\na/e.py") == {
        "a",
        "a/b",
        "a/b/c.py",
        "a/d.py",
        "a/e.py",
    }


def test_the_readme_gives_ci_its_command(repo: Path):
    command, slow = (block(repo / "README.md", marker).strip() for marker in ("test-command", "slow-command"))

    assert "\n" not in command, "one line for a newcomer"
    assert "-c constraints.txt" in command
    assert command.endswith("tox")
    assert slow == f"{command.split()[-1]} -e slow"
    assert os.access(repo / ".ci" / "run", os.X_OK)


def test_every_test_is_in_one_of_the_two_commands(repo: Path):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(repo / "tox.ini", encoding="utf-8")
    tests, slow = (tox[f"testenv:{name}"]["commands"] for name in ("tests", "slow"))

    assert "tests" in tox["tox"]["env_list"]
    assert '-m "not slow"' in tests
    assert "-m slow" in slow
    assert "--ignore" not in tests + slow
    assert "--deselect" not in tests + slow
