"""Processes of tests that are forked from one that has loaded torch: a fresh interpreter takes seconds for it.

That one does nothing but load and fork, and so has no thread and no state that a fresh interpreter would not have.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import runpy
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

LOADED = ["pytest", "sklearn.datasets", "advbench.cli", "advbench.suite", "advbench.resolve", "advbench.run"]


def forks() -> ForkServerContext:
    """Where such processes come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def advbench(arguments: list[str], folder: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """`python -m advbench ARGUMENTS` in this process, in that folder and environment, with its output in files."""
    _write(out, err)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["advbench", *arguments]
    runpy.run_module("advbench", run_name="__main__", alter_sys=True)


def rank(file: str, function: str, number: int, world: int, folder: Path) -> None:
    """Meet the others in `folder`, call the function of that file with the Group, and leave there what it returns.

    That is plain values and tensors.
    """
    _write(folder / f"{number}.txt", folder / f"{number}.txt")
    import torch

    from advbench.parallel import joined

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("group_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["group_test"] = module
    spec.loader.exec_module(module)
    with joined(number, world, torch.device("cpu"), f"file://{folder}/meet") as group:
        torch.save(getattr(module, function)(group), folder / f"{number}.pt")


def _write(out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
