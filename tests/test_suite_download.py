"""`advbench run --download`: what torchvision knows and the asked-for jobs lack is there before they are planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import SVHN

from advbench import suite
from advbench.execute import local
from advbench.plan import Item
from advbench.spec import BadInput


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of SVHN that were asked for; the network gives 20 images for each."""
    files: list[str] = []

    def give(url: str, root: str, filename: str, md5: str) -> None:
        files.append(filename)
        images = np.random.default_rng(0).integers(0, 256, (4, 4, 3, 20), dtype=np.uint8)
        savemat(Path(root) / filename, {"X": images, "y": np.arange(20) % 10 + 1})

    # The tiny files' digests: torchvision's own check comes after ours, by the same list.
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", give)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    monkeypatch.setattr("advbench.data.svhn.Svhn.verify", lambda *_: None)
    return files


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function: task file, options... -> the plan's items that `advbench run` would have sent to workers."""
    sent: list[Item] = []

    def record(items: list[Item], *_: object) -> list[object]:
        sent.extend(items)
        return []

    def start(path: Path, only: str | None = None, **options: Any) -> list[str]:
        sent.clear()
        options = {"dry_run": False, "download": True, **options}
        suite.run([path], [only] if only else [], tmp_path / "results", tmp_path / "data", "cpu", 1, **options)
        return [item.path for item in sent]

    monkeypatch.setattr(local, "run", record)
    return start


def svhn(tiny, folder: Path, name: str = "t") -> Path:
    return tiny(folder, name, ('name = "npz"\npath = "tiny.npz"', 'name = "svhn"'))


def test_a_missing_set_is_downloaded_and_its_jobs_run(tmp_path: Path, tiny, run, asked, capsys):
    path = svhn(tiny, tmp_path)

    assert run(path) == ["t/standard-s0"]
    assert asked == ["train_32x32.mat", "test_32x32.mat"]
    assert f"downloading svhn to {tmp_path / 'data'}" in capsys.readouterr().out.replace("\n", "")
    asked.clear()
    run(path)
    assert asked == [], "what is there is not downloaded again"


@pytest.mark.parametrize("options", [{"download": False}, {"dry_run": True}])
def test_without_the_flag_or_in_a_dry_run_nothing_is(tmp_path: Path, tiny, run, asked, options, capsys):
    assert run(svhn(tiny, tmp_path), **options) == []
    assert asked == []
    assert "advbench run --download gets it" in capsys.readouterr().out


def test_jobs_that_were_not_asked_for_get_no_data(tmp_path: Path, tiny, run, asked):
    svhn(tiny, tmp_path, "away")
    tiny(tmp_path, "here")

    assert run(tmp_path, "here/*") == ["here/standard-s0"]
    assert asked == []


def test_neither_does_a_task_that_needs_an_accelerator_where_there_is_none(tmp_path: Path, tiny, run, asked):
    path = svhn(tiny, tmp_path)
    path.write_text(path.read_text() + "[resources]\naccelerator = true\n")

    assert run(path) == []
    assert asked == []


def test_a_wrong_task_is_told_before_anything_is_downloaded(tmp_path: Path, tiny, run, asked):
    svhn(tiny, tmp_path, "away")
    tiny(tmp_path, "wrong", ("epochs = 1", "epochs = 0"))

    with pytest.raises(BadInput, match=r"wrong\.toml: training\.epochs"):
        run(tmp_path)
    assert asked == []


def test_what_nobody_may_download_is_skipped_with_the_way_to_get_it(tmp_path: Path, tiny, run, capsys):
    path = tiny(tmp_path, "t", ('name = "npz"\npath = "tiny.npz"', 'name = "imagenet"'))

    assert run(path) == []
    out = capsys.readouterr().out
    assert "downloading" not in out
    assert "https://image-net.org" in out


def test_a_download_that_fails_is_one_line(tmp_path: Path, tiny, run, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(SVHN, "download", fail)
    with pytest.raises(BadInput) as caught:
        run(svhn(tiny, tmp_path))
    assert caught.value.lines == (f"svhn: the download to {tmp_path / 'data'} failed: no route",)
    assert not (tmp_path / "results").exists()
