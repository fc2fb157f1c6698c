"""A model from anywhere is the very function that its owner trained, or one line says what to change."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from advbench import find, zoo
from advbench.models.base import Model
from advbench.outside import Asked, Outside, load
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
        ("w.pth", "w.pth: a file is no model; name its run's folder, or FILE.py:NAME and --weights w.pth"),
        ("/", "/: no job of `advbench run`; give results/records/TASK/LABEL-sN of a finished one"),
        ("some/where", "some/where: no such folder, and no file that ends with .py:NAME"),
        (".", ".: no job of `advbench run`; give results/records/TASK/LABEL-sN of a finished one"),
    ],
)
def test_a_word_that_means_no_model_is_a_line(word: str, said: str) -> None:
    Path("w.pth").touch()
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


@pytest.mark.usefixtures("here")
def test_a_function_around_a_network_in_training_mode_is_found_out() -> None:
    assert any("changes with the rest of the batch" in line for line in asked("nets.py:training").said)


@pytest.mark.usefixtures("here")
def test_a_model_that_draws_numbers_is_known_again() -> None:
    Path("dice.py").write_text(
        "import torch\ndef dice(x):\n    return torch.randn(len(x), 4) + x.flatten(1)[:, :4]\n"
        "def numbers(x):\n    import numpy as np\n"
        "    return torch.from_numpy(np.random.default_rng().normal(size=(len(x), 4))).float() + x.flatten(1)[:, :4]\n"
        "made, other = lambda: dice, lambda: numbers\n",
        encoding="utf-8",
    )
    for name in ("made", "other"):
        assert asked(f"dice.py:{name}").about == asked(f"dice.py:{name}").about
    assert "answers_sha256" not in asked("dice.py:other").about


@pytest.mark.usefixtures("here")
def test_a_file_that_it_imports_from_elsewhere_is_a_part_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("lib")).mkdir()
    (Path("lib") / "somewhere_else.py").write_text("FACTOR = 1\n", encoding="utf-8")
    (Path("code")).mkdir()
    (Path("code") / "made.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path('lib').resolve())!r})\n"
        "import somewhere_else\ndef net():\n    return lambda x: somewhere_else.FACTOR * x.flatten(1)[:, :4]\n",
        encoding="utf-8",
    )
    with monkeypatch.context() as context:
        context.setattr("sys.path", [*sys.path])
        assert set(asked("code/made.py:net").about["sources"]) == {"made.py", "somewhere_else"}
