"""The other network of the attack `transfer`: checked with the task, found with the plan, built with the job.

Any other attack passes through here as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from advbench import start
from advbench.attacks.base import Attack
from advbench.attacks.transfer import Transfer
from advbench.find import named, plain
from advbench.models.base import Model, Shape
from advbench.spec import BadInput
from advbench.task import Entry
from advbench.threat import Norm


def check(attack: Attack) -> None:
    """What is wrong with the tables of a `transfer`. Raises BadInput."""
    if not isinstance(attack, Transfer):
        return
    with _inside("attack"):
        if "file" in attack.attack.fields:
            raise BadInput("no file can be named here; a transfer finds candidates with one of the suite's attacks")
        inner = _attack(attack)
        if isinstance(inner, Transfer):
            raise BadInput("a transfer has nothing to find candidates with; name another attack")
        if inner.restarts > 1:
            raise BadInput("restarts of a transfer stand beside its own name")
    with _inside("surrogate"):
        if _model(attack).pretrained is None:
            raise BadInput('untrained, it knows nothing; give it pretrained = "FILE.safetensors" and extra_data')


def norms(attack: Attack) -> tuple[Norm, ...]:
    """The norms it is defined for."""
    return _attack(attack).norms if isinstance(attack, Transfer) else attack.norms


def files(attack: Attack, root: Path) -> list[Path]:
    """The files it needs under the data root. Raises Missing."""
    return start.files(_model(attack), root) if isinstance(attack, Transfer) else []


def settled(attack: Attack, root: Path, shape: Shape, classes: int) -> Attack:
    """The attack with every default of its tables and the digest of its weights filled in.

    Raises Missing where there are none, BadInput where they are others or do not fit images of this shape.
    """
    if not isinstance(attack, Transfer):
        return attack
    with _inside("attack"):
        inner = _attack(attack)
        if len(inner.parts(classes)) > 1:
            raise BadInput(f"{inner.name} is an ensemble and has no single candidate; name one of its attacks")
    with _inside("surrogate"):
        model = start.settle(_model(attack), root)
    table = {name: value for name, value in plain(model).items() if value is not None}
    found = attack.model_copy(update={"surrogate": Entry(**table), "attack": Entry(**plain(inner))})
    prepared(found, root, shape, classes, torch.device("cpu"))
    return found


def prepared(attack: Attack, root: Path, shape: Shape, classes: int, device: torch.device) -> Attack:
    """The settled attack, ready to run on `device`; leaves torch's global stream as it was. Raises BadInput."""
    if not isinstance(attack, Transfer):
        return attack
    with _inside("surrogate"), torch.random.fork_rng([]):
        network, told = start.start(_model(attack), shape, classes, root)
        if told["pretrained_head"] != "kept":
            raise BadInput(f"its weights are of another number of classes than {classes}")
    return attack.on(network.to(device).eval().requires_grad_(False), _attack(attack))


def _model(attack: Transfer) -> Model:
    return named(Model, {"name": attack.surrogate.name, **attack.surrogate.fields})


def _attack(attack: Transfer) -> Attack:
    return named(Attack, {"name": attack.attack.name, **attack.attack.fields})


@contextmanager
def _inside(table: str) -> Generator[None]:
    """Complaints say in which table."""
    try:
        yield
    except BadInput as error:
        raise BadInput(*(f"{table}: {line.removeprefix('model.')}" for line in error.lines)) from None
