"""The JSON of a task: what filters, table and charts read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from advbench.board import overview
from advbench.board.details import course, detail
from advbench.board.rows import Row
from advbench.board.table import sections
from advbench.record import Flag

FOLDER = Path("/home/someone/records/t/a-s0")


def test_a_group_has_what_filters_and_table_show(make: Any):
    flag = Flag(name="pgd-gap", message="PGD overestimates it.")
    big = {"name": "resnet18", "pretrained": "w.safetensors", "extra_data": "ImageNet-1k"}
    found = sections(
        [
            make(seed=0, robust=0.5),
            make(seed=1, robust=1 / 3, flags=(flag,)),
            make(seed=2, error="ValueError: x"),
            make("big", robust=None, task="u", job={"model": big, "training": {"epochs": 5}}),
        ]
    )
    one, other = (overview.task(section)["groups"][0] for section in found)

    assert {key: one[key] for key in ("label", "rank", "robust", "clean", "seconds", "passes", "marked")} == {
        "label": "pgd-at",
        "rank": None,
        "robust": 0.416667,
        "clean": 0.9,
        "seconds": 10.5,
        "passes": 5_100_000,
        "marked": True,
    }
    facets = ("data", "threat", "model", "budget", "extra")
    assert [one[key] for key in facets] == ["digits", "Linf 3/20", "digits-cnn", "30 epochs", ""]
    assert [other[key] for key in facets] == ["digits", "Linf 3/20", "resnet18", "5 epochs", "ImageNet-1k"]
    assert (one["flags"], other["robust"]) == ({"pgd-gap": 1}, None)
    assert one["seeds"] == [
        {"seed": 0, "robust": 0.5, "clean": 0.9, "says": "seed 0"},
        {
            "seed": 1,
            "robust": 0.333333,
            "clean": 0.9,
            "says": "seed 1: withstood PGD and fell to stronger attacks",
            "marked": True,
        },
        {"seed": 2, "robust": None, "clean": None, "says": "seed 2", "failed": True},
    ]


def test_one_score_has_the_interval_of_its_record_and_several_without_verdicts_none(make: Any):
    (section,) = sections([make("one", robust=0.5), make("two", 0), make("two", 1)])
    by_label = {group["label"]: (group["low"], group["high"]) for group in overview.task(section)["groups"]}

    assert by_label == {"one": (0.45, 0.55), "two": (None, None)}


def test_charts_have_curves_and_costs_by_group_and_seed(make: Any):
    (section,) = sections(
        [
            make(seed=0, curve={"1/5": 0.25, "1/10": 0.5}),
            make(seed=1, error="ValueError: x"),
            make("b", robust=0.1),
        ]
    )
    found = overview.more(section)

    assert found["radii"] == [["0", 0.0], ["1/10", 0.1], ["1/5", 0.2]]
    assert found["curves"] == [[[0.9, 0.5, 0.25], None], [None]]
    assert found["costs"] == [[[10.0, 5_100_000], None], [[10.0, 5_100_000]]]


def test_a_curve_stands_at_its_own_radii_where_other_records_have_others(make: Any):
    near, far = make("a", curve={"1/10": 0.5, "1/5": 0.25}), make("b", 0, 0.4, curve={"1/20": 0.7, "1/5": 0.2})
    found = overview.more(sections([near, far])[0])

    assert [eps for eps, _ in found["radii"]] == ["0", "1/20", "1/10", "1/5"]
    assert found["curves"] == [[[0.9, None, 0.5, 0.25]], [[0.9, 0.7, None, 0.2]]]


def test_a_history_is_a_column_a_quantity(trained: Any):
    found = course(Row(trained("a", [0.1, 0.23456], seconds=2.0)), {})["history"]

    assert (found["epoch"], found["pgd"], found["seconds"], found["passes"]) == (
        [1, 2],
        [0.1, 0.2346],
        [2, 2],
        [20, 20],
    )
    assert course(Row(trained("a", [])), {})["history"] is None


def test_commands_are_quoted_for_the_shell_that_they_are_copied_to(make: Any):
    found = detail(Row(make("a")), FOLDER)
    assert (found["folder"], found["again"]) == ("records/t/a-s0", "advbench reproduce records/t/a-s0")
    evil = detail(Row(make("'; rm -rf ~; '")), FOLDER.with_name("'; rm -rf ~; '-s0"))
    assert shlex.split(evil["again"])[2:] == ["records/t/'; rm -rf ~; '-s0"]
    assert shlex.split(evil["command"])[-1] == "t/'; rm -rf ~; '-s0"
    assert detail(Row(make("a", error="ValueError: x")), FOLDER)["again"] is None


def test_numbers_that_json_does_not_have_are_nothing():
    assert [overview.digits(x) for x in (None, 1 / 3, float("nan"), float("inf"), 10**30)] == [
        *(None, 0.333333, None, None, 10**30)
    ]
