"""Which checkpoint meets which attacks, what its journal goes by, and what else is measured of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from advbench import flags, verdicts
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.parallel import ALONE, Group
from advbench.plan import Item, Job
from advbench.record import Accuracy, Scores
from advbench.task import Evaluation
from advbench.threat import Threat

EVALUATION = {"attacks": [{"name": "fgsm"}], "curve": ["1/20"], "corruptions": ["fog"], "distances": True, "seed": 5}


class Told(Group):
    """A process that hears from the first one what there is."""

    contents: dict[str, bytes] = {}

    def told(self, value: Any) -> Any:
        return value if self.first else self.contents


@pytest.fixture
def ready(blobs: Callable[..., Examples], tmp_path: Path) -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return SimpleNamespace(
        subsets=SimpleNamespace(test=blobs(5)), model=model, classes=3, root=tmp_path / "data", base=tmp_path
    )


@pytest.fixture
def climbs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keeps what is asked of `climb`, with the weights that the model has then."""
    asked: list[dict[str, Any]] = []

    def climb(job: Job, model: Any, weights: str, test: Any, attacks: Any, how: Any, *rest: Any, helps: bool) -> str:
        classes, journal, _, group = rest
        asked.append(
            {
                "weights": weights,
                "bias": model[1].bias.tolist(),
                "attacks": attacks,
                "how": how,
                "helps": helps,
                "journal": journal,
                "group": group,
                "classes": classes,
                "count": len(test),
            }
        )
        return weights

    monkeypatch.setattr(verdicts, "climb", climb)
    return asked


def trained(ready: Any) -> Any:
    """Weights of which only the biases tell them apart: 1 for the best, 2 for the last."""
    kept = [{k: torch.full_like(v, value) for k, v in ready.model.state_dict().items()} for value in (1.0, 2.0)]
    return SimpleNamespace(best=kept[0], last=kept[1])


