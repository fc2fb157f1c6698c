"""Which seeds of a label are under one setting: a defense inside another one counts field by field."""

from __future__ import annotations

from typing import Any

import pytest

from advbench.board import settings
from advbench.record import Record


def around(make: Any, seed: int, **base: Any) -> Record:
    record = make("awp", seed=seed)
    inner = {"name": "mine", "file": "mine.py", "sha256": "ab", "beta": 6} | base
    defense = {"name": "awp", "file": None, "sha256": "cd", "gamma": 0.01, "base": inner}
    return record.model_copy(update={"job": {**record.job, "defense": defense}})


def said(records: list[Record], one: Record) -> tuple[str, ...]:
    expected = settings.usual(records) | settings.usual_defense(records)
    return settings.unlike(one, expected)


def test_another_field_of_the_inner_defense_is_another_setting(make: Any):
    seeds = [around(make, 0), around(make, 1), around(make, 2, beta=1)]

    assert said(seeds, seeds[0]) == ()
    assert said(seeds, seeds[2]) == ("defense.base.beta 1, not 6",)


def test_where_its_file_lies_is_not(make: Any):
    seeds = [around(make, 0), around(make, 1), around(make, 2, file="elsewhere/mine.py")]

    assert said(seeds, seeds[2]) == ()


@pytest.mark.parametrize(
    ("theirs", "said_"),
    [
        ([{"name": "fgsm"}], "fgsm, not fgsm, pgd"),
        ([], "none, not fgsm, pgd"),
        (
            [{"name": "fgsm"}, {"name": "pgd", "steps": 40, "label": None}],
            "pgd steps 40, not pgd steps 20",
        ),
        (
            [{"name": "fgsm", "restarts": 2}, {"name": "pgd", "steps": 20, "label": "long"}],
            "fgsm, long, not fgsm, pgd",
        ),
        (
            [{"name": "fgsm", "restarts": 2}, {"name": "pgd", "steps": 40, "label": None}],
            "fgsm restarts 2, pgd steps 40, not fgsm restarts null, pgd steps 20",
        ),
        (
            [{"name": "fgsm"}, {"steps": 3}],
            '[{"name": "fgsm"}, {"steps": 3}], not [{"name": "fgsm"}, {"label": null, "name": "pgd", "steps"...',
        ),
        ("all", 'all, not [{"name": "fgsm"}, {"label": null, "name": "pgd", "steps"...'),
    ],
)
def test_of_other_attacks_only_what_differs_is_said(make: Any, theirs: Any, said_: str):
    def attacked(seed: int, attacks: Any) -> Record:
        record = make("pgd-at", seed=seed)
        evaluation = record.job["evaluation"] | {"attacks": attacks}
        return record.model_copy(update={"job": {**record.job, "evaluation": evaluation}})

    ours = [{"name": "fgsm"}, {"name": "pgd", "steps": 20, "label": None}]
    seeds = [attacked(0, ours), attacked(1, ours), attacked(2, theirs)]

    assert said(seeds, seeds[2]) == (f"evaluation.attacks {said_}",)


def test_a_setting_is_said_in_one_line():
    known = {"data.name": "digits", "threat.norm": "Linf", "threat.eps": "3/20", "model.name": "m"}

    assert settings.line(known | {"training.epochs": 30}) == "digits · Linf 3/20 · m · 30 epochs"
    assert settings.line(known | {"training.epochs": 1, "threat.norm": None}) == "digits · 3/20 · m · 1 epoch"
    assert settings.line({"training.epochs": 0}) == "0 epochs"
    assert settings.line({}) == ""


def test_a_protocol_is_said_with_its_examples():
    assert settings.protocol({"scores.n": 1000, "scores.protocol": "aa"}) == "aa on 1,000 test examples"
    assert settings.protocol({"scores.n": 1000}) == "attacked on 1,000 test examples"
    assert settings.protocol({"scores.protocol": "aa"}) == "aa"
    assert settings.protocol({}) == ""


