"""The job of an evaluation is the task's own judging of the model that is given, or a line that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from slow_attack import SLOW
from torch import Tensor, nn

from advbench import agenda, judging
from advbench.judging import Given, Ready, Where, ready_for
from advbench.outside import Outside
from advbench.plan import EVALUATION_PROTOCOL
from advbench.resolve import resolve
from advbench.spec import BadInput
from advbench.until import Until
from advbench.weights import digest

Calls = list[tuple[Any, ...]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    """A model, with the task's folder as the one to stand in."""
    monkeypatch.chdir(tmp_path)
    return Net()


def ready(net: nn.Module, path: Path, **changes: Any) -> Ready:
    told: dict[str, Any] = {"only": None, "label": None, "examples": None, "until": None, "device": "cpu"} | changes
    where = Where(Path("results"), path.parent / "data", told.pop("device"))
    return ready_for(Given(net), path, where=where, **told)


def refused(net: nn.Module, path: Path, **changes: Any) -> list[str]:
    with pytest.raises(BadInput) as error:
        ready(net, path, **changes)
    return list(error.value.lines)


def test_the_job_says_what_the_task_says_and_whose_weights_they_are(net: Net, tmp_path: Path, tiny):
    path = tiny(tmp_path, more="[resources]\nthreads = 2\n")
    found = ready(net, path)

    [item] = resolve(path, tmp_path / "data", {}).items
    assert item.job
    theirs = item.job.plain()
    assert found.job.plain() == {
        **{key: theirs[key] for key in ("task", "title", "data", "data_sha256", "threat", "evaluation", "threads")},
        "label": "Net",
        "seed": 0,
        "model": {"name": "Net", "weights_sha256": digest(net.state_dict())},
        "examples": None,
        "until": None,
        "evaluation_protocol": EVALUATION_PROTOCOL,
    }
    assert (found.job.title, found.job.threads) == ("Tiny", 2)
    assert (found.task.title, found.classes, found.base, found.rule) == ("Tiny", 4, tmp_path, None)
    assert found.test.index.tolist() == list(range(32))
    assert found.model == Outside(net, "Net", found.job.model, {}, ())


@pytest.mark.parametrize(("asked", "kept"), [(None, None), (1, 1), (31, 31), (32, None)])
def test_so_many_examples_are_the_first_ones(net: Net, tmp_path: Path, tiny, asked: int | None, kept: int | None):
    found = ready(net, tiny(tmp_path), examples=asked)

    assert found.job.examples == kept
    assert found.test.index.tolist() == list(range(asked or 32))


def test_a_rule_when_to_stop_is_part_of_the_job(net: Net, tmp_path: Path, tiny):
    until = Until(None, None, 0.25)
    found = ready(net, tiny(tmp_path), until=until)

    assert found.rule
    assert found.rule.until == until
    assert found.job.until == {"margin": None, "width": 0.25}
    [line] = refused(net, tiny(tmp_path), until=until, examples=8)
    assert line.startswith("--examples and --until: give one of them")


def test_only_who_says_so_climbs_past_a_masked_gradient(net: Net, tmp_path: Path, tiny):
    path = tiny(tmp_path)
    where = Where(Path("results"), tmp_path / "data", "cpu")

    assert ready_for(Given(net), path, None, None, None, where, None).job.evaluation.stop is not False
    assert ready(net, path, stop=False).job.evaluation.stop is False


@pytest.mark.parametrize("label", ["mine", "A.b_c-1", "0"])
def test_a_label_that_can_name_a_folder_is_taken(net: Net, tmp_path: Path, tiny, label: str):
    assert ready(net, tiny(tmp_path), label=label).job.label == label


@pytest.mark.parametrize("label", ["", ".a", "-a", "a/b", "a b", "a\n"])
def test_a_label_that_cannot_is_refused(net: Net, tmp_path: Path, tiny, label: str):
    assert refused(net, tiny(tmp_path), label=label) == [
        f"--label {label!r}: names folders: use letters, digits and . _ -"
    ]


def test_no_defense_of_the_task_lends_its_label(net: Net, tmp_path: Path, tiny):
    path = tiny(tmp_path, more='[[defense]]\nname = "standard"\nlabel = "ours"\n\n[[defense]]\nfile = "absent.py"\n')

    assert judging.judging(path, None)[2] == ["standard", "ours"]
    for label in ("standard", "ours"):
        [line] = refused(net, path, label=label)
        assert line == f"--label {label}: is a defense of {path}; give the model a --label of its own"
    assert ready(net, path, label="pgd-at").job.label == "pgd-at"