@pytest.mark.parametrize(("checkpoint", "both"), [("best", False), ("last", False), ("best", True)])
def test_the_checkpoint_that_is_asked_for_climbs_the_ladder_and_the_other_a_short_one(
    tmp_path: Path, make_job: Any, ready: Any, climbs: list[dict[str, Any]], checkpoint: str, both: bool
) -> None:
    job = make_job(evaluation=EVALUATION | {"checkpoint": checkpoint, "both": both})

    found, digests = verdicts.verdicts(job, ready, trained(ready), tmp_path / "run", lambda *_: None)

    brief = {"curve": (), "alone": 0, "corruptions": None, "distances": None}
    for name, value, asked in zip(("best", "last"), (1, 2), climbs, strict=True):
        file = tmp_path / "run" / f"{name}.safetensors"
        assert found[name] == digests[name] == asked["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert load_file(file)["1.bias"].tolist() == asked["bias"] == [value] * 3
        whole = both or name == checkpoint
        assert asked["attacks"] == ([FGSM()] if whole else [PGD(steps=20, label="pgd-20")])
        assert asked["how"] == (job.evaluation if whole else job.evaluation.model_copy(update=brief))
        assert asked["journal"] == tmp_path / "run" / "journal" / name
        assert (asked["group"], asked["helps"], asked["classes"], asked["count"]) == (ALONE, False, 3, 5)


def test_another_process_hears_of_the_weights_and_writes_none(
    tmp_path: Path, make_job: Any, ready: Any, climbs: list[dict[str, Any]]
) -> None:
    job = make_job(evaluation=EVALUATION)
    _, digests = verdicts.verdicts(job, ready, trained(ready), tmp_path / "run", lambda *_: None, Told(0, 2))
    Told.contents = {name: (tmp_path / "run" / f"{name}.safetensors").read_bytes() for name in ("best", "last")}

    own: Any = SimpleNamespace(best={}, last={})
    again = verdicts.verdicts(job, ready, own, tmp_path / "other", lambda *_: None, Told(1, 2))

    assert again[1] == digests
    assert not (tmp_path / "other").exists()
    assert [asked["group"].rank for asked in climbs] == [0, 0, 1, 1]


def test_who_assists_takes_the_weights_that_lie_there(
    tmp_path: Path, make_job: Any, ready: Any, climbs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(evaluation=EVALUATION)
    verdicts.verdicts(job, ready, trained(ready), tmp_path / "runs" / "toy" / "toy-s0", lambda *_: None)
    monkeypatch.setattr(verdicts, "prepare", lambda *_: ready)
    item = Item(task="toy", label="toy", seed=0, base=tmp_path, job=job)

    verdicts.assist(item, tmp_path, tmp_path / "data", torch.device("cpu"))

    mine, theirs = climbs[:2], climbs[2:]
    assert [asked["helps"] for asked in climbs] == [False, False, True, True]
    assert [asked | {"helps": False} for asked in theirs] == mine


def test_a_ladder_is_made_of_the_task_s_tables(blobs: Callable[..., Examples], tmp_path: Path) -> None:
    how = Evaluation.model_validate({"attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 3, "label": "three"}]})

    assert verdicts.ladder(how, tmp_path, blobs(5), 3) == [FGSM(), PGD(steps=3, label="three")]


HALF = Accuracy(accuracy=0.5, low=0.1, high=0.9, n=2)


@pytest.mark.parametrize("votes", [None, 5])
def test_corruptions_are_measured_of_the_frozen_model_by_the_first_process_alone(
    make_job: Any, blobs: Callable[..., Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, votes: int | None
) -> None:
    made = verdicts.Verdicts(
        *[("fgsm",)] * 4,
        ledger=SimpleNamespace(),  # type: ignore[arg-type]
        scores=Scores(clean=HALF),
    )
    evaluated: list[Any] = []
    corrupted: list[Any] = []
    frozen: list[Any] = []

    def evaluate(*asked: Any, helps: bool) -> Any:
        evaluated.append((*asked, helps))
        return made

    def accuracies(*asked: Any) -> Any:
        corrupted.append(asked)
        return {"fog": {1: 0.5, 5: 0.25}}

    monkeypatch.setattr(verdicts, "evaluate", evaluate)
    monkeypatch.setattr(verdicts, "frozen", lambda model: (frozen.append(model), nullcontext())[1])
    monkeypatch.setattr("advbench.corruptions.accuracies", accuracies)
    monkeypatch.setattr("advbench.find.is_family", lambda kind: kind is SimpleNamespace)
    job = make_job(evaluation=EVALUATION | {"votes": votes})
    model, test, tell = nn.Identity(), blobs(5), print
    attacks: Any = [FGSM(), SimpleNamespace(name="pytest:one"), SimpleNamespace(name="numpy:two")]

    def climbed(how: Evaluation, group: Group = ALONE, **helping: bool) -> Any:
        asked = (job, model, "w", test, attacks, how, 3, tmp_path, tell, group)
        return verdicts.climb(*asked, **helping)

    found = climbed(job.evaluation)

    # Another build or device, and another library of an attack, starts the blocks over.
    build = f"cpu/{torch.__version__}/{version('pyautoattack')}/{version('numpy')}/{version('pytest')}"
    key = f"w/{job.evaluation_protocol}/{job.data_sha256}/{job.data.plain()}/{build}"
    how = job.evaluation
    rest = (ALONE, flags.masked, False)
    assert evaluated == [(model, test, Threat("Linf", 0.1), attacks, how, 3, tmp_path, key, tell, *rest)]
    file = tmp_path / "corruptions.json"
    assert corrupted == [(model, test, ("fog",), 5, how.batch, file, key, tell, votes or 1)]
    assert frozen == [model]
    assert found.scores.corruptions == {"fog": {"1": 0.5, "5": 0.25}}
    assert found.scores.clean == HALF
    for other in (
        climbed(how.model_copy(update={"corruptions": None})),
        climbed(how, Told(1, 2)),
        climbed(how, helps=True),
    ):
        assert other is made
    assert (len(corrupted), [asked[-1] for asked in evaluated]) == (1, [False, False, False, True])
