"""Where what is merged comes to lie, in which order, and what goes for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from advbench.record import MEASURES, load
from advbench.results.merge import Merged, merge
from advbench.results.verify import verify
from advbench.spec import BadInput


@pytest.fixture
def pair(tmp_path: Path, lay) -> tuple[Path, Path]:
    """Two folders with one job each."""
    one, other = tmp_path / "one", tmp_path / "other"
    lay(one, "a")
    lay(other, "b")
    return one, other


def test_what_a_preferred_record_does_not_have_does_not_stay_of_the_other(tmp_path: Path, pair, lay):
    one, other = pair
    lay(other, "a", id="another")
    for name in ("best", "last"):
        (other / "runs" / "t" / "a-s0" / f"{name}.safetensors").unlink()
    old = one / "records" / "t" / "a-s0"
    (old / MEASURES).write_bytes(b"arrays of the other job")

    assert merge([other], one, prefer=other) == Merged(("t/b-s0",), ("t/a-s0",), 0)
    assert load(old / "record.json").id == "another"
    assert sorted(file.name for file in old.iterdir()) == ["examples.parquet", "record.json"]
    assert not list((one / "runs" / "t" / "a-s0").glob("*.safetensors"))
    assert not list((one / "runs").glob(".merge*"))
    # And the folder itself may be the one that wins.
    lay(other, "a", id="a third")
    assert merge([other], one, prefer=one) == Merged((), (), 2)
    assert load(old / "record.json").id == "another"


def test_everything_is_on_the_disk_before_it_moves_and_json_comes_last(
    tmp_path: Path, pair, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    moved: list[tuple[str, int]] = []
    replace = Path.replace

    def move(self: Path, target: Path) -> Path:
        moved.append((Path(target).suffix, self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    monkeypatch.setattr(Path, "replace", move)
    merge(pair, tmp_path / "out")
    suffixes = [suffix for suffix, _ in moved]
    assert suffixes.count(".json") == 2
    assert suffixes[-2:] == [".json"] * 2
    assert sorted(synced) == sorted(size for _, size in moved)
    assert min(synced) > 0


def test_of_two_failed_tries_the_first_stays_and_a_finished_one_wins_from_either_side(tmp_path: Path, lay):
    one, other, done = (tmp_path / name for name in ("one", "other", "done"))
    lay(one, "a", status="failed", error="ValueError: first", scores=None)
    lay(other, "a", status="failed", error="KeyError: second", scores=None)
    lay(done, "a")
    file = Path("records") / "t" / "a-s0" / "record.json"

    assert merge([one, other], tmp_path / "out") == Merged(("t/a-s0",), (), 0)
    assert load(tmp_path / "out" / file).error == "ValueError: first"
    for sources in ([done, one], [one, done]):
        out = tmp_path / sources[0].name / "out"
        merge(sources, out)
        assert load(out / file).status == "ok"
        assert verify(out).broken == []


def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path: Path, pair):
    one, _ = pair
    (one / "records/t/a-s0/examples.parquet").write_bytes(b"")
    with pytest.raises(BadInput, match="is not what was written"):
        merge(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()
