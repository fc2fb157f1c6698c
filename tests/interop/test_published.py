"""RobustBench's own files, copied from its repository, survive import and export; hostile ones do not get in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from advbench import bridge, interop
from advbench.interop import published
from advbench.spec import BadInput

Lay = Callable[..., Path]

THEIRS = Path(__file__).parent / "model_info"


def spelled(file: Path) -> Any:
    """A file's fields in their order, with each number as it is spelled."""
    fields = json.loads(file.read_bytes(), object_pairs_hook=list, parse_float=str, parse_int=str)
    # One of them says the same twice.
    return list(dict.fromkeys(map(tuple, fields)))


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        published.read(path)
    [line] = caught.value.lines
    return line


def test_their_files_survive_import_and_export_in_every_field(tmp_path: Path):
    published.save(published.read(THEIRS)[0], tmp_path / "published.json")
    interop.export("robustbench", tmp_path / "published.json", tmp_path / "back")

    names = sorted(str(file.relative_to(THEIRS)) for file in THEIRS.rglob("*.json"))
    assert len(names) == 16
    assert sorted(str(file.relative_to(tmp_path / "back")) for file in (tmp_path / "back").rglob("*")) == sorted(
        {*names, *(str(folder) for name in names for folder in Path(name).parents if folder.name)}
    )
    for name in names:
        assert spelled(tmp_path / "back" / name) == spelled(THEIRS / name)


def test_their_files_of_today_s_spelling_survive_to_the_byte_but_for_the_last_newline(tmp_path: Path):
    published.write(published.read(THEIRS)[0], tmp_path)

    # The oldest are written in one line, some say their signs in ASCII, and one says the same twice.
    today = [file for file in THEIRS.rglob("*.json") if file.read_bytes().startswith(b"{\n")]
    today = [file for file in today if b"\\u" not in file.read_bytes() and "CARD_Deck" not in file.name]
    assert len(today) == 11
    for file in today:
        assert (tmp_path / file.relative_to(THEIRS)).read_bytes().rstrip() == file.read_bytes().rstrip()


def test_their_own_code_reads_what_came_back(tmp_path: Path, monkeypatch, capsys):
    bridge.robustbench()
    from robustbench import utils

    published.write(published.read(THEIRS)[0], tmp_path / "model_info")
    seen: list[str] = []
    for folder in (THEIRS.parent, tmp_path):
        monkeypatch.chdir(folder)
        utils.list_available_models("cifar10", "Linf")
        seen.append(capsys.readouterr().out)

    assert seen[0] == seen[1]
    assert "**Carmon2019Unlabeled**" in seen[0]


def test_the_file_is_a_table_for_pandas(tmp_path: Path):
    published.save(published.read(THEIRS)[0], tmp_path / "published.json")

    found = json.loads((tmp_path / "published.json").read_text("utf-8"))
    frame = pd.json_normalize(found["models"]).set_index("id")
    assert frame.loc["Bai2024MixedNUTS", "fields.external"] == "69.71"
    assert frame.loc["Bai2024MixedNUTS", "dataset"] == "cifar10"


def test_the_board_is_sorted_as_theirs_with_ours_in_its_place(tmp_path: Path, lay: Lay):
    lay(tmp_path, robust=0.6543)
    lay(tmp_path, "other", protocol="autoattack-fast")  # not the same measurement
    lay(tmp_path, "narrow", job={"threat": {"norm": "L2", "eps": "1/2"}})  # another board
    lay(tmp_path, "broken", error="RuntimeError: no memory")

    lines = published.lines(published.read(THEIRS)[0], "cifar10/Linf", tmp_path, {})

    # An external attack found 69.71 where AutoAttack had left 70.08.
    assert [(line.id, line.here, line.robust) for line in lines] == [
        ("Bai2024MixedNUTS", False, 69.71),
        ("cifar10-linf/pgd-at-s0", True, 65.43),
        ("Carmon2019Unlabeled", False, 59.53),
        ("Xiao2020Enhancing", False, 7.15),
        ("Standard", False, 0.0),
    ]


def test_text_is_in_percent_and_a_number_is_a_fraction():
    # As the entry of AlexNet: "clean_acc": 0.5538 beside "corruptions_acc_2d": "21.12".
    [line] = [
        one for one in published.lines(published.read(THEIRS)[0], "imagenet/corruptions", None, {}) if "Alex" in one.id
    ]

    assert line.clean == pytest.approx(55.38, abs=1e-9)
    assert line.robust == 21.12
    assert published.number("") is None
    assert published.number(None) is None


