"""The JSON of a task: what filters, table and charts read."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advbench.board import overview
from advbench.board.details import course, detail
from advbench.board.rows import Row
from advbench.board.support import Standing
from advbench.board.table import sections
from advbench.board.words import certainty
from advbench.record import Cost, Flag, Measure

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


def test_a_task_has_its_own_words_and_who_leads(make: Any):
    standing = Standing(
        ranks={"a": (1, 1), "b": (2, 2)},
        better={"a": ["b"]},
        intervals={"a": (0.4, 2 / 3)},
        unranked={"c": "it failed"},
        claim="checkpoints",
    )
    records = [make("a", 0, 0.5, job={"model": {"extra_data": "B"}}), make("a", 1, 0.5), make("b", 0, 0.25)]
    records[1].job["model"]["extra_data"] = "A"
    flag = Flag(name="dead", message="")
    (section,) = sections([*records, make("c", error="ValueError: x", flags=(flag,))])
    found = overview.task(replace(section, standing=standing))
    groups = found.pop("groups")

    assert found == {
        "task": "t",
        "title": "Digits under Linf 0.15",
        "setting": "digits · Linf 3/20 · digits-cnn · 30 epochs",
        "protocol": "autoattack on 360 test examples",
        "eps": 0.15,
        "leads": "a is best (rank 1 of 2): better than the other. Read the notes of a first.",
        "certainty": certainty(standing),
        "ranked": 2,
    }
    assert [(group["label"], group["rank"], group["unranked"], group.get("better")) for group in groups] == [
        *(("a", (1, 1), None, ["b"]), ("b", (2, 2), None, None), ("c", None, "it failed", None))
    ]
    # Of one score the record's own, where nobody judged the verdicts; and what was judged as it was judged.
    assert [(group["low"], group["high"]) for group in groups] == [(0.4, 0.666667), (0.2, 0.3), (None, None)]
    assert [group["extra"] for group in groups] == ["A, B", "", ""]
    assert groups[2]["seeds"] == [
        {
            "seed": 0,
            "robust": None,
            "clean": None,
            "says": "seed 0: dead, other settings",
            "failed": True,
            "marked": True,
        }
    ]


@pytest.mark.parametrize(("defenses", "told"), [(60, True), (61, False)])
def test_of_up_to_sixty_defenses_the_page_lists_who_is_better(make: Any, defenses: int, told: bool):
    (section,) = sections([make("d0")])
    ranks = {f"d{i}": (1, defenses) for i in range(defenses)}
    standing = Standing(ranks=ranks, better={"d0": ["d1"]})

    [group] = overview.task(replace(section, standing=standing))["groups"]
    assert ("better" in group) == told


def test_a_model_from_elsewhere_and_a_job_of_no_tables_are_shown(make: Any):
    outside = make("external")
    outside.job.pop("defense")
    (one, *_), (two,) = (
        overview.task(section)["groups"] for section in sections([outside, make("x", task="u", job={"data": None})])
    )

    assert one["budget"] == "trained elsewhere"
    two.update(overview.task(sections([make("x").model_copy(update={"job": {"training": [1]}})])[0])["groups"][0])
    assert [two[key] for key in ("data", "threat", "model", "budget")] == ["", "", "", "trained elsewhere"]
    assert [overview.table(job, "a") for job in (None, [], {"a": [1]}, {"a": {"b": 1}})] == [{}, {}, {}, {"b": 1}]


def test_charts_have_budgets_and_measures_by_group(trained: Any):
    words = {"unit": "nats", "meaning": "what it is"}
    measure = {"fosc": {"mean": Measure(value=1 / 3, **words)}}
    flag = Flag(name="dead", message="")
    records = [
        trained("a", [0.25, 1 / 3], 4).model_copy(update={"measures": measure, "cost": Cost()}),
        trained("b", [0.25], flags=(flag,), seconds=1 / 3),
    ]
    (section,) = sections(records)
    found = overview.more(section)

    assert (found["rungs"], found["alone"]) == (("fgsm", "pgd", "autoattack"), ())
    assert found["costs"] == [[[None, None]], [[10.0, 5_100_000]]]
    assert found["measures"] == [{"collector": "fosc", "name": "mean", **words, "values": [[0.3333]]}]
    assert found["measured"] == ["a"]
    assert [(one["kind"], one["amount"]) for one in found["budgets"]] == [
        *(("epochs", 1), ("passes", 20), ("seconds", 0.333333))
    ]
    whole = {"rank": 1, "pgd": 0.25, "epochs": (1, 1), "seeds": [0.25]}
    assert found["budgets"][0]["places"] == [
        {"label": "a", "marked": False, **whole},
        {"label": "b", "marked": True, **whole},
    ]
    assert found["budgets"][2]["places"][0] == {
        "label": "a",
        "rank": None,
        "pgd": None,
        "marked": True,
        "epochs": (0, 0),
        "seeds": [None],
    }