def test_a_ladder_is_its_attacks_by_label_or_name():
    attacks = [{"name": "pgd", "label": "long"}, {"name": "fgsm", "label": None}, "square"]

    assert settings.ladder({"evaluation.attacks": attacks}) == ["long", "fgsm", "square"]
    assert settings.ladder({}) == []


def test_fields_are_said_in_order_and_cut_behind_sixty_characters():
    assert settings.said({"lr": 0.05, "epochs": 15, "a": "x" * 60}) == f"a {'x' * 60}, epochs 15, lr 0.05"
    assert settings.said({"a": "x" * 61}) == f"a {'x' * 57}..."


def test_most_records_decide_and_of_two_the_smaller_text(make: Any):
    eps = [make("a", seed, job={"threat": {"eps": text}}) for seed, text in enumerate(("3/20", "1/5", "3/20"))]

    assert settings.usual(eps)["threat.eps"] == "3/20"
    assert settings.usual(eps[:2])["threat.eps"] == settings.usual(eps[1::-1])["threat.eps"] == "1/5"
    assert settings.unlike(eps[1], settings.usual(eps)) == ("threat.eps 1/5, not 3/20",)


def test_what_was_declared_is_no_vote_where_anybody_else_votes(make: Any):
    changed = [
        make("a", seed, job={"training": {"epochs": 8}, "deviations": {"training.epochs": 8}}) for seed in range(2)
    ]

    assert settings.usual([*changed, make("b")])["training.epochs"] == 30
    assert settings.usual(changed)["training.epochs"] == 8
    assert settings.unlike(changed[0], settings.usual([*changed, make("b")])) == ()


def test_titles_places_and_the_order_of_keys_are_no_setting(make: Any):
    one = make("a", job={"data": {"more": {"x": 1, "y": 2}}})
    changed = {
        "title": "Another",
        "data": {"path": "elsewhere", "more": {"y": 2, "x": 1}},
        "training": {"seeds": [1], "checkpoint_minutes": 3},
        "evaluation": {"batch": 7},
        "defense": {"file": "x.py", "name": "b"},
    }
    expected = settings.usual([one, one]) | settings.usual_defense([one])

    assert settings.unlike(make("a", 1, job=changed), expected) == ()


def test_a_score_that_is_not_there_is_no_other_protocol_and_another_one_is(make: Any):
    expected = settings.usual([make("a"), make("b")])

    assert (expected["scores.protocol"], expected["scores.n"]) == ("autoattack", 360)
    assert settings.unlike(make("a", robust=None), expected) == ()
    assert settings.unlike(make("a", error="x"), expected) == ()
    judged = make("a")
    robust = judged.scores.robust.model_copy(update={"n": 100})
    other = judged.model_copy(update={"scores": judged.scores.model_copy(update={"robust": robust})})
    assert settings.unlike(other, expected) == ("scores.n 100, not 360",)


def test_a_model_from_elsewhere_shares_what_it_is_judged_under(make: Any):
    expected = settings.usual([make("a"), make("b")])
    outside = make("external", job={"model": {"name": "x"}, "training": {"epochs": 1}, "threads": 4, "protocol": 9})
    outside.job.pop("defense")

    assert settings.unlike(outside, expected) == ()
    assert "model.name" not in settings.usual([outside])
    outside.job.update(data_sha256="other", threat={"norm": "L2", "eps": "3/20"}, evaluation_protocol=1)
    expected["evaluation_protocol"] = 3
    assert settings.unlike(outside, expected) == (
        *("data_sha256 other, not 9f", "evaluation_protocol 1, not 3", "threat.norm L2, not Linf"),
    )


def test_what_is_no_table_has_no_fields(make: Any):
    bare = make("a").model_copy(update={"job": {"data": "text", "deviations": None}})

    assert settings.usual([bare]) == {"title": None, "scores.protocol": "autoattack", "scores.n": 360}
    assert settings.usual_defense([bare]) == {}
