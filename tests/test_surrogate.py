"""The surrogate of a transfer, from the task file to the record."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from advbench import surrogate
from advbench.attacks.pgd import PGD
from advbench.attacks.transfer import Transfer
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.plan import Item
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.spec import BadInput

SURROGATE = '{ name = "mlp", hidden = [8], pretrained = "w.safetensors", extra_data = "none" }'


def write(folder: Path, classes: int = 4, seed: int = 0) -> str:
    torch.manual_seed(seed)
    path = folder / "data" / "w.safetensors"
    save_file(Mlp(hidden=(8,)).build((1, 4, 4), classes).state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def task(folder: Path, tiny, surrogate: str = SURROGATE, more: str = "", threat: str = "") -> Path:
    ladder = f'attacks = ["fgsm", {{ name = "transfer", surrogate = {surrogate}{more} }}]'
    return tiny(folder, "t", ('attacks = ["fgsm"]', ladder), *([('"Linf"', threat)] if threat else []))


def one(path: Path) -> Item:
    [item] = resolve(path, path.parent / "data", {}).items
    return item


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        one(path)
    [line] = caught.value.lines
    return line.removeprefix(f"{path}: ")


def test_a_job_is_named_by_the_weights_and_by_all_that_the_attack_does(tmp_path: Path, tiny):
    path = task(tmp_path, tiny)
    digest = write(tmp_path)
    found = resolve(path, tmp_path / "data", {})
    job = found.items[0].job

    assert job is not None
    assert tmp_path / "data" / "w.safetensors" in found.watched
    assert job.evaluation.attacks[1].fields == {
        "label": None,
        "restarts": 1,
        "surrogate": {
            "name": "mlp",
            "hidden": [8],
            "pretrained": "w.safetensors",
            "extra_data": "none",
            "pretrained_sha256": digest,
        },
        "attack": {
            "name": "pgd",
            "label": None,
            "restarts": 1,
            "steps": 20,
            "step_size": 0.25,
            "random_start": True,
        },
    }
    write(tmp_path, seed=1)
    other = one(path).job
    assert other is not None
    assert (other.id == job.id, other.train_id == job.train_id) == (False, True)


def test_the_conveyor_judges_what_the_surrogate_found(tmp_path: Path, tiny):
    path = task(tmp_path, tiny, more=', attack = "mi-fgsm", label = "from-mlp"')
    write(tmp_path)
    item = one(path)
    before = torch.get_rng_state()
    record = attempt(item, tmp_path / "results", tmp_path / "data", torch.device("cpu"), lambda *_: None)

    assert record.error is None
    assert record.scores is not None
    assert record.scores.attacks.keys() == {"fgsm", "from-mlp"}
    assert record.scores.alone_n["from-mlp"] == 32
    # The same weights at another time are another surrogate.
    write(tmp_path, seed=1)
    torch.set_rng_state(before)
    late = attempt(item, tmp_path / "late", tmp_path / "data", torch.device("cpu"), lambda *_: None)
    assert "surrogate: pretrained: w.safetensors changed since the plan was made" in (late.error or "")


def test_to_prepare_it_moves_no_global_stream_and_the_network_is_frozen(tmp_path: Path, tiny):
    task(tmp_path, tiny)
    write(tmp_path)
    tables = {"surrogate": {"name": "mlp", "hidden": [8], "pretrained": "w.safetensors", "extra_data": "none"}}
    bare = Transfer.model_validate(tables)
    before = torch.get_rng_state()
    attack = surrogate.settled(bare, tmp_path / "data", (1, 4, 4), 4)
    ready = surrogate.prepared(attack, tmp_path / "data", (1, 4, 4), 4, torch.device("cpu"))

    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(ready, Transfer)
    assert ready._found is not None
    network, inner = ready._found
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert inner == PGD()
    assert surrogate.prepared(PGD(), tmp_path, (1, 4, 4), 4, torch.device("cpu")) == PGD()


def test_without_its_weights_a_task_is_skipped_with_the_reason(tmp_path: Path, tiny):
    item = one(task(tmp_path, tiny))

    assert item.state == "skip"
    assert "w.safetensors is not there; put the pretrained weights there" in item.skip


@pytest.mark.parametrize(
    ("surrogate", "more", "line"),
    [
        ('"mlq"', "", "surrogate: no model 'mlq'; did you mean 'mlp'?"),
        ('"mlp"', "", 'surrogate: untrained, it knows nothing; give it pretrained = "FILE.safetensors" and extra_data'),
        ('{ name = "mlp", hiden = [8] }', "", "surrogate: no field 'hiden'; did you mean 'hidden'?"),
        (SURROGATE, ', attack = "pgt"', "attack: no attack 'pgt'; did you mean 'pgd'?"),
        (SURROGATE, ', attack = { name = "pgd", step = 3 }', "attack: no field 'step'; did you mean 'steps'?"),
        (
            SURROGATE,
            ', attack = { name = "pgd", restarts = 3 }',
            "attack: restarts of a transfer stand beside its own name",
        ),
        (
            SURROGATE,
            f', attack = {{ name = "transfer", surrogate = {SURROGATE} }}',
            "attack: a transfer has nothing to find candidates with; name another attack",
        ),
        (
            SURROGATE,
            ', attack = "autoattack"',
            "attack: autoattack is an ensemble and has no single candidate; name one of its attacks",
        ),
        (
            SURROGATE.replace('"none"', f'"none", pretrained_sha256 = "{"0" * 64}"'),
            "",
            "surrogate: pretrained_sha256: w.safetensors has the digest ",
        ),
        (
            SURROGATE.replace("[8]", "[9]"),
            "",
            "surrogate: pretrained: w.safetensors does not fit mlp: 1.weight is (8, 16), here (9, 16); 1.bias",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, tiny, surrogate, more, line):
    path = task(tmp_path, tiny, surrogate, more)
    write(tmp_path)
    assert refused(path).startswith(f"evaluation.attacks[1]: {line}")


def test_weights_of_another_number_of_classes_are_no_surrogate(tmp_path: Path, tiny):
    path = task(tmp_path, tiny)
    write(tmp_path, classes=5)
    line = "evaluation.attacks[1]: surrogate: its weights are of another number of classes than 4"
    assert refused(path) == line


def test_the_norms_are_those_of_its_attack(tmp_path: Path, tiny, monkeypatch):
    monkeypatch.setattr("advbench.attacks.mi_fgsm.MIFGSM.norms", ("Linf",))
    path = task(tmp_path, tiny, more=', attack = "mi-fgsm"', threat='"L2"')
    write(tmp_path)
    assert one(path).skip == "the attack 'transfer' is not defined for L2"


def test_another_linear_model_can_be_one_too(tmp_path: Path, tiny):
    path = task(tmp_path, tiny, SURROGATE.replace('"mlp", hidden = [8]', '"linear"'))
    save_file(Linear().build((1, 4, 4), 4).state_dict(), tmp_path / "data" / "w.safetensors")
    assert one(path).state == "run"
