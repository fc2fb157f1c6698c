"""`advbench new`: a file to start from, and its test, as they lie in `starters/`, under a name of one's own."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import re
from pathlib import Path

from advbench.spec import BadInput
from advbench.task import shipped

PACKAGE = Path(__file__).parent
STARTERS = PACKAGE / "starters"
NAME = r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*"
LONGEST = 60
"""Letters of a name: it names files and rows."""


def new(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the files of a defense, attack, collector or task called `name` into `folder`; returns them, test last.

    Nothing that is there is overwritten, and of several files all are written or none. Raises BadInput.
    """
    word = name.lower().replace("_", "-")
    module = word.replace("-", "_")
    if not re.fullmatch(NAME, name) or len(name) > LONGEST or keyword.iskeyword(module):
        raise BadInput(f"{name[:LONGEST]!r} cannot be a name: use letters, digits and - between, such as my-{kind}")
    if word in _taken(kind):
        raise BadInput(f"the {kind} '{word}' is one of the suite's (`advbench list {kind}s`); choose another name")
    if kind != "task" and _shadows(module, folder):
        raise BadInput(f"'{module}' is a Python module already, and the test would import that; choose another name")
    starters = [f"my_{kind}.toml"] if kind == "task" else [f"my_{kind}.py", f"test_my_{kind}.py"]
    changes = {f"my-{kind}": word, f"my_{kind}": module, f"My{kind.title()}": _camel(word), "My task": name}
    pattern = re.compile("|".join(changes))
    texts = {
        folder / starter.replace(f"my_{kind}", module): pattern.sub(
            lambda found: changes[found[0]], (STARTERS / starter).read_text("utf-8")
        )
        for starter in starters
    }
    _write(folder, texts)
    return list(texts)


def _taken(kind: str) -> set[str]:
    """Names of what the suite has, and of its files that are no parts."""
    folder = {"attack": PACKAGE / "attacks", "collector": PACKAGE / "collectors", "defense": shipped("baselines")}
    files = shipped("tasks").rglob("*.toml") if kind == "task" else folder[kind].glob("*.py")
    return {file.stem.replace("_", "-") for file in files}


def _camel(word: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in word.split("-"))


def _shadows(module: str, folder: Path) -> bool:
    """Whether `import module` would find something that does not lie in `folder`."""
    found = importlib.util.find_spec(module)
    return found is not None and (found.origin is None or Path(found.origin).resolve().parent != folder.resolve())


def _write(folder: Path, texts: dict[Path, str]) -> None:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        for path in made:  # the innermost comes first
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, FileExistsError) and folder.is_dir():
            raise BadInput(f"{error.filename}: is there already, and stays; choose another name or -o FOLDER") from None
        raise BadInput(f"{folder}: cannot be written: {error.strerror}; choose another folder with -o") from None


RUN = {
    "defense": 'in a task file, [[defense]] file = "{0.name}"',
    "attack": 'in a task file, attacks = ["fgsm", {{ file = "{0.name}" }}]',
    "collector": "advbench collect MODEL --task FILE --collector {0}",
    "task": "advbench run {0}",
}


def told(kind: str, files: list[Path]) -> list[str]:
    """What a person should know of the files: where they are, and what comes next."""
    test = f"advbench validate {files[0]}" if kind == "task" else f"pytest {files[-1]}"
    return [*map(str, files), f"test it: {test}", f"run it:  {RUN[kind].format(files[0])}"]
