"""From trained weights to verdicts on the test examples: the full ladder for the checkpoint that the task names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from advbench import corruptions, find, flags, surrogate
from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.checkpoint import Weights
from advbench.data.base import Examples
from advbench.evaluate import evaluate, frozen
from advbench.external import External
from advbench.files import write_bytes
from advbench.parallel import ALONE, Group
from advbench.plan import Job
from advbench.prepare import Ready
from advbench.scores import Verdicts
from advbench.task import Evaluation
from advbench.threat import Threat
from advbench.train import Tell, Trained

Judged = Job | External

BRIEF: dict[str, Any] = {"curve": (), "alone": 0, "corruptions": None, "distances": None}
"""What the checkpoint that does not fill the scores is spared."""


def verdicts(
    job: Job, ready: Ready, trained: Trained, folder: Path, tell: Tell, group: Group = ALONE
) -> tuple[dict[str, Verdicts], dict[str, str]]:
    """Verdicts on the "best" and the "last" weights of `trained`, and the digests of the weights.

    The weights and the journal lie in `folder`, from which an earlier try is resumed. In a `group` the processes share
    the blocks; only the first one has `trained` and touches the folder.
    """
    how, model = job.evaluation, ready.model
    test = ready.subsets.test
    attacks = ladder(how, ready.root, test, ready.classes, ready.base)
    weights = {"best": trained.best, "last": trained.last}
    contents: dict[str, bytes] = group.told({n: _content(w) for n, w in weights.items()} if group.first else None)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if group.first:
        for name, content in contents.items():
            write_bytes(folder / f"{name}.safetensors", content)
    found: dict[str, Verdicts] = {}
    for name, content in contents.items():
        full = name == how.checkpoint or how.both
        model.load_state_dict(load(content))
        found[name] = climb(
            job,
            model,
            digests[name],
            test,
            attacks if full else [PGD(steps=20, label="pgd-20")],
            how if full else how.model_copy(update=BRIEF),
            ready.classes,
            folder / "journal" / name,
            tell,
            group,
        )
    return found, digests


def ladder(how: Evaluation, root: Path, test: Examples, classes: int, base: Path = Path()) -> list[Attack]:
    """The attacks of an evaluation, cheapest first, with what else they need, on the device of `test`.

    Files of one's own attacks are relative to `base`.
    """
    _, channels, height, width = test.pixels(slice(0, 1)).shape
    named = [find.named(Attack, {"name": a.name, **a.fields}, base) for a in how.attacks]
    return [surrogate.prepared(a, root, (channels, height, width), classes, test.device) for a in named]


def climb(
    job: Judged,
    model: nn.Module,
    weights: str,
    test: Examples,
    attacks: Sequence[Attack],
    how: Evaluation,
    classes: int,
    journal: Path,
    tell: Tell,
    group: Group = ALONE,
) -> Verdicts:
    """What `model` withstands on `test`; `weights` is the digest that its journal goes by."""
    # Another build or device starts a block over rather than finish another one's.
    libraries = sorted({attack.name.partition(":")[0] for attack in attacks if find.is_family(type(attack))})
    build = f"{test.device.type}/{torch.__version__}/{'/'.join(map(version, ['pyautoattack', *libraries]))}"
    key = f"{weights}/{job.evaluation_protocol}/{job.data_sha256}/{job.data.plain()}/{build}"
    threat = Threat(job.threat.norm, float(job.threat.eps))
    found = evaluate(model, test, threat, attacks, how, classes, journal, key, tell, group, flags.masked)
    if not how.corruptions or not group.first:
        return found
    with frozen(model):
        shares = corruptions.accuracies(
            model, test, how.corruptions, how.seed, how.batch, journal / "corruptions.json", key, tell, how.votes or 1
        )
    named = {name: {str(severity): share for severity, share in row.items()} for name, row in shares.items()}
    return replace(found, scores=found.scores.model_copy(update={"corruptions": named}))


def _content(weights: Weights) -> bytes:
    return save({name: value.contiguous().cpu() for name, value in weights.items()})
