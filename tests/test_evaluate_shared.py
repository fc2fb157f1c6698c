"""An evaluation that a group shares: the same verdicts, passes and journal as in one process, whoever began it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.data.digits import Digits
from advbench.data.subsets import choose
from advbench.evaluate import evaluate
from advbench.models.digits_cnn import DigitsCnn
from advbench.parallel import ALONE, Group
from advbench.scores import Verdicts
from advbench.spec import validate
from advbench.task import Data, Evaluation
from advbench.threat import Threat

LADDER = [FGSM(), PGD(steps=3)]


def attacked(group: Group, journal: Path, *, fail_at: int = -1) -> Verdicts:
    """90 digits in five blocks, so that three processes have none of the last one."""
    torch.manual_seed(0)
    model = DigitsCnn().build((1, 8, 8), 10)
    digits = choose(Digits().load(Path()), validate(Data, {"name": "digits", "test": 90}), "cpu").test
    # What the untrained network says is right, so that all of them are attacked.
    labels = model.eval()(digits.pixels(slice(0, 90))).argmax(1)
    test = Examples(digits.stored, labels, digits.index, digits.peak)
    how = validate(Evaluation, {"block": 20, "curve": ["1/20"], "alone": 10})

    def tell(stage: str, done: int, total: int, words: str) -> None:
        del stage, total, words
        if 0 <= fail_at <= done:
            raise KeyboardInterrupt

    return evaluate(model, test, Threat("Linf", 0.1), LADDER, how, 10, journal, "key", tell, group)


def told(found: Verdicts) -> dict[str, Any]:
    kept = {name: getattr(found.ledger, name) for name in ("broken_by", "adversarial", "forward", "backward", "index")}
    return kept | {"withstood": found.ledger.withstood, "scores": found.scores.plain()}


def shared(group: Group) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, Any]]:
    """What a rank finds with a folder of its own, what lies in the folder then, and what it finds alone after that."""
    with tempfile.TemporaryDirectory() as folder:
        found = told(attacked(group, Path(folder)))
        written = {"journal": sorted(path.name for path in Path(folder).iterdir())}
        if group.first:
            # Nothing is left to do: a model that is asked again would be told of.
            return found, written, told(attacked(ALONE, Path(folder), fail_at=0))
        return found, written, {}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.pop("scores") == other["scores"]
    torch.testing.assert_close(one, {name: value for name, value in other.items() if name != "scores"}, rtol=0, atol=0)


def test_three_processes_find_what_one_finds_and_the_first_keeps_the_journal(ranks, tmp_path: Path):
    alone = told(attacked(ALONE, tmp_path))

    for rank, (found, written, again) in enumerate(ranks(shared, 3)):
        if rank == 0:
            same(again, alone)
        same(found, alone)
        names = [f"{number}{of}.safetensors" for number in range(5) for of in (".previous", "")]
        assert written["journal"] == (names if rank == 0 else [])


def interrupted(group: Group) -> dict[str, Any]:
    """The first process finds the journal of an evaluation that was stopped in its third block."""
    with tempfile.TemporaryDirectory() as folder:
        if group.first:
            with suppress(KeyboardInterrupt):
                attacked(ALONE, Path(folder), fail_at=14)
            assert len(list(Path(folder).glob("?.safetensors"))) == 3
        return told(attacked(group, Path(folder)))


def test_a_group_goes_on_where_one_process_stopped(ranks, tmp_path: Path):
    alone = told(attacked(ALONE, tmp_path))
    for found in ranks(interrupted, 2):
        same(found, alone)
