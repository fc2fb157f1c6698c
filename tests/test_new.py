"""`advbench new`: its files are green at once, their tests notice what is wrong, and nothing is lost to them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from typer.testing import CliRunner

from advbench import cli, find
from advbench.collect import collect
from advbench.data.base import Examples
from advbench.defense import TrainState
from advbench.identity import code
from advbench.new import new, told
from advbench.plan import Item
from advbench.record import load
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.seeds import BlockNoise, Stream, generator
from advbench.spec import BadInput, validate
from advbench.threat import Threat
from advbench.verdicts import ladder

KINDS = ("defense", "attack", "collector")


SPOILT = {
    "weak": ("defense", "threat.eps / 4", "threat.eps / 40"),
    "dear": ("defense", "return self.steps + 1, self.steps + 1", "return self.steps, self.steps"),
    "rude": ("defense", "x_adv = ascend(", "state.model(x).sum().backward()\n        x_adv = ascend("),
    "outside": ("attack", "threat.project(threat.step(x_adv, grad, threat.eps / 4), x)", "x_adv + grad.sign()"),
    "unseeded": ("attack", "threat.random_start(x, noise)", "x + threat.eps * (x.new_empty(x.shape).uniform_())"),
    "wrong": ("collector", "threat.dual_norm(grad)", "threat.size(grad)"),
    "batched": ("collector", '"slope": scene', '"slope": len(rows) * scene'),
}
"""What breaks the contract: by name, the kind, what stands there and what instead."""


@pytest.mark.slow
def test_the_files_pass_their_tests_at_once_and_these_notice_what_breaks_the_contract(tmp_path: Path, command_env):
    for kind in KINDS:
        files = new(kind, f"half-{kind}", tmp_path)
        assert [file.name for file in files] == [f"half_{kind}.py", f"test_half_{kind}.py"]
    text = "".join(file.read_text("utf-8") for file in tmp_path.glob("*.py"))
    for name, (kind, right, wrong) in SPOILT.items():
        file, _ = new(kind, name, tmp_path)
        assert file.read_text("utf-8").count(right) == 1
        file.write_text(file.read_text("utf-8").replace(right, wrong), "utf-8")

    # A user's folder, in a process of its own that knows none of our settings.
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path]
    done = subprocess.run(
        [*words, tmp_path], cwd=tmp_path, env=command_env, capture_output=True, text=True, check=False
    )

    failed = [line.split("test_")[1].split(".py")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert set(failed) == set(SPOILT), done.stdout
    # Three tests of a defense, five of an attack, five of a collector: three, two and two of them spoilt, and one not.
    assert f"{len(failed)} failed, {4 * 3 + 3 * 5 + 3 * 5 - len(failed)} passed" in done.stdout
    assert "class HalfDefense(Defense)" in text
    assert 'name = "half-attack"' in text
    assert "my_" not in text, "every name is the user's"


OWN = """\
attacks = ["fgsm", { file = "half_attack.py", steps = 3 }]
[collect]
half-collector = { file = "half_collector.py" }"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    """A folder with a task of a second that names all three, run once."""
    folder = tmp_path_factory.mktemp("bench")
    for kind in KINDS:
        new(kind, f"half-{kind}", folder)
    tiny(folder, "own", ('attacks = ["fgsm"]', OWN), ('name = "standard"', 'file = "half_defense.py"'))
    tiny(folder, "plain")
    attempt(item(folder), folder / "results", folder / "data", torch.device("cpu"), lambda *_: None)
    return folder


def item(folder: Path) -> Item:
    return resolve(folder / "own.toml", folder / "data", {}).items[0]


def test_a_task_that_names_them_runs_and_its_record_knows_their_digests(bench: Path):
    record = load(bench / "results/records/own/half-defense-s0/record.json")

    assert record.error is None
    digests = {kind: code((bench / f"half_{kind}.py").read_bytes()) for kind in KINDS}
    assert record.job["defense"]["sha256"] == digests["defense"]
    rung = {"name": "half-attack", "file": "half_attack.py", "sha256": digests["attack"], "steps": 3}
    assert record.job["evaluation"]["attacks"][1] == rung | {"label": None, "restarts": 1}
    assert record.job["collect"]["half-collector"]["sha256"] == digests["collector"]
    assert record.scores
    # On a linear model FGSM does all there is to do, and three steps of eps/4 from anywhere at most that.
    assert record.scores.attacks["fgsm"] <= record.scores.attacks["half-attack"] < record.scores.clean.accuracy
    slope = record.measures["half-collector"]["slope_median"]
    assert slope.value is not None
    assert slope.value > 0
    assert any(digests["collector"][:12] in note for note in record.measure_notes["half-collector"])


def test_the_bytes_of_a_file_make_the_job_and_its_place_does_not(bench: Path):
    task, file = bench / "own.toml", bench / "half_attack.py"
    text, source = task.read_text("utf-8"), file.read_text("utf-8")
    (bench / "deeper").mkdir()
    (bench / "deeper/half_attack.py").write_text(source, "utf-8")

    def job(written: str) -> Any:
        task.write_text(written, "utf-8")
        return item(bench).job

    first = job(text)
    assert job(text.replace('"half_attack.py"', '"deeper/half_attack.py"')).id == first.id
    assert job(text.replace("steps = 3", "steps = 4")).id != first.id
    watched = resolve(task, bench / "data", {}).watched
    assert {file, bench / "half_collector.py"} < set(watched), "a plan on disk is forgotten when they change"
    try:
        file.write_text(f"{source}EDITED = True\n", "utf-8")
        edited = job(text)
        assert edited.id != first.id
        assert edited.train_id == first.train_id, "the weights do not depend on who attacks them"
        with pytest.raises(BadInput, match=r"half_attack\.py: changed since the plan was made; run again"):
            ladder(first.evaluation, bench, Examples(*[torch.zeros(1, 1, 4, 4)] * 3, peak=1), 4, bench)
    finally:
        file.write_text(source, "utf-8")


def test_an_outside_model_is_judged_and_measured_by_them(bench: Path, monkeypatch: pytest.MonkeyPatch):
    folder = bench / "results/records/own/half-defense-s0"
    monkeypatch.chdir(bench)

    def told(*words: str | Path) -> Any:
        done = CliRunner().invoke(cli.app, [*map(str, words), "--device", "cpu", "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    old, other = load(folder / "record.json"), told("evaluate", folder, "--task", "own.toml", "--label", "again")

    assert old.scores
    assert other["scores"]["attacks"]["half-attack"] == old.scores.attacks["half-attack"]
    assert other["job"]["evaluation"]["attacks"] == old.job["evaluation"]["attacks"]
    told_here = told("collect", folder, "--task", "own.toml", "--collector", "half-collector", "--results", "x")
    elsewhere = told("collect", folder, "--task", "plain.toml", "--collector", "half_collector.py", "--results", "y")
    for found in (told_here, elsewhere):
        value = found["measures"]["half-collector"]["slope_median"]["value"]
        assert value == pytest.approx(old.measures["half-collector"]["slope_median"].value)


def test_a_new_task_is_valid_and_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run, file = CliRunner().invoke, "deep/er/our_digits.toml"

    done = run(cli.app, ["new", "task", "our-digits", "-o", "deep/er"])

    assert done.output.splitlines() == [file, f"test it: advbench validate {file}", f"run it:  advbench run {file}"]
    done = run(cli.app, ["validate", file, "--device", "cpu"])
    assert done.exit_code == 0
    assert "6 jobs" in done.output
    assert told("attack", [Path("a.py"), Path("test_a.py")])[2] == "test it: pytest test_a.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("defense", "my defense"), "'my defense' cannot be a name: use letters, digits and - between"),
        (("defense", "../x"), "'../x' cannot be a name"),
        (("defense", "3x"), "'3x' cannot be a name"),
        (("defense", "class"), "'class' cannot be a name"),
        (("defense", ""), "'' cannot be a name"),
        (("defense", "x" * 300), f"'{'x' * 60}' cannot be a name"),
        (
            ("defense", "pgd-at"),
            "the defense 'pgd-at' is one of the suite's (`advbench list defenses`); choose",
        ),
        (("attack", "FGSM"), "the attack 'fgsm' is one of the suite's"),
        (("collector", "fosc"), "the collector 'fosc' is one of the suite's"),
        (("task", "digits_linf"), "the task 'digits-linf' is one of the suite's"),
        (("attack", "random"), "'random' is a Python module already"),
        (("attack", "torch"), "'torch' is a Python module already"),
        (("attack", "mine"), "mine.py: is there already, and stays; choose another name or -o FOLDER"),
        (("attack", "tested"), "test_tested.py: is there already, and stays"),
        (("attack", "fine", "-o", "mine.py"), "mine.py: cannot be written: File exists; choose another folder with -o"),
        (("attack", "fine", "-o", "mine.py/x"), "mine.py/x: cannot be written: Not a directory"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments, said
):
    (tmp_path / "mine.py").write_text("precious", "utf-8")
    (tmp_path / "test_tested.py").write_text("precious", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["advbench", "new", *arguments])

    with pytest.raises(SystemExit) as done:
        cli.main()

    err = capsys.readouterr().err
    assert done.value.code == 2
    assert err.startswith(f"advbench: {said}")
    assert err.count("\n") == 1
    assert {file.name: file.read_text("utf-8") for file in tmp_path.iterdir()} == {
        "mine.py": "precious",
        "test_tested.py": "precious",
    }


def test_a_full_disk_leaves_neither_files_nor_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Path.open

    def full(path: Path, *words, **more):
        if path.name == "test_fine.py":
            raise OSError(28, "No space left on device", str(path))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", full)

    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        new("attack", "fine", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def starter(kind: str) -> Any:
    """The class of the starter's own file."""
    made = runpy.run_path(str(find.PACKAGE / "starters" / f"my_{kind}.py"))
    return made[f"My{kind.title()}"]


