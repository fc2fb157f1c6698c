"""What every declared thing is: a frozen pydantic model that refuses what it does not know.

A task file, a defense, an attack and a model *are* their hyper-parameters, so the class is the schema
and this file is the only one that knows how a wrong value is said to a person.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError, WithJsonSchema


class BadInput(Exception):
    """Something the user gave cannot be used; each line says what to change. The command line exits with 2."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Spec(BaseModel):
    """A frozen value with declared fields; unknown keys, NaN and wrong types are errors."""

    # Kept as it is, a NaN in a free field is refused when it is written; by default it would become a silent null.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants", protected_namespaces=()
    )

    def plain(self) -> dict[str, Any]:
        """This value as JSON types, every default filled in."""
        return self.model_dump(mode="json", by_alias=True)


class Part(Spec):
    """A Spec that task files choose by its `name`: a defense, an attack, a model, a data source."""

    name: ClassVar[str]
    sha256: ClassVar[str | None] = None
    """Digest of the code that it came from, where that is a user's own file and none of the suite's."""


def _fraction(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise ValueError('write a number or a fraction such as "8/255"')
    try:
        # A float is read as it was written: 0.3 is 3/10 and not the binary number next to it.
        return Fraction(repr(value) if isinstance(value, float) else value)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f'{value!r} is not a number or a fraction such as "8/255"') from None


Number = Annotated[
    Fraction,
    PlainValidator(_fraction),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?\d+(/\d+)?$"}]}),
]
"""An exact number that people write as a fraction: ``eps = "8/255"``. Serialised as a string."""

S = TypeVar("S", bound=BaseModel)


def validate(kind: type[S], values: Mapping[str, Any]) -> S:
    """Build `kind` from JSON-like values, strictly: "10" is not 10. Raises pydantic's ValidationError."""
    # Through JSON because strict Python mode refuses a list for a tuple, and every value here is JSON anyway.
    return kind.model_validate_json(json.dumps(values, default=str), strict=True)


LARGEST = 10**100
"""Sums and squares of numbers below it stay finite."""
_EXPONENT = re.compile(rb"[eE]\+?\d{3,}[\s,\]}]")
_SHAPE = bytes.maketrans(b"123456789\n\r\t:,[-", b"000000000       ")


def _unusual(content: bytes) -> bool:
    """Whether anything in JSON looks like what `read_json` refuses; hardly anything else does."""
    if b"NaN" in content or b"Infinity" in content or _EXPONENT.search(content):
        return True
    return b" " + 19 * b"0" in content.translate(_SHAPE)  # an integer: digits behind a point have no gap before them


def read(kind: type[S], content: bytes) -> S | None:
    """`kind` from JSON, as `validate` after `read_json` and several times as fast; None where these have to decide."""
    if _unusual(content):
        return None
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError:
        return None


def read_json(content: bytes) -> Any:
    """JSON from a stranger. Raises ValueError where it is none, or has a number that some reader of it cannot hold.

    Those are NaN and the infinities, integers that 64 bits do not hold, and everything from `LARGEST` on.
    """

    def refuse(text: str) -> Any:
        raise ValueError(f"{text[:40]}{'...' * (len(text) > 40)} is not a number that a record can hold")

    def whole(text: str) -> Any:
        return int(text) if len(text) < 19 or (len(text) < 21 and abs(int(text)) < 2**63) else refuse(text)

    def real(text: str) -> Any:
        return float(text) if abs(float(text)) < LARGEST else refuse(text)

    return json.loads(content.decode(), parse_int=whole, parse_float=real, parse_constant=refuse)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a complaint: "; did you mean 'beta'?" or, when nothing is close, the known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""


def complaints(error: ValidationError, kind: type[BaseModel], where: str = "") -> list[str]:
    """One `path: message` line for each thing that is wrong, in the user's words rather than pydantic's."""
    items = error.errors(include_url=False)
    # A list whose items are wrong is said to be too short as well: the items' own complaints are enough.
    parents = {item["loc"][:depth] for item in items for depth in range(1, len(item["loc"]))}
    return [_complaint(i, kind, where) for i in items if not (i["type"] == "too_short" and i["loc"] in parents)]


def _complaint(item: Any, kind: type[BaseModel], where: str) -> str:
    *parents, last = item["loc"] or ("",)
    path = where
    known: type[BaseModel] | None = kind
    for step in parents:
        path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}".lstrip(".")
        field = known.model_fields.get(str(step)) if known else None
        inner = field.annotation if field else None
        known = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    colon = ": " if path else ""
    if item["type"] == "extra_forbidden":
        return f"{path}{colon}no field '{last}'{did_you_mean(str(last), known.model_fields if known else ())}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        message = "is missing"
    elif item["type"] == "union_tag_invalid":
        choices = (tag.strip(" '") for tag in item["ctx"]["expected_tags"].split(","))
        message = f"no '{item['ctx']['tag']}'{did_you_mean(str(item['ctx']['tag']), choices)}"
    elif item["type"] == "too_short":
        message = f"should hold at least {item['ctx']['min_length']}"
    elif message.startswith(("Input should ", "String should ")):
        message = f"{message.partition(' ')[2]}, not {json.dumps(item['input'], default=str)}"
    here = f"{path}[{last}]" if isinstance(last, int) else f"{path}.{last}".strip(".")
    return f"{here}{': ' if here and item['type'] != 'missing' else ' '}{message}".strip()
