"""Entries of RobustBench: its own code reads them, they say what the record says, and nothing else is let through."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench import bridge, interop
from advbench.interop.model_info import UNRELIABLE, dumped
from advbench.record import Flag
from advbench.spec import BadInput

Lay = Callable[..., Path]

ABOUT = """\
authors = "Ada Lovelace, Grace Hopper"
venue = "ICML 2026"

[pgd-at]
id = "Carmon2019Unlabeled"
name = "Towards Robust Öfen"
link = "https://example.org/paper"
architecture = "PreActResNet-18"
reported = "50.5"
"""


def entries(out: Path) -> dict[str, dict[str, Any]]:
    return {str(f.relative_to(out)): json.loads(f.read_text("utf-8")) for f in out.rglob("*.json")}


def refused(*arguments: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        interop.export("robustbench", *arguments)
    return list(caught.value.lines)


def test_an_entry_has_their_fields_in_their_order_and_what_nobody_said_is_empty(tmp_path: Path, lay: Lay):
    interop.export("robustbench", lay(tmp_path), tmp_path / "out")

    [(name, fields)] = entries(tmp_path / "out").items()
    assert name == "cifar10/Linf/cifar10-linf_pgd-at-s0.json"
    assert list(fields.items()) == [
        ("link", ""),
        ("name", "pgd-at"),
        ("authors", ""),
        ("additional_data", False),
        ("number_forward_passes", 1),
        ("dataset", "cifar10"),
        ("venue", ""),
        ("architecture", "preact-resnet18"),
        ("eps", "8/255"),
        ("clean_acc", "83.57"),
        ("reported", ""),
        ("autoattack_acc", "50.24"),
        ("unreliable", False),
    ]


def test_their_own_code_reads_what_we_write(tmp_path: Path, lay: Lay, monkeypatch, capsys):
    bridge.robustbench()
    from robustbench import utils

    (tmp_path / "about.toml").write_text(ABOUT, encoding="utf-8")
    interop.export("robustbench", lay(tmp_path), tmp_path / "model_info", tmp_path / "about.toml")
    monkeypatch.chdir(tmp_path)

    utils.list_available_models("cifar10", "Linf")
    row = capsys.readouterr().out.splitlines()[-1]
    assert "**Carmon2019Unlabeled**" in row
    assert "[Towards Robust Öfen](https://example.org/paper)" in row
    assert "83.57%" in row
    assert "50.24%" in row
    assert "PreActResNet-18" in row
    assert "ICML 2026" in row
    tex = utils.get_leaderboard_latex("cifar10", "Linf")
    shown = r"1 &\citet{Carmon2019Unlabeled} & 83.57 & 50.24 & N & PreActRN-18 & ICML 2026 & Carmon2019Unlabeled\\"
    assert tex == shown
    [bibtex], _ = utils.get_leaderboard_bibtex("cifar10", "Linf")
    assert "author\t= {Ada Lovelace and Grace Hopper}" in bibtex
    assert "year\t= {2026}" in bibtex


def test_fields_are_those_of_their_own_class(tmp_path: Path, lay: Lay):
    bridge.robustbench()
    from robustbench.utils import ModelInfo

    interop.export("robustbench", lay(tmp_path), tmp_path / "out")

    [fields] = entries(tmp_path / "out").values()
    # The files of the board have two that the class lacks.
    assert set(fields) <= {field.name for field in dataclasses.fields(ModelInfo)} | {"unreliable", "external"}


def test_l2_is_written_as_their_files_write_it(tmp_path: Path, lay: Lay):
    interop.export("robustbench", lay(tmp_path, job={"threat": {"norm": "L2", "eps": "1/2"}}), tmp_path / "out")

    [(name, fields)] = entries(tmp_path / "out").items()
    assert name.startswith("cifar10/L2/")
    assert fields["eps"] == "0.5"


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "eps": (
        {"job": {"threat": {"eps": "4/255"}}},
        "eps is 4/255, and RobustBench's board for cifar10 under Linf has 8",
    ),
    "no-eps": ({"job": {"threat": {"eps": None}}}, "eps is None"),
    "odd-eps": ({"job": {"threat": {"eps": "1/0"}}}, "eps is 1/0"),
    "data": ({"job": {"data": {"name": "cifar10-jpeg"}}}, "RobustBench has no board for cifar10-jpeg under Linf"),
    "no-data": ({"job": {"data": "cifar10"}}, "RobustBench has no board for ? under Linf"),
    "norm": ({"job": {"threat": {"norm": "L1", "eps": "12"}}}, "RobustBench has no board for cifar10 under L1"),
    "imagenet": ({"job": {"data": {"name": "imagenet"}}}, "RobustBench has no board for imagenet under Linf"),
    "protocol": (
        {"protocol": "autoattack-fast"},
        "judged by autoattack-fast, and RobustBench's column is the",
    ),
    "examples": ({"n": 1000}, "judged on 1,000 test examples, and RobustBench takes all 10,000"),
    "stopped": ({"robust": None}, "it was not attacked to the end"),
    "elsewhere": ({"job": {"defense": None}, "defense": "external"}, "trained elsewhere: say additional_data ="),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_measurement_is_refused_with_the_difference(tmp_path: Path, lay: Lay, case):
    changes, why = DIFFERENT[case]
    folder = lay(tmp_path, **changes)
    if case == "elsewhere":
        file = folder / "record.json"
        record = json.loads(file.read_text("utf-8"))
        del record["job"]["defense"]
        file.write_text(json.dumps(record), encoding="utf-8")

    [line] = refused(folder, tmp_path / "out")
    assert line.startswith(f"1 of 1 records: {why}")
    assert not (tmp_path / "out").exists()


def test_those_of_a_folder_that_fit_are_written_and_the_others_are_told(tmp_path: Path, lay: Lay):
    lay(tmp_path, seed=0)
    lay(tmp_path, seed=1)
    lay(tmp_path, seed=2, protocol="pgd-20")
    lay(tmp_path, seed=3, error="Traceback\nRuntimeError: no memory")

    lines = interop.export("robustbench", tmp_path, tmp_path / "out")

    names = {f"cifar10/Linf/cifar10-linf_pgd-at-s{seed}.json" for seed in (0, 1)}
    assert set(entries(tmp_path / "out")) == names
    assert lines[2].startswith("left out: 1 of 4 records: judged by pgd-20")
    assert lines[3] == "left out: 1 of 4 records, whose jobs FAILED"


def test_one_id_for_several_seeds_is_told_apart(tmp_path: Path, lay: Lay):
    (tmp_path / "about.json").write_text('{"id": "Ada2026Oven"}', encoding="utf-8")
    lay(tmp_path, seed=0)
    lay(tmp_path, seed=1)

    interop.export("robustbench", tmp_path, tmp_path / "out", tmp_path / "about.json")

    assert set(entries(tmp_path / "out")) == {f"cifar10/Linf/Ada2026Oven_pgd-at-s{seed}.json" for seed in (0, 1)}


def test_what_a_ladder_adds_stands_in_the_footnote(tmp_path: Path, lay: Lay):
    ladder = [{"name": "fgsm"}, {"name": "pgd", "label": "pgd-20"}, {"name": "autoattack"}]
    interop.export("robustbench", lay(tmp_path, job={"evaluation": {"attacks": ladder}}), tmp_path / "out")

    [fields] = entries(tmp_path / "out").values()
    assert fields["footnote"] == "Robust accuracy is the per-example worst case of fgsm, pgd-20 and autoattack."


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({}, False),
        ({"model": {"extra_data": "ImageNet-1k"}}, True),
        ({"model": {"extra_data": "none"}}, False),
        ({"data": {"unlabelled": {"count": 9, "path": "tiny.npz"}}}, True),
        ({"data": {"unlabelled": {"count": 9, "path": None}}}, False),  # of the training split itself
    ],
)
def test_additional_data_is_what_the_job_says(tmp_path: Path, lay: Lay, job, expected):
    interop.export("robustbench", lay(tmp_path, job=job), tmp_path / "out")

    [fields] = entries(tmp_path / "out").values()
    assert fields["additional_data"] is expected


def test_passes_that_vote_are_counted_and_a_doubtful_evaluation_is_unreliable(tmp_path: Path, lay: Lay):
    flags = (Flag(name="stochastic", message="noise"), Flag(name="robust-overfitting", message="late"))
    interop.export("robustbench", lay(tmp_path, job={"evaluation": {"votes": 5}}, flags=flags), tmp_path / "one")
    interop.export("robustbench", lay(tmp_path, seed=1, flags=flags[1:]), tmp_path / "other")

    [one], [other] = (entries(tmp_path / name).values() for name in ("one", "other"))
    assert (one["number_forward_passes"], one["unreliable"]) == (5, True)
    assert (other["number_forward_passes"], other["unreliable"]) == (1, False)


def test_every_flag_is_a_doubt_about_the_evaluation_or_known_not_to_be(repo: Path):
    flags = set(re.findall(r"^## ([a-z-]+)$", (repo / "docs" / "flags.md").read_text("utf-8"), re.MULTILINE))
    # Of the training; or of an evaluation that found what there is to find, or has no robust accuracy.
    others = {"catastrophic-overfitting", "robust-overfitting", "dead", "pgd-gap", "stopped"}

    assert flags == UNRELIABLE | others


def test_the_board_of_cifar100_has_its_own_radius(tmp_path: Path, lay: Lay):
    job = {"data": {"name": "cifar100"}}
    interop.export("robustbench", lay(tmp_path, job=job), tmp_path / "out")

    [(name, fields)] = entries(tmp_path / "out").items()
    assert name.startswith("cifar100/Linf/")
    assert (fields["dataset"], fields["eps"]) == ("cifar100", "8/255")


def test_all_that_a_user_says_stands_in_its_field(tmp_path: Path, lay: Lay):
    said = {"footnote": "Ours.", "additional_data": True, "reported": "51", "link": "l", "name": "n", "venue": "v"}
    (tmp_path / "about.json").write_text(json.dumps(said | {"architecture": "a", "authors": "w"}), encoding="utf-8")
    ladder = [{"name": "fgsm"}, {"name": "autoattack"}]
    folder = lay(tmp_path, job={"evaluation": {"attacks": ladder}})
    interop.export("robustbench", folder, tmp_path / "out", tmp_path / "about.json")

    [fields] = entries(tmp_path / "out").values()
    assert fields.items() >= {key: value for key, value in said.items() if key != "footnote"}.items()
    assert (fields["architecture"], fields["authors"]) == ("a", "w")
    assert fields["footnote"] == "Ours. Robust accuracy is the per-example worst case of fgsm and autoattack."


def test_what_does_not_fit_is_counted_by_its_reason(tmp_path: Path, lay: Lay):
    for seed in range(4):
        lay(tmp_path, seed=seed, protocol="pgd-20" if seed < 3 else "autoattack-fast")

    lines = refused(tmp_path, tmp_path / "out")
    assert [line.split(" by ")[0] for line in lines] == ["3 of 4 records: judged", "1 of 4 records: judged"]


def test_a_number_that_is_none_is_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumped({"clean_acc": float("nan")})
    assert dumped({"name": "Öfen", "eps": 0.5}) == '{\n  "name": "Öfen",\n  "eps": 0.5\n}\n'.encode()
