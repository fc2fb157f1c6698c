"""A model that was trained elsewhere and is judged here: what its record says of the job, and its id.

It stands beside the jobs of `advbench run` in the records of a task, and has neither a training nor a defense.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.index import canonical
from advbench.spec import Spec
from advbench.task import Data, Evaluation, ThreatModel, placeless

EXTERNAL = "external"
"""What its record has for a defense."""
WORDS = ("name", "weights", "checkpoint")
"""Fields of `model` that say where files lay and which were taken; what was in them is in their digests."""


class External(Spec):
    """One task x model, fully resolved; it goes into the record as it is."""

    task: str
    title: str
    label: str
    seed: int = 0
    data: Data
    data_sha256: str
    model: dict[str, Any]
    """name (as it was asked for), weights (the file, where one was given), and the digests of what they were."""
    threat: ThreatModel
    evaluation: Evaluation
    examples: int | None = None
    """Only so many of the task's test examples, the first ones."""
    until: dict[str, Any] | None = None
    """Where its examples came in the order `drawn` until enough was known: margin, width, the other record's table."""
    threads: int
    evaluation_protocol: int

    @property
    def path(self) -> str:
        """`task/label-sN`, as of any job."""
        return f"{self.task}/{self.label}-s{self.seed}"

    @property
    def id(self) -> str:
        """Names the result: of everything that can change it and of nothing else."""
        return self._digest("batch")

    @property
    def journal_id(self) -> str:
        """`id` whether or not a masked gradient stops it: what was done until then is good for both."""
        return self._digest("batch", "stop")

    def _digest(self, *left_out: str) -> str:
        plain = self.plain()
        kept = {key: plain[key] for key in ("data_sha256", "threat", "examples", "threads", "evaluation_protocol")}
        kept |= {"until": plain["until"]} if plain["until"] else {}
        kept["model"] = identity(plain["model"])
        # A field that says nothing changes nothing, so that an optional one can be added.
        said = {key: value for key, value in plain["evaluation"].items() if value is not None}
        kept["evaluation"] = {key: value for key, value in said.items() if key not in left_out}
        kept["evaluation"]["attacks"] = [placeless(attack) for attack in said["attacks"]]
        kept["data"] = {key: plain["data"][key] for key in ("name", "test", "order", "seed")}
        return hashlib.sha256(canonical(kept).encode()).hexdigest()[:16]


def drawn(n: int, seed: int) -> NDArray[np.int64]:
    """The order (n,) in which `until` takes the examples: at random, before any verdict, and the same every time."""
    return np.random.default_rng([seed, n]).permutation(n)


def identity(model: dict[str, Any]) -> dict[str, Any]:
    """What of a record's `model` says which model it is, wherever its files lay."""
    return {key: value for key, value in model.items() if key not in WORDS and value is not None}


def external(defense: str, job: dict[str, Any]) -> bool:
    """Whether a record's job was no training of ours."""
    return defense == EXTERNAL and "defense" not in job
