"""From a file to the class in it: the suite's own parts, baselines, and what a user wrote.

The folder listing is the registry: an attack called `pgd` is the file attacks/pgd.py, a defense called `pgd-at`
is baselines/pgd_at.py. To add one is to add one file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

import advbench
from advbench.attacks.base import Attack
from advbench.collectors.base import Collector
from advbench.identity import code
from advbench.spec import BadInput, Part
from advbench.study import Study

PACKAGE = Path(advbench.__file__).parent
NO_PARTS = {"__init__", "base"} | {
    "apgd_schedule",
    "augment",
    "classes",
    "decode",
    "fab_projections",
    "folders",
    "gates",
    "input_spectrum",
    "lanczos",
    "landscape",
    "library",
    "pool",
    "preact",
    "published",
    "randaugment",
    "squares",
    "stream",
    "subsets",
    "weight_products",
}
"""Files of the part folders that hold no part."""

P = TypeVar("P", bound=Part)


def names(folder: Path) -> list[str]:
    """The parts that a folder holds, by name."""
    return sorted(f.stem.replace("_", "-") for f in folder.glob("*.py") if f.stem not in NO_PARTS)


def classes(inside: ModuleType, kind: type[P]) -> list[type[P]]:
    """Those of `kind` that the module itself defines."""
    found = [c for c in vars(inside).values() if isinstance(c, type) and issubclass(c, kind)]
    return [c for c in found if c.__module__ == inside.__name__]


def own(kind: type[P], path: Path) -> type[P]:
    """Run a user's file and return the one class of `kind` in it: a defense, an attack, a collector or a study.

    Raises BadInput when it cannot be loaded, or when it is no defense and called like one of the suite's, for scores
    and measures go by their names.
    """
    inside = module(path, kind.__name__.lower())
    found = classes(inside, kind)
    if len(found) != 1:
        raise BadInput(f"{path}: should define one subclass of {kind.__module__}.{kind.__name__}, it has {len(found)}")
    further = {Collector: ["about"], Study: ["about", "claims", "plot", "seconds"]}.get(kind, [])  # type: ignore[call-overload]
    for attribute in ("name", "paper", *further):
        if not hasattr(found[0], attribute):
            raise BadInput(f'{path}: {found[0].__name__} has no {attribute}; add {attribute} = "..."')
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(found[0].name)):
        raise BadInput(f"{path}: name {found[0].name!r} names folders: use letters, digits and . _ -")
    folder = {Attack: "attacks", Collector: "collectors", Study: "studies"}.get(kind)  # type: ignore[call-overload]
    if folder and found[0].name in names(PACKAGE / folder):
        raise BadInput(f"{path}: '{found[0].name}' is one of the suite's {folder}; give it another name")
    found[0].sha256 = inside.__dict__["SHA256"]
    return found[0]


def module(path: Path, what: str) -> ModuleType:
    """Run a stranger's file, once for the same bytes. Raises BadInput when it cannot be loaded; `what` it should be."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(source).hexdigest()
    name = f"advbench_{what}_{path.stem}_{digest[:12]}"
    if name not in sys.modules:
        if path.suffix != ".py":
            raise BadInput(f"{path}: a {what} is a Python file (*.py)")
        spec = importlib.util.spec_from_loader(name, _Read(name, str(path), source))
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        made.__dict__["SHA256"] = code(source)
        sys.modules[name] = made  # before it runs: pydantic and pickle look modules up by name
        try:
            spec.loader.exec_module(made)
        except (Exception, SystemExit) as error:  # whatever a stranger's file raises, sys.exit() too
            del sys.modules[name]
            raise BadInput(f"{path}: raised on import: {type(error).__name__}: {error}{where_in(path)}") from error
    return sys.modules[name]


class _Read(SourceFileLoader):
    """Runs the very bytes that were hashed; Python's cache knows a file by its size and second only."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self.source_to_code(self.source, self.path)


def where_in(path: Path) -> str:
    """Of the exception that is being handled: ` (line 12)`, where that lies in the file."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    # Frames know the absolute path, whatever the task file wrote.
    inside = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f" (line {inside[-1]})" if inside else ""
