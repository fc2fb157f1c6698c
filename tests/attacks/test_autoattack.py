"""Frozen parameters, one part at a time and our ledger change nothing of what the package finds."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import pyautoattack
import pytest
import torch
from pyautoattack import AutoAttack as Package
from pydantic import ValidationError
from torch import Tensor, nn

from advbench import block
from advbench.attacks import autoattack
from advbench.attacks.autoattack import PARTS, AutoAttack, AutoAttackPart
from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.data.base import Examples
from advbench.ledger import STANDING
from advbench.passes import counting
from advbench.seeds import BlockNoise, derive
from advbench.threat import Threat

QUERIES = 100
"""Square's budget here; the ladder's own is 5,000."""
N = 12
THREATS = [Threat("Linf", 0.09), Threat("L2", 0.45), Threat("L1", 1.2)]


def ladder(classes: int = 10) -> list[AutoAttackPart]:
    return [
        part.model_copy(update={"queries": QUERIES})
        for part in AutoAttack().parts(classes)
        if isinstance(part, AutoAttackPart)
    ]


class Quick(Package):
    """The package with a fifth of its iterations; the equalities here hold for any number of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 20


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our parts, too, find the quick package."""
    monkeypatch.setattr(pyautoattack, "AutoAttack", Quick)


def package(model: nn.Module, threat: Threat, seed: int) -> Package:
    """AutoAttack standard as anyone would run it."""
    made = Quick(model, norm=threat.norm, eps=threat.eps, seed=seed, device="cpu", version="standard")
    made.square.n_queries = QUERIES
    made.verbose = False
    return made


@pytest.fixture
def some(digits_test: Examples) -> Examples:
    return Examples(digits_test.stored[:N], digits_test.labels[:N], digits_test.index[:N], digits_test.peak)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "threat",
    [*THREATS[:2], pytest.param(THREATS[2], marks=pytest.mark.slow)],
    ids=lambda t: t.norm,
)
def test_the_ladder_is_one_standard_evaluation_of_the_package(judged, digits_cnn, some, monkeypatch, threat):
    # The package gives one seed to all its parts; so does the ladder, for once.
    monkeypatch.setattr(block, "derive", lambda *names: 7)
    # A batch of five is for our own attacks: the package draws its noise by the batch and gets the whole block.
    found = judged(digits_cnn, some, ladder(), threat, curve=[], alone=0, batch=5).ledger
    assert digits_cnn[0].weight.requires_grad

    x, y = some.pixels(slice(None)), some.labels
    adversarial, predicted = package(digits_cnn.eval(), threat, 7).run_standard_evaluation(x, y, batch_size=N)

    assert torch.equal(found.broken_by == STANDING, predicted == y)
    assert torch.equal(found.adversarial, adversarial)
    assert len(found.broken_by.unique()) >= 3, "examples should fall to several parts, or this says little"


@pytest.mark.usefixtures("quick")
def test_each_part_breaks_what_the_package_breaks_with_its_seed(judged, digits_cnn, some):
    threat = THREATS[0]
    found = judged(digits_cnn, some, ladder(), threat, curve=[], alone=0).ledger

    digits_cnn.eval()
    x, y = some.pixels(slice(None)), some.labels
    standing = (digits_cnn(x).argmax(1) == y).nonzero().squeeze(1)
    for number, part in enumerate(PARTS):
        reference = package(digits_cnn, threat, derive(0, "attack", part, 0, 0))
        reference.attacks_to_run = [part]
        _, predicted = reference.run_standard_evaluation(x[standing], y[standing], batch_size=N)
        fell = standing[predicted != y[standing]]
        assert (found.broken_by == number).nonzero().squeeze(1).tolist() == fell.tolist(), part
        standing = standing[predicted == y[standing]]
    assert found.standing.tolist() == standing.tolist()


def small(classes: int) -> nn.Module:
    """Nearly the class patterns of `blobs`, as a softmax regression."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.rand(classes, 1, 8, 8, generator=draw).flatten(1) - 0.5
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    model[1].weight.data = patterns
    model[1].bias.data = -0.5 * patterns.sum(1)
    return model


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("norm", ["Linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("L2", "L1"))])
def test_below_four_classes_the_parts_that_need_four_are_left_out(judged, blobs, classes, norm):
    threat = Threat(norm, {"Linf": 0.08, "L2": 0.5, "L1": 3.0}[norm])

    found = judged(small(classes), blobs(12, classes), ladder(classes), threat, classes=classes, curve=[], alone=4)

    scores = found.scores
    assert found.rungs == ("apgd-ce", "fab", "square")
    assert AutoAttack().protocol(classes) == "apgd-ce+fab+square"
    assert scores.clean.accuracy > 0.9
    assert 0 < scores.robust.accuracy < scores.clean.accuracy
    assert scores.alone_n == {"apgd-ce": 4, "fab": 4, "square": 4}


@pytest.mark.slow
def test_below_four_classes_the_ladder_is_one_custom_evaluation_of_the_package(judged, blobs, monkeypatch):
    monkeypatch.setattr(block, "derive", lambda *names: 7)
    model, data, threat = small(3), blobs(24), Threat("Linf", 0.08)
    found = judged(model, data, ladder(3), threat, classes=3, curve=[], alone=0).ledger

    parts: list[Any] = ["apgd-ce", "fab", "square"]
    reference = Package(model, norm="Linf", eps=0.08, seed=7, device="cpu", version="custom", attacks=parts)
    reference.square.n_queries = QUERIES
    reference.verbose = False
    adversarial, predicted = reference.run_standard_evaluation(data.pixels(slice(None)), data.labels, batch_size=24)

    assert torch.equal(found.broken_by == STANDING, predicted == data.labels)
    assert torch.equal(found.adversarial, adversarial)
    # Restarts are the package's own for a custom list, and break nothing more here, so they are looked at.
    ours = autoattack._package(ladder(3)[0], model, threat, 7, torch.device("cpu"))
    for made in (reference, ours):
        assert (made.apgd.n_restarts, made.fab.n_restarts, made.square.n_queries) == (5, 5, QUERIES)


@pytest.mark.parametrize(("norm", "starts", "targets"), [("Linf", 1, 9), ("L2", 1, 9), ("L1", 5, 5)])
def test_the_package_s_numbers_are_its_standard_version_s_from_four_classes_on(norm, starts, targets):
    for classes in (2, 3, 4, 7, 100):
        part = AutoAttackPart(part="apgd-ce", classes=classes)
        made = autoattack._package(part, nn.Identity(), Threat(norm, 0.1), 7, torch.device("cpu"))

        standard = classes >= 4
        assert made.apgd.n_restarts == (starts if standard else 5)
        assert made.fab.n_restarts == (1 if standard else 5)
        assert made.apgd.use_largereps == (norm == "L1")
        assert (made.attacks_to_run, made.square.n_queries, made.seed) == (["apgd-ce"], 5000, 7)
        if standard:
            assert made.apgd_targeted.n_target_classes == min(targets, classes - 1)
            assert made.fab.n_target_classes == min(9, classes - 1)
        assert AutoAttack().protocol(classes) == ("autoattack" if standard else "apgd-ce+fab+square")


def test_a_block_is_one_batch_of_the_package_however_large_and_its_accuracies_are_not_told(caplog):
    model, sizes = small(3).eval(), list[int]()
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    part = AutoAttackPart(part="square", classes=3, queries=2)
    caplog.set_level("DEBUG")

    noise = BlockNoise(torch.device("cpu"), 3, 300, torch.arange(300))
    part.run(model, x, y, Threat("Linf", 1e-6), noise)

    assert max(sizes) == 300
    assert [record.message for record in caplog.records if record.levelname == "DEBUG"] == ["running square"]


def test_the_robust_score_below_four_classes_is_named_after_its_parts(judged, blobs):
    # At a radius of nothing all that is right stands; the whole ensemble runs.
    found = judged(small(3), blobs(4), [AutoAttack()], Threat("Linf", 1e-4), classes=3, curve=[], alone=0)

    assert found.scores.robust.protocol == "apgd-ce+fab+square"
    assert list(found.scores.attacks) == ["apgd-ce", "fab", "square", "apgd-ce+fab+square"]
    assert found.scores.robust.accuracy == found.scores.clean.accuracy


@pytest.mark.parametrize("classes", [4, 7])
def test_with_fewer_than_ten_classes_every_other_class_is_a_target(judged, blobs, classes):
    found = judged(
        small(classes), blobs(14, classes), ladder(classes), Threat("Linf", 0.08), classes=classes, curve=[], alone=0
    )

    assert found.rungs == PARTS
    assert AutoAttack().protocol(classes) == "autoattack"
    # Exact for a linear model: the nearest plane to another class.
    x, model = blobs(14, classes).pixels(slice(None)).flatten(1), small(classes)
    logits, weight = model(x).detach(), model.state_dict()["1.weight"]
    y = torch.arange(14) % classes
    gap = logits.gather(1, y[:, None]) - logits
    dual = (weight[y][:, None] - weight[None]).abs().sum(2)
    distance = (gap / dual).masked_fill(nn.functional.one_hot(y, classes).bool(), torch.inf).amin(1)
    # Where the box binds, less can be reached; no pixel of these lies within eps of it but a few.
    assert ((found.ledger.broken_by >= 0) & (distance > 0.08 * 1.001)).sum() == 0
    assert ((found.ledger.broken_by == STANDING) & (distance < 0.08 * 0.8)).sum() == 0
    assert 0 < found.scores.robust.accuracy < 1


def test_each_part_alone_meets_a_fixed_sample_across_blocks(judged, blobs):
    found = judged(small(4), blobs(24, 4), ladder(4), Threat("Linf", 0.08), classes=4, curve=[], alone=7, block=10)

    sample = torch.linspace(0, 23, 7).round().long()
    assert found.scores.alone_n == dict.fromkeys(PARTS, 7)
    for part in PARTS:
        column = found.ledger.withstood[part]
        assert (column >= 0).nonzero().squeeze(1).tolist() == sample.tolist()
        # The four parts alone can never do more than the four together.
        assert column[(found.ledger.broken_by == STANDING) & (column >= 0)].all()
    assert not (found.ledger.withstood["apgd-ce"] == 1)[found.ledger.broken_by == 0].any()


class Strong(FGSM):
    """Meets what stands only, and has a version for the scores alone that does nothing."""

    everywhere: ClassVar[bool] = False

    def alone(self) -> Attack:
        return Idle()


class Idle(FGSM):
    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        return x


def test_what_only_the_stronger_version_broke_is_asked_again_of_the_weaker_one(judged, blobs):
    found = judged(small(3), blobs(24), [Strong()], Threat("Linf", 0.2), classes=3, curve=[], alone=24)

    right = found.scores.clean.accuracy
    assert found.scores.robust.accuracy < 0.2 < right
    assert found.scores.alone == {"fgsm": right}


def test_only_square_has_a_smaller_version_for_the_scores_alone():
    parts = [p for p in AutoAttack().parts(10) if isinstance(p, AutoAttackPart)]

    assert [p.alone() == p for p in parts] == [True, True, True, False]
    assert (parts[3].queries, parts[3].alone().queries) == (5000, 1000)
    assert parts[3].model_copy(update={"queries": 10}).alone().queries == 10


def test_a_part_never_has_its_restarts_or_its_batch_chosen():
    with pytest.raises(ValidationError):
        AutoAttack(restarts=2)
    assert all(part.whole_block and not part.everywhere for part in AutoAttack().parts(10))


def draws() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()


@pytest.mark.usefixtures("quick")
def test_no_global_stream_is_moved(digits_cnn, some):
    digits_cnn.eval().requires_grad_(False)
    before = draws()

    for part in ladder():
        with counting(digits_cnn) as passes:
            part.run(
                digits_cnn,
                some.pixels(slice(None)),
                some.labels,
                THREATS[0],
                BlockNoise(torch.device("cpu"), 3, N, torch.arange(N)),
            )
        assert passes.forward > 0
        assert draws() == before, part.part


@pytest.mark.usefixtures("quick")
def test_a_block_of_one_and_a_block_with_nothing_standing(judged, digits_cnn, some):
    one = Examples(some.stored[:1], some.labels[:1], some.index[:1], some.peak)
    wrong = Examples(some.stored, (some.labels + 1) % 10, some.index, some.peak)

    assert judged(digits_cnn, one, ladder(), THREATS[0], curve=[]).scores.robust.n == 1
    assert judged(digits_cnn, wrong, ladder(), THREATS[0], curve=[]).scores.robust.accuracy == 0
