"""How a job's files get home: what changes is sent, and neither a moment nor a full disk breaks it."""

from __future__ import annotations

import time
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only value is the time."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_next_look_is_after_a_pause_or_ten_times_what_sending_took(tmp_path: Path, clock: list[float]):
    sent = Mirror(tmp_path, "t/d-s0")
    assert sent.due == 105.0
    folder = run_folder(tmp_path, "t/d-s0")
    folder.mkdir(parents=True)
    for seconds, due in ((0.25, 105.25), (2, 122.25)):
        (folder / "last.safetensors").write_bytes(b"x" * int(4 * seconds))
        for _ in sent.changed():
            clock[0] += seconds
        assert sent.due == due


def test_what_changed_is_sent_once_a_log_by_its_end_and_all_else_whole(tmp_path: Path):
    folder = run_folder(tmp_path, "t/d-s0")
    (folder / "journal").mkdir(parents=True)
    (folder / "known.pt").write_bytes(b"at home already")
    (folder / "log.txt").write_bytes(b"at home already\n")
    sent = Mirror(tmp_path, "t/d-s0")
    assert list(sent.changed()) == []

    for name in (".log.txt.1.tmp", "lock", "checkpoint.previous.pt"):
        (folder / name).write_bytes(b"nobody's business")
    (folder / "journal" / "0.json").write_bytes(b"block")
    with (folder / "log.txt").open("ab") as log:
        log.write(b"one\n")
    at = "runs/t/d-s0"
    log = Piece(f"{at}/log.txt", b"one\n", grows=True)
    # The log first: who sees a checkpoint at home can read there how it came to be, however soon the node is lost.
    assert list(sent.changed()) == [log, Piece(f"{at}/journal/0.json", b"block", grows=False)]
    assert list(sent.changed()) == []
    (folder / "known.pt").write_bytes(b"longer than it was before")
    (folder / "log.txt").write_bytes(b"at home already\none\ntwo\nthree\n")
    assert list(sent.changed()) == [
        log._replace(content=b"two\nthree\n"),
        Piece(f"{at}/known.pt", b"longer than it was before", grows=False),
    ]
    new = run_folder(tmp_path, "t/e-s0")
    sent = Mirror(tmp_path, "t/e-s0")
    new.mkdir()
    (new / "log.txt").write_bytes(b"all of it")
    assert list(sent.changed()) == [Piece("runs/t/e-s0/log.txt", b"all of it", grows=True)]
    assert list(sent.changed()) == []


def test_at_home_a_checkpoint_has_its_predecessor_and_a_new_folder_is_made(tmp_path: Path):
    for content in (b"one", b"two"):
        for name in ("checkpoint.pt", "journal/0.json"):
            take(tmp_path, Piece(f"runs/t/d-s0/{name}", content, grows=False))
        take(tmp_path, Piece("runs/new/deep/log.txt", content, grows=True))
    folder = run_folder(tmp_path, "t/d-s0")
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}
    assert found == {"checkpoint.pt": b"two", "checkpoint.previous.pt": b"one", "journal/0.json": b"two"}
    assert (tmp_path / "runs" / "new" / "deep" / "log.txt").read_bytes() == b"onetwo"


def test_another_node_goes_on_with_what_is_at_home_but_for_the_log(tmp_path: Path):
    home, there = tmp_path / "home", tmp_path / "there"
    files = {"runs/t/d-s0/journal/0.json": b"block", "records/t/d-s0/record.json": b"{}"}
    mirror.lay(home, files | {"runs/t/d-s0/log.txt": b"long", "runs/t/e-s0/last.safetensors": b"another job's"})
    assert mirror.kept(home, "t/d-s0") == files
    mirror.lay(there, files)
    assert mirror.kept(there, "t/d-s0") == files
