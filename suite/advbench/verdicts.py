"""From trained weights to verdicts on the test examples: the full ladder for the checkpoint that the task names."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load, save

from advbench import find, surrogate
from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.checkpoint import Weights
from advbench.evaluate import Verdicts, evaluate
from advbench.parallel import ALONE, Group
from advbench.plan import Job
from advbench.prepare import Ready
from advbench.record import write_bytes
from advbench.threat import Threat
from advbench.train import Tell, Trained


def verdicts(
    job: Job, ready: Ready, trained: Trained, folder: Path, tell: Tell, group: Group = ALONE
) -> tuple[dict[str, Verdicts], dict[str, str]]:
    """Verdicts on the "best" and the "last" weights of `trained`, and the digests of the weights.

    The weights and the journal lie in `folder`, from which an earlier try is resumed. In a `group` the processes share
    the blocks; only the first one has `trained` and touches the folder.
    """
    how, model = job.evaluation, ready.model
    test = ready.subsets.test
    _, channels, height, width = test.pixels(slice(0, 1)).shape
    where = (ready.root, (channels, height, width), ready.classes, test.device)
    named = [find.named(Attack, {"name": a.name, **a.fields}) for a in how.attacks]
    attacks = [surrogate.prepared(attack, *where) for attack in named]
    packages = ["pyautoattack", *sorted({a.name.partition(":")[0] for a in named if find.is_family(type(a))})]
    threat = Threat(job.threat.norm, float(job.threat.eps))
    weights = {"best": trained.best, "last": trained.last}
    contents: dict[str, bytes] = group.told({n: _content(w) for n, w in weights.items()} if group.first else None)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if group.first:
        for name, content in contents.items():
            write_bytes(folder / f"{name}.safetensors", content)
    found: dict[str, Verdicts] = {}
    for name, content in contents.items():
        full = name == how.checkpoint or how.both
        ladder = attacks if full else [PGD(steps=20, label="pgd-20")]
        model.load_state_dict(load(content))
        # Another build or device starts a block over rather than finish another one's.
        build = f"{test.device.type}/{torch.__version__}/{'/'.join(map(version, packages))}"
        key = f"{digests[name]}/{job.protocol}/{job.data_sha256}/{job.data.plain()}/{build}"
        found[name] = evaluate(
            model,
            test,
            threat,
            ladder,
            how if full else how.model_copy(update={"curve": (), "alone": 0}),
            ready.classes,
            folder / "journal" / name,
            key,
            tell,
            group,
        )
    return found, digests


def _content(weights: Weights) -> bytes:
    return save({name: value.contiguous().cpu() for name, value in weights.items()})
