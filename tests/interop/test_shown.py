"""What a person sees of `advbench import`: every cell of a board, whole names, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench.interop.shown import show
from advbench.spec import BadInput

Lay = Callable[..., Path]
THEIRS = Path(__file__).parent / "model_info"
LONG = "WideResNet" + "-x" * 80


def entry(folder: Path, name: str, **fields: Any) -> Path:
    file = folder / "model_info" / "cifar10" / "Linf" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(fields), "utf-8")
    return file


def told(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[str]:
    show(*arguments)
    return capsys.readouterr().out.splitlines()


def test_a_board_has_theirs_and_ours_cell_by_cell(tmp_path: Path, lay: Lay, capsys):
    entry(tmp_path, "Ada", clean_acc="90.00", autoattack_acc="60.5", architecture="[red] :smile:", additional_data=True)
    entry(tmp_path, "Bob", clean_acc=None, autoattack_acc="", architecture=None, additional_data=False)
    lay(tmp_path / "mine", robust=0.5024)
    (tmp_path / "about.toml").write_text('architecture = "PRN-18"', "utf-8")

    found = told(capsys, tmp_path, None, "cifar10/Linf", tmp_path / "mine", tmp_path / "about.toml")

    assert found[0].strip() == "cifar10/Linf"
    cells = [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in found if "%" in line]
    heads = next(line for line in found if "architecture" in line)
    assert [head.strip() for head in heads.strip("┃").split("┃")] == [
        *("#", "model", "robust", "clean", "architecture", "extra data", "from")
    ]
    assert cells == [
        ["1", "Ada", "60.50%", "90.00%", "[red] :smile:", "yes", "published"],
        ["2", "cifar10-linf/pgd-at-s0", "50.24%", "83.57%", "PRN-18", "", "measured here"],
    ]
    [last] = [line for line in found if "Bob" in line]
    assert [cell.strip() for cell in last.strip("│").split("│")] == ["3", "Bob", "", "", "", "", "published"]
    assert "no record was measured" not in found[-1]


def test_a_name_is_whole_and_a_table_as_wide_as_a_page_may_be(tmp_path: Path, capsys):
    entry(tmp_path, "Ada", clean_acc="90.00", autoattack_acc="60.5", architecture=LONG)

    found = told(capsys, tmp_path, None, "cifar10/Linf", None, None)

    assert {len(line) for line in found[1:]} == {160}
    cells = [line.split("│")[5].strip() for line in found if line.startswith("│")]
    assert "".join(cells) == LONG


def test_what_was_kept_lost_and_counted_are_lines_of_their_own(tmp_path: Path, capsys):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    entry(deep, "Ada", clean_acc="90.00")
    file = entry(deep, "Broken")
    file.write_text("{", "utf-8")
    other = deep / "model_info" / "cifar100" / ("L" * 150) / "Bob.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}", "utf-8")
    entry(deep, "Eve")

    found = told(capsys, deep, deep / "kept.json", None, None, None)

    assert found[0] == f"{deep / 'kept.json'}: 3 entries"
    assert found[1].startswith(f"left out: {file}: not an entry: ")
    assert found[2:] == ["cifar10/Linf: 2 entries", f"cifar100/{'L' * 150}: 1 entry"]
    assert len(json.loads((deep / "kept.json").read_text("utf-8"))["models"]) == 3


def test_records_beside_that_were_measured_otherwise_are_said_to_be(tmp_path: Path, lay: Lay, capsys):
    beside = tmp_path / ("d" * 180)
    lay(beside, protocol="pgd-20")

    found = told(capsys, THEIRS, None, "cifar10/Linf", beside, None)

    assert found[-1] == f"{beside}: no record was measured as cifar10/Linf measures"
    assert not told(capsys, THEIRS, None, "cifar10/Linf", None, None)[-1].startswith(str(beside))


@pytest.mark.parametrize(
    ("board", "beside", "line"),
    [
        (None, Path("x"), "--beside needs a --board, such as --board cifar10/Linf"),
        ("cifar10/linf", None, "--board cifar10/linf: no entry of it; did you mean 'cifar10/Linf'?"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path: Path, board, beside, line):
    with pytest.raises(BadInput) as caught:
        show(THEIRS, tmp_path / "out.json", board, beside, None)

    assert caught.value.lines == (line,)
    assert list(tmp_path.iterdir()) == []
