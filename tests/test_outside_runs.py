"""A job of ours, a zoo's model and published weights are judged as what they are, or refused in a line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advbench import find, outside, zoo
from advbench.models.base import Model
from advbench.models.library import Library
from advbench.outside import Asked, Outside, load
from advbench.seeds import own_streams
from advbench.spec import BadInput, validate
from advbench.task import Task
from advbench.weights import digest

IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TASK = validate(
    Task,
    {
        "version": 1,
        "title": "Tiny",
        "data": {"name": "digits"},
        "model": {"name": "linear"},
        "threat": {"norm": "Linf", "eps": "1/10"},
        "training": {"epochs": 1},
        "defense": [{"name": "standard"}],
    },
)


def asked(word: Any, weights: str | None = None, **rest: Any) -> Outside:
    return load(Asked(str(word), Path(weights) if weights else None, **rest), TASK, IMAGES, 4)


def refused(word: Any, weights: str | None = None, **rest: Any) -> str:
    with pytest.raises(BadInput) as caught:
        asked(word, weights, **rest)
    [line] = caught.value.lines
    return line


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return find.named(Model, {"name": "linear"}).build((1, 4, 4), 4).eval()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lay_record: Callable[..., Path]) -> Path:
    """A folder to stand in, and in it the results of one job, whose best weights are not its last."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "results" / "runs" / "t" / "a-s3"
    runs.mkdir(parents=True)
    for seed, name in enumerate(("best", "last")):
        save_file(linear(seed).state_dict(), runs / f"{name}.safetensors")
    lay(lay_record, "a")
    return Path("results")


def lay(lay_record: Callable[..., Path], label: str, digests: Any = None, **more: Any) -> None:
    said = {"weights_sha256": digests or {}}
    lay_record(Path("results"), label, 3, torch.ones(4).bool().numpy(), provenance=said, job={"model": MODEL}, **more)


MODEL = {"name": "linear"}


@pytest.mark.parametrize(("checkpoint", "seed"), [(None, 0), ("best", 0), ("last", 1)])
@pytest.mark.parametrize("kind", ["records", "runs"])
def test_a_job_s_folder_is_the_model_of_its_checkpoint(results: Path, checkpoint: str | None, seed: int, kind: str):
    word = results / kind / "t" / "a-s3"
    found = asked(word, checkpoint=checkpoint)

    assert torch.equal(found.network(IMAGES), linear(seed)(IMAGES))
    file = results / "runs" / "t" / "a-s3" / f"{checkpoint or 'best'}.safetensors"
    about: dict[str, Any] = {"name": str(word), "family": MODEL, "weights_sha256": outside.read(file).sha256}
    about |= {"checkpoint": "last"} if checkpoint == "last" else {}
    assert (found.about, found.versions, found.said) == (about, {}, ())
    assert found.label == ("a-s3-last" if checkpoint == "last" else "a-s3")


@pytest.mark.usefixtures("results")
def test_a_job_s_weights_are_those_of_its_record_and_nothing_else(lay_record: Callable[..., Path]):
    word, file = Path("results/records/t/a-s3"), Path("results/runs/t/a-s3/best.safetensors")
    mine = outside.read(file).sha256
    lay(lay_record, "a", {"best": mine})
    assert asked(word).about["weights_sha256"] == mine
    lay(lay_record, "a", {"best": "ab" * 32})
    assert refused(word) == f"{file.resolve()}: not the weights of the record: sha256 {mine[:12]}, not {'ab' * 6}"
    assert asked(word, checkpoint="last").label == "a-s3-last", "of which the record says nothing"
    assert refused(word, str(file)) == f"{word}: is a run folder, which has its weights; leave --weights out"

    lay(lay_record, "a")
    save_file({f"module.{name}": value for name, value in linear(0).state_dict().items()}, file)
    assert "best.safetensors: does not fit the model: " in refused(word), "our own files bear our own names"
    file.unlink()
    assert refused(word) == f"{word}: its weights are not on this machine: there is no {file.resolve()}"


