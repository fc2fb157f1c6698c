"""What a record cannot know and a board asks for: who made a model, where it is published, what else it saw."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from advbench.spec import BadInput, Spec, complaints, validate

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""A name that is one part of a path everywhere."""


class About(Spec):
    """What the user says of the models of one label; None is unsaid, and nothing is made up in its place."""

    id: str | None = Field(default=None, pattern=NAME)
    """RobustBench's ID, <Name><Year><FirstWordOfTitle>; the name of the file."""
    name: str | None = None
    """Title of the paper."""
    authors: str | None = None
    """With commas between."""
    link: str | None = None
    venue: str | None = None
    """Such as "ICML 2020" or "arXiv, Mar 2020"."""
    architecture: str | None = None
    """As papers write it: WideResNet-28-10."""
    reported: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?$")
    """Robust accuracy that the authors report, in percent."""
    additional_data: bool | None = None
    """Whether training saw more than the data set's training split."""
    footnote: str | None = None
    license: str | None = None
    """Of the weights, as the Hugging Face Hub names licenses: mit, apache-2.0."""

    @classmethod
    def read(cls, file: Path) -> dict[str, About]:
        """By label, what a TOML or JSON file says; "" has what it says of all. Raises BadInput.

        Keys at its top are for all; a table is for the label it is named after: `[pgd-at]`.
        """
        try:
            text = file.read_text(encoding="utf-8")
            found: Any = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
        if not isinstance(found, dict):
            raise BadInput(f"{file}: should be a table, with keys such as authors and a table for each label")
        shared = {key: value for key, value in found.items() if not isinstance(value, dict)}
        tables: dict[str, Any] = {key: shared | value for key, value in found.items() if isinstance(value, dict)}
        try:
            return {label: validate(cls, table) for label, table in {"": shared, **tables}.items()}
        except ValidationError as error:
            raise BadInput(*(f"{file}: {line}" for line in complaints(error, cls))) from None


def of(told: Mapping[str, About], label: str) -> About:
    """What is said of `label`."""
    return told.get(label) or told.get("") or About()