HOSTILE = {
    "nan": ('{"clean_acc": NaN}', "not an entry: NaN is not JSON"),
    "infinite": ('{"clean_acc": 1e999}', "not an entry: 1e999 is no number that can be kept"),
    "list": ("[1]", "not an entry: list, not an object"),
    "cut": ('{"link": ', "not an entry: Expecting value: line 1 column 10 (char 9)"),
    "twice": ('{"link": "a", "link": "b"}', "not an entry: a field stands there twice, with different values"),
    # As four of theirs did when they came in (Jia2022LAS-AT).
    "no quotes": ('{\n  "link": https://arxiv.org/abs/2203.06616\n}', "not an entry: Expecting value: line 2"),
    "deep": ("[" * 100_000, "not an entry: "),
    "half a pair": ('{"link": "\\ud800"}', "Invalid JSON: "),
    "latin": ('{"link": "ö"}'.encode("latin-1"), "not an entry: 'utf-8' codec can't decode"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_entry_is_one_line(tmp_path: Path, case):
    content, why = HOSTILE[case]
    file = tmp_path / "cifar10" / "Linf" / "Ada2026Oven.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())

    assert refused(tmp_path).startswith(f"{file}: {why}")


def test_a_file_that_is_no_entry_is_told_and_the_others_are_read(tmp_path: Path):
    shutil.copytree(THEIRS, tmp_path / "model_info")
    file = tmp_path / "model_info" / "cifar100" / "Linf" / "Jia2022LAS-AT_34_20.json"
    file.write_text(str(HOSTILE["no quotes"][0]), encoding="utf-8")

    entries, lost = published.read(tmp_path)
    assert entries == published.read(THEIRS)[0]
    assert lost == [f"{file}: not an entry: Expecting value: line 2 column 11 (char 12)"]
    # Of a file of ours nothing is left out.
    published.save(entries, tmp_path / "ours.json")
    (tmp_path / "ours.json").write_bytes((tmp_path / "ours.json").read_bytes()[:-9])
    assert refused(tmp_path / "ours.json").startswith(f"{tmp_path / 'ours.json'}: not an entry: ")


@pytest.mark.parametrize("field", ["dataset", "threat", "id"])
def test_a_file_of_entries_cannot_name_a_path(tmp_path: Path, field):
    entry = {"dataset": "cifar10", "threat": "Linf", "id": "Ada2026Oven", "fields": {}}
    file = tmp_path / "published.json"
    file.write_text(json.dumps({"models": [entry | {field: "../../x"}]}), encoding="utf-8")

    assert refused(file).startswith(f"{file}: models[0].{field}: should match pattern")


def test_folders_without_entries_and_no_folder_are_told(tmp_path: Path):
    assert "holds no <dataset>/<threat model>/<ID>.json" in refused(tmp_path)
    assert "no such file or folder" in refused(tmp_path / "absent")
    with pytest.raises(BadInput, match="a folder; -o takes the file"):
        published.save([], tmp_path)


def test_an_output_below_a_file_is_a_line(tmp_path: Path):
    entries = published.read(THEIRS)[0]
    published.save(entries, tmp_path / "file.json")

    with pytest.raises(BadInput, match="cannot be written: File exists; choose another file with -o"):
        published.save(entries, tmp_path / "file.json" / "x")
    with pytest.raises(BadInput, match="cannot be written: Not a directory; choose another folder with -o"):
        interop.export("robustbench", tmp_path / "file.json", tmp_path / "file.json" / "x")


def test_a_board_is_sorted_by_accuracy_then_by_name_and_those_without_one_are_last():
    def entry(name: str, **fields: Any) -> published.Published:
        return published.Published(dataset="cifar10", threat="Linf", id=name, fields=fields)

    found = [entry("b"), entry("a", autoattack_acc=""), entry("z", autoattack_acc="0.0"), entry("y", external="0.5")]
    found += [entry("x", autoattack_acc="99", external="0.25"), entry("w", corruptions_acc="0.5")]

    lines = published.lines(found, "cifar10/Linf", None, {})

    assert [(line.id, line.robust) for line in lines] == [
        *(("w", 0.5), ("y", 0.5), ("x", 0.25), ("z", 0.0), ("a", None), ("b", None))
    ]
    assert not any(line.here for line in lines)
    assert {line.clean for line in lines} == {None}


def test_writing_says_how_many(tmp_path: Path):
    assert published.write(published.read(THEIRS)[0], tmp_path) == [f"{tmp_path}: 16 entries of RobustBench"]