@pytest.mark.usefixtures("results")
def test_a_folder_of_no_finished_job_of_ours_is_refused(lay_record: Callable[..., Path]):
    none = "no job of `advbench run`; give results/records/TASK/LABEL-sN of a finished one"
    for word in ("results/other/t/a-s3", "results/runs/t/b-s3"):
        Path(word).mkdir(parents=True)
        assert refused(word) == f"{word}: {none}"
    lay(lay_record, "failed", status="failed", error="no", scores=None)
    word = "results/records/t/failed-s3"
    assert refused(word) == f"{word}: its job failed, so there are no weights of ours to evaluate"
    file = Path("results/records/t/a-s3/record.json")
    file.write_text(file.read_text("utf-8").replace('"defense": {', '"defended": {'), "utf-8")
    word = "results/records/t/a-s3"
    assert refused(word) == f"{word}: its job was trained elsewhere, so there are no weights of ours to evaluate"


@pytest.mark.parametrize("weights", [None, "w.pt"])
def test_a_zoo_s_model_of_several_files_is_known_by_all(tmp_path: Path, monkeypatch, weights: str | None):
    monkeypatch.chdir(tmp_path)
    Path("w.pt").touch()
    told: list[Any] = []
    digests = {"a.pt": "ab" * 32, "b.pt": "cd" * 32}
    monkeypatch.setattr(zoo, "load", lambda *words: told.append(words) or (linear(0), digests))
    found = asked("robustbench:X", weights)

    both = hashlib.sha256(("ab" * 32 + "cd" * 32).encode()).hexdigest()
    about = {"name": "robustbench:X", "zoo": "X/Linf", "weights_sha256": both}
    assert found.about == about | {"files": digests} | ({"weights": "w.pt"} if weights else {})
    assert told == [("X", "digits", "Linf", Path(weights) if weights else None)]
    assert (found.label, found.versions) == ("X", {"robustbench": version("robustbench")})
    digests.clear()
    about["weights_sha256"] = digest(linear(0).state_dict())
    assert asked("robustbench:X").about == about, "without files, by the weights themselves"


@pytest.mark.parametrize("head", ["kept", "drawn anew, for 1000 classes"])
def test_published_weights_are_taken_with_their_head_or_not_at_all(monkeypatch, head: str):
    network, word = linear(0), "torchvision:mobilenet_v3_small"
    monkeypatch.setattr(outside, "settle", lambda model, _: model.model_copy(update={"pretrained_sha256": "ab" * 32}))
    monkeypatch.setattr(outside, "start", lambda model, shape, classes, _: (network, {"pretrained_head": head}))
    if head != "kept":
        assert refused(word, "imagenet") == f"{word}: the imagenet weights are of other classes: {head}"
        return
    found = asked(word, "imagenet")
    assert found.network is network
    assert {name: found.about[name] for name in ("name", "weights", "weights_sha256")} == {
        "name": word,
        "weights": "imagenet",
        "weights_sha256": "ab" * 32,
    }
    assert found.about["family"]["name"] == word
    assert (found.label, found.versions) == (
        "torchvision-mobilenet_v3_small-imagenet",
        {"torchvision": version("torchvision")},
    )
    assert issubclass(find.part(Model, word), Library)


def test_answers_are_those_of_fixed_random_streams(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dice = "import torch\ndef made():\n    return lambda x: torch.randn(len(x), 4) + x.flatten(1)[:, :4]\n"
    Path("dice.py").write_text(dice, "utf-8")

    def answers(seed: int) -> Tensor:
        with own_streams(seed):
            return torch.randn(2, 4) + IMAGES.flatten(1)[:, :4]

    assert asked("dice.py:made").about["answers_sha256"] == digest({"answers": answers(0)})


def test_a_label_has_letters_that_name_folders_and_no_more_than_a_hundred():
    assert outside._label("nets", "", Path("a b/best run.pth"), None) == "nets-best-run"
    assert outside._label("_.a?") == "a"
    assert outside._label("?", "..") == "model"
    assert outside._label("x" * 101) == "x" * 100
    assert outside._shape(torch.zeros(2, 3, 4, 5)) == (3, 4, 5)
