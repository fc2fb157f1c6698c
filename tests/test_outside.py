"""A model from anywhere is the very function that its owner trained, or one line says what to change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advbench import find, zoo
from advbench.models.base import Model
from advbench.outside import Asked, Outside, check, load
from advbench.spec import BadInput, validate
from advbench.task import Task

IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))

NETS = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(16, classes)
    def forward(self, x):
        return self.head(self.norm(x).flatten(1))

def fixed():
    torch.manual_seed(11)
    return Net()

def function():
    return lambda x: x.flatten(1)[:, :4]

def other():
    return lambda x: x.flatten(1)[:, 4:8]

def training():
    torch.manual_seed(11)
    net = Net().train()
    return lambda x: net(x)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a code base of one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    return tmp_path


def task(**model: Any) -> Task:
    tables = {
        "version": 1,
        "title": "Tiny",
        "data": {"name": "digits"},
        "model": model or {"name": "linear"},
        "threat": {"norm": "Linf", "eps": "1/10"},
        "training": {"epochs": 1},
        "defense": [{"name": "standard"}],
    }
    return validate(Task, tables)


def asked(word: str, weights: str | None = None, **rest: Any) -> Outside:
    return load(Asked(word, Path(weights) if weights else None, **rest), task(), IMAGES, 4)


def refused(word: str, weights: str | None = None, **rest: Any) -> str:
    with pytest.raises(BadInput) as caught:
        asked(word, weights, **rest)
    [line] = caught.value.lines
    return line


def net(seed: int = 5) -> nn.Module:
    scope: dict[str, Any] = {}
    exec(NETS, scope)  # noqa: S102  # the file above, as its owner would import it
    torch.manual_seed(seed)
    return scope["Net"]().eval()


def test_a_checkpoint_of_another_code_base_fills_the_network_of_its_file(here: Path) -> None:
    owner = net()
    owner.get_buffer("norm.running_mean").fill_(0.3)
    torch.save({"net": nn.DataParallel(owner).state_dict(), "epoch": 3}, "best run.pth")
    found = asked("nets.py:Net", "best run.pth")

    assert torch.equal(found.network(IMAGES), owner(IMAGES))
    assert not found.network.training
    assert found.label == "nets-Net-best-run"
    assert found.about["weights_sha256"] == hashlib.sha256((here / "best run.pth").read_bytes()).hexdigest()
    assert found.about["sources"] == {"nets.py": hashlib.sha256(NETS.encode()).hexdigest()}
    assert found.said == (
        "best run.pth: the state dict under 'net'",
        "best run.pth: every name began with 'module.', which was taken off",
    )


@pytest.mark.usefixtures("here")
def test_weights_that_do_not_fit_are_listed_and_nothing_is_left_as_it_was_drawn() -> None:
    weights = net().state_dict()
    del weights["norm.bias"]
    torch.save(weights | {"head.weight": torch.zeros(9, 16), "extra": torch.zeros(1)}, "w.pth")
    assert refused("nets.py:Net", "w.pth") == (
        "w.pth: does not fit the model: it lacks norm.bias; extra is not in the model; head.weight is (9, 16), here "
        "(4, 16)"
    )
    # A head of other classes is drawn anew where a training starts, and never where a model is judged.
    wide = net().state_dict()
    torch.save(wide | {"head.weight": torch.zeros(9, 16), "head.bias": torch.zeros(9)}, "w.pth")
    assert "head.weight is (9, 16), here (4, 16); head.bias is (9,), here (4,)" in refused("nets.py:Net", "w.pth")


@pytest.mark.usefixtures("here")
def test_without_a_file_the_weights_themselves_are_known_by_their_digest() -> None:
    one, again = asked("nets.py:fixed"), asked("nets.py:fixed")
    assert one.about == again.about
    assert "drawn anew each time; give the trained ones as --weights" in refused("nets.py:Net")


@pytest.mark.usefixtures("here")
def test_a_function_whose_weights_nobody_sees_is_known_by_what_it_answers() -> None:
    found = asked("nets.py:function")
    assert torch.equal(found.network(IMAGES), IMAGES.flatten(1)[:, :4])
    assert found.about["answers_sha256"] == asked("nets.py:function").about["answers_sha256"]
    assert found.about["answers_sha256"] != asked("nets.py:other").about["answers_sha256"]
    torch.save(net().state_dict(), "w.pth")
    assert "returned no nn.Module, so --weights cannot be filled in" in refused("nets.py:function", "w.pth")


@pytest.mark.usefixtures("here")
def test_other_weights_than_those_asked_for_are_refused() -> None:
    torch.save(net().state_dict(), "w.pth")
    sha256 = hashlib.sha256(Path("w.pth").read_bytes()).hexdigest()
    asked("nets.py:Net", "w.pth", weights_sha256=sha256)
    assert "asks for another" in refused("nets.py:Net", "w.pth", weights_sha256="0" * 64)


@pytest.mark.usefixtures("here")
def test_a_model_of_ours_has_the_normalisation_of_its_weights() -> None:
    owner = find.named(Model, {"name": "resnet18", "mean": [0.1], "std": [0.7]}).build((1, 4, 4), 4).eval()
    save_file(owner.state_dict(), "w.safetensors")
    # The task's own fields are taken where it trains that family: only they fit a single channel.
    its = task(name="resnet18", mean=[0.5], std=[0.5])
    found = load(Asked("resnet18", Path("w.safetensors")), its, IMAGES, 4)
    assert torch.equal(found.network(IMAGES), owner(IMAGES))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("liner", "no model 'liner'; did you mean 'linear'?"),
        ("torchvision:resnet81", "no model 'torchvision:resnet81'; did you mean 'torchvision:resnet18'?"),
        ("linear", "linear: would answer with untrained weights; give --weights FILE"),
        ("nets.py", "nets.py: say what in it makes the model: nets.py:NAME"),
        ("some/where", "some/where: no such folder, and no file that ends with .py:NAME"),
        (".", ".: no job of `advbench run`; give results/records/TASK/LABEL-sN of a finished one"),
    ],
)
def test_a_word_that_means_no_model_is_a_line(word: str, said: str) -> None:
    assert refused(word) == said


@pytest.mark.usefixtures("here")
def test_options_that_do_not_belong_to_the_word_are_lines() -> None:
    assert refused("linear", "absent.pth") == "--weights absent.pth: no such file"
    assert refused("linear", checkpoint="last") == "--checkpoint last: only a run folder has two; linear is none"


def test_published_weights_without_a_network_and_of_other_classes_are_lines(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advbench.models.library import Published
    from advbench.models.torchvision import Torchvision

    def offline(_: Any) -> Published:
        raise OSError("no route to host")

    monkeypatch.setattr(Torchvision, "download", offline)
    line = refused("torchvision:mobilenet_v3_small", "imagenet")
    assert "cannot be had here (OSError: no route to host); fetch them on a machine with a network, or give" in line
    assert not list(here.glob("imagenet*"))


def test_a_zoo_s_model_is_known_by_its_file_and_the_package_s_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "load", lambda *told: (net(), {"X.pt": "ab" * 32}) if told[0] == "X" else None)
    found = asked("robustbench:X")
    assert found.about == {"name": "robustbench:X", "zoo": "X/Linf", "weights_sha256": "ab" * 32}
    assert found.versions.keys() == {"robustbench"}
    assert "asks for another" in refused("robustbench:X", weights_sha256="cd" * 32)


class Odd(nn.Module):
    """A linear model with one thing wrong about it."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.wrong = wrong
        self.head = nn.Linear(16, 4, device="meta" if wrong == "meta" else None)
        self.aside = [torch.ones(4, device="meta")]

    def forward(self, x: Tensor) -> Any:
        if self.wrong == "in place":
            with torch.no_grad():
                x.sub_(0.5)
        if self.wrong == "elsewhere":
            return x.flatten(1)[:, :4] + self.aside[0]
        logits = self.head(x.flatten(1))
        match self.wrong:
            case "tuple":
                return logits, x
            case "dict":
                return {"logits": logits}
            case "classes":
                return logits[:, :3]
            case "half":
                return logits.half()
            case "nan":
                return logits / 0
            case "moved":
                return logits.to("meta")
            case "detached":
                return logits.detach()
            case "batch":
                return logits - logits.mean(0)
            case "raises":
                raise RuntimeError("no way\nnone at all")
            case _:
                return logits


