"""From task files to lines: what is kept of a plan, and what is asked again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_defense import defense_file

from advbench import agenda, resolve
from advbench.index import Index
from advbench.machine import Means
from advbench.plan import recall, remember


@pytest.mark.parametrize("edited", ["t.toml", "mine.py", "data/tiny.npz", None])
def test_a_file_that_is_written_while_the_plan_is_made_is_read_again_by_the_next(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch, edited: str | None
):
    (tmp_path / "mine.py").write_text(defense_file(), encoding="utf-8")
    task = tiny(tmp_path, "t", ('name = "standard"', 'file = "mine.py"'))
    root, results = tmp_path / "data", tmp_path / "r"
    choose = resolve.choose

    def busy(*args):
        if edited:  # an editor saves
            (tmp_path / edited).write_bytes((tmp_path / edited).read_bytes())
        return choose(*args)

    monkeypatch.setattr(resolve, "choose", busy)
    [line], fresh = agenda.lines([task], [], results, root, Index(results), "cpu")
    for file, found in fresh.items():
        remember(results, file, root, *found)

    assert recall(results, task, root) == (None if edited else [line])


@pytest.mark.parametrize(("here", "there"), [(False, ("cuda:0",)), (True, ())])
def test_whether_there_is_an_accelerator_is_the_executor_s_to_say(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch, here: bool, there: tuple[str, ...]
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: here)
    task, index = tiny(tmp_path, "t", more="[resources]\naccelerator = true\n"), Index(tmp_path / "r")
    means = Means(there, 1)

    found, _ = agenda.lines([task], [], tmp_path / "r", tmp_path / "data", index, "auto", means)
    [line] = agenda.states(found, tmp_path / "r", index, "auto", means)

    assert (line.state, line.skip) == (("run", "") if there else ("skip", "needs an accelerator, and there is none"))
