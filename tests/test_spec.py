"""Declared values: exact numbers, strict types, and complaints in the user's words."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from advbench.spec import BadInput, Number, Part, Spec, complaints, did_you_mean, validate


class Inner(Spec):
    beta: float = 6.0
    steps: int = Field(default=10, ge=1)


class Outer(Spec):
    eps: Number
    inner: Inner = Inner()
    items: tuple[Inner, ...] = Field(default=(), min_length=0)
    many: tuple[int, ...] = Field(default=(1, 2), min_length=2)


def complain(values: dict[str, Any], kind: type[BaseModel] = Outer) -> list[str]:
    with pytest.raises(ValidationError) as error:
        validate(kind, values)
    return complaints(error.value, kind, "x")


@pytest.mark.parametrize(
    ("written", "exact", "kept"),
    [
        ("8/255", Fraction(8, 255), "8/255"),
        ("16/510", Fraction(8, 255), "8/255"),
        (0.3, Fraction(3, 10), "3/10"),
        ("0.3", Fraction(3, 10), "3/10"),
        (1e-3, Fraction(1, 1000), "1/1000"),
        (2, Fraction(2), "2"),
    ],
)
def test_numbers_are_kept_as_they_were_written(written, exact, kept):
    value = validate(Outer, {"eps": written})

    assert value.eps == exact
    assert value.plain()["eps"] == kept
    assert validate(Outer, value.plain()) == value


@pytest.mark.parametrize("bad", ["8/0", "eight", "", float("nan"), float("inf"), "nan"])
def test_what_is_no_number_is_refused_by_name(bad):
    (line,) = complain({"eps": bad})

    assert line == f'x.eps: {bad!r} is not a number or a fraction such as "8/255"'


@pytest.mark.parametrize("bad", [True, None, [1], {"a": 1}])
def test_what_is_not_even_text_is_told_what_to_write(bad):
    assert complain({"eps": bad}) == ['x.eps: write a number or a fraction such as "8/255"']


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"inner": {"betta": 1.0}}, "x.inner: no field 'betta'; did you mean 'beta'?"),
        ({"inner": {"zzz": 1.0}}, "x.inner: no field 'zzz'; known: beta, steps"),
        ({"epz": 1}, "x: no field 'epz'; did you mean 'eps'?"),
        ({"inner": {"steps": "10"}}, 'x.inner.steps: should be a valid integer, not "10"'),
        ({"inner": {"steps": 1.5}}, "x.inner.steps: should be a valid integer, not 1.5"),
        ({"inner": {"steps": True}}, "x.inner.steps: should be a valid integer, not true"),
        ({"inner": {"steps": 0}}, "x.inner.steps: should be greater than or equal to 1, not 0"),
        ({"inner": {"beta": float("nan")}}, "x.inner.beta: should be a finite number, not NaN"),
        ({"inner": 3}, "x.inner: should be an object, not 3"),
        ({"items": [{}, {"steps": "a"}]}, 'x.items[1].steps: should be a valid integer, not "a"'),
        ({"many": [1]}, "x.many: should hold at least 2"),
    ],
)
def test_each_mistake_has_its_one_line(values, line):
    assert complain({"eps": 1, **values}) == [line]


def test_a_missing_field_is_named():
    assert complain({}) == ["x.eps is missing"]


def test_a_list_with_a_bad_item_is_not_also_called_too_short():
    assert complain({"eps": 1, "many": [1, "b"]}) == ['x.many[1]: should be a valid integer, not "b"']


def test_all_mistakes_are_told_at_once():
    assert len(complain({"inner": {"betta": 1, "steps": "2"}, "zzz": 1})) == 4


def test_a_list_becomes_a_tuple_and_the_value_cannot_change():
    value = validate(Outer, {"eps": 1, "many": [3, 4, 5]})

    assert value.many == (3, 4, 5)
    with pytest.raises(ValidationError, match="frozen"):
        value.eps = Fraction(1)


def test_plain_is_json_with_every_default_filled_in():
    plain = validate(Outer, {"eps": "1/2"}).plain()

    assert json.loads(json.dumps(plain)) == plain
    assert plain["inner"] == {"beta": 6.0, "steps": 10}


def test_the_name_of_a_part_is_not_one_of_its_hyper_parameters():
    class Thing(Part):
        name = "thing"
        size: int = 3

    assert validate(Thing, {}).plain() == {"size": 3}
    assert Thing.name == "thing"
    assert complain({"name": "thing"}, Thing) == ["x: no field 'name'; known: size"]


def test_did_you_mean_is_silent_where_nothing_is_known():
    assert did_you_mean("a", ()) == ""


def test_bad_input_keeps_its_lines():
    error = BadInput("one", "two")

    assert error.lines == ("one", "two")
    assert str(error) == "one\ntwo"


def test_the_schema_for_editors_allows_numbers_and_fractions():
    kinds = Outer.model_json_schema()["properties"]["eps"]["anyOf"]

    assert [kind["type"] for kind in kinds] == ["number", "string"]