@pytest.mark.parametrize("defenses", ["", "defense = 3\n", 'defense = "standard"\n', "defense = [3]\n"])
def test_what_a_task_trains_is_not_looked_at(net: Net, tmp_path: Path, tiny, defenses: str):
    path = tiny(tmp_path, "t", ("epochs = 1", "epochs = 0"), ('[[defense]]\nname = "standard"\n', ""))
    path.write_text(defenses + path.read_text("utf-8"), "utf-8")

    assert judging.judging(path, None)[2] == []
    assert ready(net, path).job.task == "t"


SWEPT = ('"1/10"', '["1/10", "1/5", "2/5"]')


def test_of_a_file_of_several_tasks_one_is_chosen(net: Net, tmp_path: Path, tiny):
    path = tiny(tmp_path, "t", SWEPT)
    names = "t@eps=1-10, t@eps=1-5, t@eps=2-5"

    assert ready(net, path, only="*1-5").job.task == "t@eps=1-5"
    assert refused(net, path) == [f"{path}: means 3 tasks; choose one with --only: {names}"]
    for only, count in (("*1-*", 2), ("none", 0)):
        why = f"--only {only!r} matches {count} of its tasks"
        assert refused(net, path, only=only) == [f"{path}: {why}; choose one with --only: {names}"]
    assert refused(net, tiny(tmp_path, "t"), only="x") == [
        f"{path}: --only 'x' matches 0 of its tasks; choose one with --only: t"
    ]
    assert refused(net, tmp_path) == [f"--task {tmp_path}: is a folder; give one of its task files"]


def test_all_that_is_wrong_with_the_judging_is_told(net: Net, tmp_path: Path, tiny):
    wrong = [('name = "npz"', 'name = "npy"'), ('"fgsm"', '"fsgm"'), ('norm = "Linf"', 'norm = "Linf"\neps_ = 1')]
    path = tiny(tmp_path, "t", *wrong, more="[collect]\nfsoc = {}\n[notes]\n")
    lines = refused(net, path)

    assert all(line.startswith(f"{path}: ") for line in lines)
    for word in ("'npy'", "'fsgm'", "'fsoc'", "'eps_'", "'notes'"):
        assert sum(word in line for line in lines) == 1, lines

    path = tiny(tmp_path, "t", ('"1/10"', '["1/10", "1/10"]'))
    [line] = refused(net, path)
    assert line.startswith(f"{path}: threat.eps")


def test_what_the_data_lack_is_told_with_the_task(net: Net, tmp_path: Path, tiny):
    path = tiny(tmp_path, "t", ('path = "tiny.npz"', 'path = "tiny.npz"\ntest = 33'))
    assert refused(net, path) == [f"{path}: data.test: 33 is more than the 32 examples of the test split"]
    [line] = refused(net, tiny(tmp_path, "t"), examples=33)
    assert line == "--examples 33: the task has 32 test examples"
    path = tiny(tmp_path, "t", ('"tiny.npz"', '"absent.npz"'))
    [line] = refused(net, path)
    assert line.startswith(f"{path}: ")
    assert "absent.npz" in line
    own = SLOW.replace('paper = "a test"', 'paper = "a test"\n    norms = ("L2",)')
    (tmp_path / "slow.py").write_text(own, "utf-8")
    path = tiny(tmp_path, "t", ('"fgsm"', '"fgsm", { file = "slow.py" }'))
    assert refused(net, path) == [f"{path}: the attack 'slow' is not defined for Linf"]


def test_torch_is_set_up_before_the_model_comes_and_again_after_it(net: Net, tmp_path: Path, tiny, monkeypatch):
    done: Calls = []
    path = tiny(tmp_path, more="[resources]\nthreads = 3\ndeterministic = true\n")
    images = ready(net, path).test.pixels(slice(0, 2))

    def seen(network: nn.Module, given: Tensor, classes: int, word: str) -> tuple[str, ...]:
        assert torch.equal(given, images)
        done.append((network, classes, word))
        return ("odd",)

    monkeypatch.setattr(judging, "inspect", seen)
    monkeypatch.setattr(judging, "set_up", lambda *args, **kwargs: done.append((*args, kwargs)))
    found = ready(net, path)

    set_up = (3, torch.device("cpu"), {"deterministic": True})
    assert done == [set_up, (net, 4, "Net"), set_up]
    assert found.model == Outside(net, "Net", found.job.model, {}, ("odd",))


def test_a_task_for_accelerators_runs_on_a_cpu_only_where_it_is_asked_for(net: Net, tmp_path: Path, tiny, monkeypatch):
    monkeypatch.setattr(agenda, "devices", lambda device, jobs, items: ["cpu", "other"][:jobs])
    path = tiny(tmp_path, more="[resources]\naccelerator = true\n")

    assert ready(net, path).job.task == "tiny"
    assert refused(net, path, device="auto") == [
        f"{path}: needs an accelerator, and there is none; --device cpu evaluates here all the same"
    ]
    assert ready(net, tiny(tmp_path), device="auto").job.task == "tiny"
