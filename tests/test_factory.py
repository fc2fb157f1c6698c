"""What a stranger's Python file makes: called as it wants to be, and each way to go wrong is one line."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advbench.factory import Called, made
from advbench.spec import BadInput

FILE = """\
import torch
from torch import nn
from beside import WIDTH

model = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 4))
size = 3

class Net(nn.Module):
    pass

def plain():
    return nn.Linear(2, 3)

def sized(classes):
    return nn.Linear(2, classes)

def function():
    return lambda x: 2 * x

class Detector:
    def __call__(self, x):
        return x
    def reject(self, x):
        return x.sum(1)

def detector():
    return Detector()

def wrapped():
    return nn.DataParallel(nn.Linear(2, 3))

def switches():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    return nn.Linear(2, 3)

def loose(*args, **kwargs):
    return nn.Linear(2, 5)

def widened(classes=10):
    return nn.Linear(2, classes)

written_in_c = dict

def _sizes():
    pass

def nothing():
    pass

def greedy(classes, width):
    pass

def raises():
    raise KeyError('a\\nb')

def leaves():
    raise SystemExit(3)
"""


RAISED = (("raises", "KeyError"), ("leaves", "SystemExit"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    # A name for each test, because Python imports a neighbour once.
    beside = f"beside_{tmp_path.name}"
    (tmp_path / f"{beside}.py").write_text("WIDTH = 16\n", "utf-8")
    (tmp_path / "nets.py").write_text(FILE.replace("beside", beside), "utf-8")
    return tmp_path / "nets.py"


def test_a_function_is_called_with_the_classes_where_it_takes_them(file: Path) -> None:
    for name, features in (("plain", 3), ("sized", 7), ("widened", 7), ("loose", 5)):
        model, _ = made(file, name, 7)
        assert isinstance(model, nn.Linear)
        assert model.out_features == features


def test_its_random_numbers_begin_at_its_seed(file: Path) -> None:
    made(file, "plain", 4)  # what the file draws where it is read comes first
    for how, seed in (({}, 0), ({"seed": 0}, 0), ({"seed": 5}, 5)):
        model: Any = made(file, "plain", 4, **how)[0]
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            assert torch.equal(model.weight, nn.Linear(2, 3).weight)


def test_a_class_a_module_and_any_function_of_images_will_do(file: Path) -> None:
    assert type(made(file, "Net", 4)[0]).__name__ == "Net"
    assert isinstance(made(file, "model", 4)[0], nn.Sequential)
    function = made(file, "function", 4)[0]
    assert isinstance(function, Called)
    assert torch.equal(function(torch.ones(2)), torch.full((2,), 2.0))
    assert not hasattr(function, "reject")
    detector: Any = made(file, "detector", 4)[0]
    assert torch.equal(detector.reject(torch.ones(3, 2)), torch.full((3,), 2.0))


def test_what_shared_it_between_devices_is_taken_off(file: Path) -> None:
    assert isinstance(made(file, "wrapped", 3)[0], nn.Linear)


def test_the_file_and_the_neighbours_it_took_are_known_by_their_digests(file: Path) -> None:
    _, sources = made(file, "plain", 4)
    beside = f"beside_{file.parent.name}.py"
    assert sources == {
        name: hashlib.sha256((file.parent / name).read_bytes()).hexdigest() for name in ("nets.py", beside)
    }
    assert str(file.parent) not in sys.path


def test_what_lies_elsewhere_is_known_by_its_module_and_what_is_installed_is_not(
    file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    names = {where: f"{where}_{other.name}" for where in ("apart", "installed", "deep")}
    places = [other, other / "site-packages", file.parent]
    paths = [other / f"{names['apart']}.py", other / "site-packages" / f"{names['installed']}.py"]
    paths.append(file.parent / "pack" / f"{names['deep']}.py")
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n", "utf-8")
    imports = f"import {names['apart']}, {names['installed']}\nimport pack.{names['deep']}\nimport wave\n"
    for place in places[:2]:
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "wave", raising=False)  # of the standard library
    file.write_text(f"{imports}from torch import nn\ndef net():\n    return nn.Identity()\n", "utf-8")

    _, sources = made(file, "net", 4)
    assert set(sources) == {"nets.py", names["apart"], f"pack/{names['deep']}.py"}


def test_what_it_switches_in_torch_is_switched_back(file: Path) -> None:
    before = torch.get_rng_state()
    made(file, "switches", 4)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plan", "nets.py: nothing is called 'plan' there; did you mean 'plain'?"),
        ("sise", "nets.py: nothing is called 'sise' there; did you mean 'sized'?"),
        ("written_in_c", "nets.py:written_in_c: made a dict; it should return an nn.Module"),
        ("size", "nets.py:size: is a int; name a function that returns an nn.Module"),
        ("nothing", "nets.py:nothing: made a NoneType; it should return an nn.Module"),
        ("greedy", "nets.py:greedy: is called without arguments, or with classes=; give width a default"),
        ("raises", "nets.py:raises: raised KeyError: 'a\\nb' (line {raises})"),
        ("leaves", "nets.py:leaves: raised SystemExit: 3 (line {leaves})"),
    ],
)
def test_each_way_to_go_wrong_is_a_line(file: Path, name: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        made(file, name, 4)
    lines = file.read_text("utf-8").splitlines()
    where = {word: next(n for n, line in enumerate(lines, 1) if f"raise {kind}" in line) for word, kind in RAISED}
    assert caught.value.lines == (f"{file.parent}/{said.format(**where)}",)


def test_a_file_that_is_not_there_or_raises_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "torn.py").write_text("x = 1\nimport no_such_package\n", "utf-8")
    for name, said in (
        ("absent.py", "cannot be read: No such file or directory"),
        ("torn.py", "raised on import: ModuleNotFoundError: No module named 'no_such_package' (line 2)"),
    ):
        with pytest.raises(BadInput) as caught:
            made(tmp_path / name, "model", 4)
        assert caught.value.lines == (f"{tmp_path / name}: {said}",)
