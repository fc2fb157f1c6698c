"""How a job's files get home: what changes is sent, and neither a moment nor a full disk breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from advbench.execute import mirror
from advbench.execute.mirror import Mirror, take
from advbench.execute.wire import Piece
from advbench.files import Unwritable
from advbench.plan import run_folder


def test_a_file_that_is_being_replaced_is_sent_by_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sent = Mirror(tmp_path, "t/d-s0")
    folder = run_folder(tmp_path, "t/d-s0")
    (folder / "journal").mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"one")
    (folder / "journal" / "0").write_bytes(b"block")
    files = mirror._files

    def moment(folder: Path) -> list[Path]:
        found = files(folder)
        (folder / "checkpoint.pt").rename(folder / "checkpoint.previous.pt")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "_files", moment)
        first = [piece.path for piece in sent.changed()]
    (folder / "checkpoint.pt").write_bytes(b"two")

    assert first == ["runs/t/d-s0/journal/0"]
    assert list(sent.changed()) == [Piece("runs/t/d-s0/checkpoint.pt", b"two", grows=False)]


def test_a_log_grows_at_home_and_a_disk_without_room_is_one_line(tmp_path: Path):
    for content in (b"one\n", b"two\n"):
        take(tmp_path, Piece("runs/log.txt", content, grows=True))
    assert (tmp_path / "runs" / "log.txt").read_bytes() == b"one\ntwo\n"

    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(Unwritable, match="full: cannot be written: No space left on device; make room there"):
        take(tmp_path, Piece("full", b"more", grows=True))