GIVEN = "images come as float32 (2, 1, 4, 4) in [0, 1] on cpu, and logits (N, 4) should come out"
WRONG = {
    "tuple": f"it answers with tuple, not with logits of (2, 4); {GIVEN}",
    "dict": f"it answers with dict, not with logits of (2, 4); {GIVEN}",
    "classes": f"it answers with (2, 3), not with logits of (2, 4); {GIVEN}",
    "nan": f"its logits are not finite; {GIVEN}",
    "raises": f"at head (Linear): no way; {GIVEN}",
    "half": "it answers in float16; its logits should be float32: add .float()",
    "moved": f"it answers on meta, not on cpu; {GIVEN}",
    "detached": "its logits have no gradient by the images; take no_grad, detach or numpy out of it",
    "batch": "its answer for an image changes with the rest of the batch; call .eval() on it",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_model_that_does_not_answer_as_it_should_is_a_line(wrong: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(Odd(wrong), IMAGES, 4, "odd")
    assert caught.value.lines == (f"odd: {WRONG[wrong]}",)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Odd().half(), "head.weight is float16; return model.float()"),
        (Odd().double(), "head.weight is float64; return model.float()"),
        (Odd("meta"), "cannot be moved to cpu: "),
        (Odd("elsewhere"), "at the start: "),
        (Odd("in place"), "it writes into the images it is given; compute a new tensor there"),
    ],
)
def test_a_model_of_another_type_or_place_is_a_line(model: nn.Module, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(model, IMAGES.clone(), 4, "odd")
    [line] = caught.value.lines
    assert line.startswith(f"odd: {said}")


@pytest.mark.usefixtures("here")
def test_a_function_around_a_network_in_training_mode_is_found_out() -> None:
    assert "changes with the rest of the batch; call .eval() on it" in refused("nets.py:training")


def test_a_right_model_passes_and_is_left_in_eval_mode_with_its_weights() -> None:
    model = Odd().train()
    before = json.dumps({name: value.tolist() for name, value in model.state_dict().items()})
    check(model, IMAGES, 4, "odd")
    assert not model.training
    assert json.dumps({name: value.tolist() for name, value in model.state_dict().items()}) == before