class Tilted(nn.Module):
    """Two classes, linear in the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ torch.linspace(-1, 1, 4)
        return torch.stack([-half, half], 1)


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_a_step_of_the_starters_is_a_quarter_of_eps_and_there_are_ten(kind: str):
    made, x, y = starter(kind), torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    assert made().steps == 10
    for fewer in (made, lambda **fields: validate(made, fields)):
        with pytest.raises(ValidationError):
            fewer(steps=0)
    threat, met = Threat("Linf", 0.1), list[Tensor]()
    model = Tilted()
    model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))
    if kind == "attack":
        met.append(made(steps=1).run(model, x, y, threat, BlockNoise(x.device, 0, 3, torch.arange(3))))
    else:
        weight = nn.Parameter(torch.zeros(1))
        state = TrainState(model, torch.optim.SGD([weight]), threat, Stream(generator("cpu", 0)))
        made(steps=1).loss(state, x, y)

    start, x_adv = met
    # Against class 1 the margin falls along -w, against class 0 along w.
    way = torch.linspace(-1, 1, 4).sign().view(1, 1, 2, 2) * torch.where(y == 1, -1.0, 1.0)[:, None, None, None]
    assert 0 < float((start - x).abs().max()) <= 0.1
    torch.testing.assert_close(x_adv, (start + 0.025 * way).clamp(x - 0.1, x + 0.1))


def test_the_starter_s_collector_says_of_a_model_without_a_gradient_that_it_has_none():
    class Rounded(Tilted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    data = Examples(torch.rand(4, 1, 2, 2), torch.arange(4) % 2, torch.arange(4), peak=1)
    found = collect(Rounded(), data, Threat("Linf", 0.1), [starter("collector")()])["my-collector"]

    assert found.values == {}
    assert any("has no input gradient" in note for note in found.notes)
