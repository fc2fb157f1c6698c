"""`advbench doctor`: what this machine has and what is missing, each with what to do about it.

A check that raises has found something: it is told like any other finding, so that a broken machine gets a whole list.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.console import Console

from advbench import __version__, machine
from advbench.spec import BadInput

NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "pyautoattack": "pyautoattack",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "scipy": "scipy",
}
"""What every run imports: the name to install it by, and the one to import it by."""
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line."""

    name: str
    state: Literal["ok", "warn", "FAIL"]
    """warn: something optional is missing; FAIL: no run can go well."""
    text: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(results: Path, root: Path) -> list[Finding]:
    """Every finding. Nothing is written, and nothing is downloaded."""
    checks: list[tuple[str, Check]] = [
        ("python", _python),
        ("packages", _packages),
        ("robustbench", _robustbench),
        ("cpu", _cpu),
        ("accelerator", _accelerators),
        ("data", lambda: _data(root)),
        ("results", lambda: _results(results)),
        ("tools", _tools),
    ]
    found: list[Finding] = []
    for name, check in checks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what packages say of each other at import is no finding
                found += check()
        except Exception as error:  # packages that are half installed raise whatever they like
            found.append(Finding(name, "FAIL", f"cannot be told: {_first(error)}", "install advbench anew"))
    return found


def show(results: Path, root: Path, *, as_json: bool) -> int:
    """Print the findings, as lines or as JSON and nothing else; 1 when something that every run needs is broken."""
    found = examine(results, root)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        console = Console(markup=False, emoji=False, highlight=False)
        for finding in found:
            fix = f"; {finding.fix}" if finding.fix else ""
            console.print(f"{finding.state:4} {finding.name}: {finding.text}{fix}", soft_wrap=True)
    return int(any(finding.state == "FAIL" for finding in found))


def _first(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _python() -> Iterator[Finding]:
    new_enough = sys.version_info >= (3, 11)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, advbench {__version__}"
    yield Finding("python", "ok" if new_enough else "FAIL", text, "" if new_enough else "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for name, module in NEEDED.items():
        try:
            found = importlib.import_module(module)
            # torch's own word names the build, which results depend on.
            yield Finding(name, "ok", str(getattr(found, "__version__", None) or version(name)))
        except Exception as error:
            yield Finding(
                name, "FAIL", f"cannot be imported: {_first(error)}", f"try: pip install --force-reinstall {name}"
            )


def _robustbench() -> Iterator[Finding]:
    from advbench import bridge

    try:
        bridge.robustbench()
        yield Finding("robustbench", "ok", version("robustbench"))
    except BadInput as error:  # it says how to mend it; only who asks for its models needs it
        yield Finding("robustbench", "warn", str(error))


def _cpu() -> Iterator[Finding]:
    import torch

    from advbench.precision import bf16_is_fast

    count = machine.cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # What `training.precision = "auto"` asks.
    fast = bf16_is_fast(torch.device("cpu"))
    bf16 = "bf16 fast, so training passes use it" if fast else "bf16 emulated, so training stays fp32"
    cores = f"{count} core{'s' if count > 1 else ''}"
    yield Finding("cpu", "ok", f"{machine.cpu().removeprefix('cpu: ')}, {cores}, {memory / GIB:.0f} GiB, {bf16}")
    # A worker was measured at 0.9 GiB on the starter suite.
    if memory < 1.5 * GIB * count:
        advice = f"fewer jobs at a time: --jobs {max(1, int(memory / GIB / 1.5))}"
        yield Finding("memory", "warn", f"{memory / GIB:.1f} GiB for {count} workers, each of about 1 GiB", advice)


def _accelerators() -> Iterator[Finding]:
    import torch

    from advbench.energy import Meter
    from advbench.precision import bf16_is_fast

    driver = any(Path("/dev").glob("nvidia[0-9]*"))
    found = machine.accelerators() if torch.cuda.is_available() else []
    for device in found:
        about = torch.cuda.get_device_properties(device)
        bf16 = "bf16 fast" if bf16_is_fast(torch.device(device)) else "no fast bf16"
        counted = Meter(torch.device(device)).joules() is not None
        meter = "joules counted" if counted else "no meter of joules: pip install 'advbench[energy]', if it has one"
        yield Finding(device, "ok", f"{about.name}, {about.total_memory / GIB:.0f} GiB, {bf16}, {meter}")
    if driver and not found:
        text = f"there is a GPU, but torch {torch.__version__} cannot use it"
        yield Finding("accelerator", "warn", text, "install a build of torch for its driver: pytorch.org/get-started")
    elif not found:
        yield Finding("accelerator", "ok", "none; tasks that need one are skipped")


def _data(root: Path) -> Iterator[Finding]:
    from pydantic import ValidationError

    from advbench import find
    from advbench.data.base import DATA_ROOT, Missing, Source

    there = "" if root.is_dir() else ", which is not there"
    yield Finding("data root", "ok", f"{root.resolve()}{there}", f"{DATA_ROOT} says another")
    for name in find.names(find.PACKAGE / "data"):
        kind = find.part(Source, name)
        try:
            kind().files(root)
            yield Finding(f"data {name}", "ok", "there")
        except ValidationError:
            continue  # it lies where the task says
        except Missing as missing:
            yield Finding(f"data {name}", "warn", missing.what)


def _results(results: Path) -> Iterator[Finding]:
    # What does not exist yet is made inside the nearest folder that does.
    home = next(folder for folder in (results.resolve(), *results.resolve().parents) if folder.exists())
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        yield Finding("results", "FAIL", f"{results} cannot be written", "choose another folder with --results")
        return
    free = shutil.disk_usage(home).free
    advice = "" if free >= GIB else "make room, or choose another disk with --results"
    text = f"{results} can be written, {free / GIB:.0f} GiB free"
    yield Finding("results", "warn" if advice else "ok", text, advice)


def _tools() -> Iterator[Finding]:
    if shutil.which("git"):
        yield Finding("git", "ok", "records name the commit of a checkout")
    else:
        yield Finding("git", "warn", "not found", "install it, so that records name the commit of a checkout")
    compiler = next((name for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if shutil.which(name)), None)
    if compiler:
        yield Finding("compiler", "ok", f"{compiler}, for torch.compile")
    else:
        yield Finding("compiler", "warn", "no C++ compiler", 'install g++ for training.compile = "on"')
