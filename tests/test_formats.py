"""The commands export and import, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

THEIRS = Path(__file__).parent / "interop" / "model_info"


def test_export_says_what_it_wrote(repo: Path, tmp_path: Path, command):
    record = repo / "leaderboard" / "records" / "digits-linf" / "pgd-at-s0"
    done = command(tmp_path, "export", "huggingface", str(record))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "exported/huggingface/README.md\n"
    assert (tmp_path / "exported" / "huggingface" / "README.md").is_file()


def test_an_unknown_format_lists_them(tmp_path: Path, command):
    done = command(tmp_path, "export", "csv")

    assert done.returncode == 2
    assert all(kind in done.stderr for kind in ("robustbench", "huggingface", "parquet", "tensorboard"))
    assert "Traceback" not in done.stderr


def test_what_cannot_be_exported_is_a_line(repo: Path, tmp_path: Path, command):
    board = repo / "leaderboard" / "records" / "mnist-linf" / "pgd-at-s0"
    done = command(tmp_path, "export", "robustbench", str(board))

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("advbench: 1 of 1 records: RobustBench has no board for mnist under Linf")
    assert list(tmp_path.iterdir()) == []


def test_import_keeps_the_entries_and_counts_them(tmp_path: Path, command):
    done = command(tmp_path, "import", "robustbench", str(THEIRS), "-o", "published.json")

    assert done.returncode == 0, done.stderr
    counts = {"cifar10/L2": 2, "cifar10/Linf": 4, "cifar10/corruptions": 2, "cifar100/Linf": 2}
    counts |= {"cifar100/corruptions": 1, "imagenet/Linf": 2, "imagenet/corruptions": 3}
    lines = [f"{board}: {count} {'entry' if count == 1 else 'entries'}" for board, count in counts.items()]
    assert done.stdout.splitlines() == ["published.json: 16 entries", *lines]
    assert len(json.loads((tmp_path / "published.json").read_text("utf-8"))["models"]) == 16


def test_import_shows_a_board_and_says_what_was_not_measured_here(tmp_path: Path, command):
    done = command(tmp_path, "import", "robustbench", str(THEIRS), "--board", "cifar10/Linf")

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "2019" in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("Carmon2019Unlabeled", "59.53%", "89.69%", "yes", "published"))


def test_records_that_were_measured_otherwise_are_said_to_be(tmp_path: Path, repo: Path, command):
    beside = str(repo / "leaderboard")
    done = command(tmp_path, "import", "robustbench", str(THEIRS), "--board", "cifar10/Linf", "--beside", beside)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{beside}: no record was measured as cifar10/Linf measures"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "absent: no such file or folder; give the model_info folder"),
        (["--beside", "results"], "--beside needs a --board, such as --board cifar10/Linf"),
        (["--board", "cifar10/linf"], "--board cifar10/linf: no entry of it; did you mean 'cifar10/Linf'?"),
        (["-o", "."], ".: a folder; -o takes the file that the entries go into"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path: Path, command, arguments, line):
    source = str(THEIRS) if arguments else "absent"
    done = command(tmp_path, "import", "robustbench", source, *arguments)

    assert done.returncode == 2
    assert done.stderr.startswith(f"advbench: {line}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
