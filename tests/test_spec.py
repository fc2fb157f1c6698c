"""Declared values: exact numbers, strict types, and complaints in the user's words."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from advbench.spec import BadInput, Number, Part, Spec, complaints, did_you_mean, read, read_json, validate


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
        (Fraction(1, 3), Fraction(1, 3), "1/3"),
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


def test_at_the_top_a_path_has_no_dot_before_it():
    def lines(values: Any) -> list[str]:
        with pytest.raises(ValidationError) as error:
            validate(Outer, values)
        return complaints(error.value, Outer)

    assert lines({}) == ["eps is missing"]
    assert lines({"eps": 1, "epz": 1}) == ["no field 'epz'; did you mean 'eps'?"]
    assert lines({"eps": 1, "inner": {"steps": 0}}) == ["inner.steps: should be greater than or equal to 1, not 0"]
    assert lines([1]) == ["should be an object, not [1]"]


def test_a_table_of_one_of_several_kinds_is_told_by_its_word():
    class Cat(Spec):
        kind: Literal["cat"]

    class Dog(Spec):
        kind: Literal["dog"]

    class Owner(Spec):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    assert complain({"pet": {"kind": "dgo"}}, Owner) == ["x.pet: no 'dgo'; did you mean 'dog'?"]
    assert complain({"pet": {"kind": "hen"}}, Owner) == ["x.pet: no 'hen'; known: cat, dog"]


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


def test_a_word_is_near_where_half_of_the_letters_match():
    # 2 * 2 of 8 letters, and 2 * 2 of 9.
    assert did_you_mean("abxy", ["abcd"]) == "; did you mean 'abcd'?"
    assert did_you_mean("abxyz", ["abcd"]) == "; known: abcd"


def test_bad_input_keeps_its_lines():
    error = BadInput("one", "two")

    assert error.lines == ("one", "two")
    assert str(error) == "one\ntwo"


def test_the_schema_for_editors_allows_numbers_and_fractions():
    kinds = Outer.model_json_schema()["properties"]["eps"]["anyOf"]

    assert [kind["type"] for kind in kinds] == ["number", "string"]


class Free(Spec):
    value: Any = Field(default=None, alias="said")


def test_an_alias_is_what_is_written_and_a_nan_in_a_free_field_stays_one():
    assert validate(Free, {"said": 3}).plain() == {"said": 3}
    assert Free(said=float("nan")).model_dump_json() == '{"value":NaN}'


@pytest.mark.parametrize(
    ("number", "taken"),
    [
        (b"9223372036854775807", True),  # 2**63 - 1
        (b"-9223372036854775807", True),
        (b"9223372036854775808", False),
        (b"-9223372036854775808", False),
        (b"1" * 30, False),
        (b"9.9e99", True),
        (b"-9.9e99", True),
        (b"1e100", False),
        (b"-1e100", False),
        (b"1e400", False),
        (b"NaN", False),
        (b"-Infinity", False),
    ],
)
def test_a_stranger_s_number_is_one_that_every_reader_can_hold(number: bytes, taken: bool):
    content = b'{"said": [' + number + b"]}"
    if taken:
        assert read_json(content) == {"said": [json.loads(number)]}
    else:
        with pytest.raises(ValueError, match="is not a number that a record can hold"):
            read_json(content)
        assert read(Free, content) is None


@pytest.mark.parametrize(
    ("value", "fast"),
    [
        (b"999999999999999999", True),
        (b"1000000000000000000", False),  # 19 digits: to be looked at closely
        (b"[1,-1000000000000000000]", False),
        (b"0.1234567890123456789012345", True),
        (b"1e99", True),
        (b"1e-300", True),
        (b"1e+100", False),
        (b"[1E100, 2]", False),
        (b'"words"', True),
    ],
)
def test_the_quick_way_of_reading_says_the_same_or_nothing(value: bytes, fast: bool):
    content = b'{"said": ' + value + b"}"

    assert read(Free, content) == (validate(Free, json.loads(content)) if fast else None)
    assert read(Inner, content) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"steps": 0}', b'{"steps": "1"}'])
def test_what_is_not_of_the_kind_is_left_to_the_slow_way(content: bytes):
    assert read(Inner, content) is None
