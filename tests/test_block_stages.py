"""Stage by stage on five flat images whose mean pixel decides: who is asked, with what, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from advbench import block as blocks
from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD, input_gradient
from advbench.block import Block, whole_box
from advbench.inference import Engines
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.memory import Size
from advbench.seeds import BlockNoise, derive
from advbench.spec import validate
from advbench.task import Evaluation
from advbench.threat import Norm, Threat

MEANS = torch.tensor([100, 130, 140, 140, 200]) / 255
"""The first image is read wrong; the others are 0.0098, 0.0490, 0.0490 and 0.2843 away from that."""
LINF = Threat("Linf", 0.15)


class Mean(nn.Module):
    """Class 1 where the mean pixel is above 0.5. It counts its own passes."""

    passes: ClassVar[list[int]] = [0, 0]

    def forward(self, x: Tensor) -> Tensor:
        Mean.passes[0] += len(x)
        height = 40 * (Counted.apply(x).flatten(1).mean(1) - 0.5)
        return torch.stack([-height, height], 1)


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        Mean.passes[1] += len(grads[0])
        return grads[0]


class Moves(Attack):
    """Darkens every pixel, and by less where it is asked alone and `weak` says so."""

    name = "moves"
    paper = "none"
    everywhere: ClassVar[bool] = False
    asked: ClassVar[list[tuple[int, int]]] = []
    by: float
    weak: float | None = None

    def alone(self) -> Attack:
        return self if self.weak is None else self.model_copy(update={"by": self.weak, "weak": None})

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        Moves.asked.append((len(x), noise.seed))
        return x - self.by


class Together(Moves):
    whole_block: ClassVar[bool] = True


class Black:
    """In FAB's place: finds the black image, with a pass there and back."""

    met: ClassVar[list[Any]] = []

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        self.met.append((threat, noise.seed))
        input_gradient(model, x, y)
        return torch.zeros_like(x)


@pytest.fixture
def opened() -> Callable[..., Block]:
    """A function: threat, sample, batch, evaluation... -> the block, whose examples have been read."""

    def make(threat: Threat = LINF, sample: Sequence[int] = (), batch: int = 9, **how: Any) -> Block:
        x = MEANS[:, None, None, None].expand(5, 1, 2, 2).clone()
        ledger = Ledger.open(x, torch.ones(5, dtype=torch.int64), torch.arange(5))
        engines = Engines(Mean().eval(), x)
        engines.of("fp32")
        asked = validate(Evaluation, {"attacks": [{"name": "fgsm"}], **how})
        made = Block(engines, threat, asked, ledger, 3, torch.tensor(sample, dtype=torch.int64), Size(batch, print))
        made.clean()
        Moves.asked.clear()
        return made

    return make


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 1), ("L2", 28), ("L1", 784)])
def test_a_ball_that_holds_all_images_reaches_from_black_to_white(norm: Norm, eps: float) -> None:
    whole = whole_box(Threat(norm, 0.1), 784)

    assert whole == Threat(norm, eps)
    assert whole.contains(torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)).all()
    assert not whole.scaled(0.99).contains(torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)).any()


def test_stages_come_in_the_order_in_which_each_knows_what_was_found(opened: Callable[..., Block]) -> None:
    def names(stages: Sequence[Any]) -> list[str]:
        return [name for name, _ in stages]

    cheap, dear = [FGSM(), PGD()], [Moves(by=0.1)]
    plain, full = opened(alone=0), opened(alone=1, curve=["1/10"], distances=True)
    assert names(plain.first_stages(cheap)) == ["clean", "fgsm", "pgd"]
    assert names(full.first_stages(cheap)) == ["clean", "fgsm", "pgd", "sign/unbounded", "sign/further"]
    assert names(plain.further_stages(dear, 2)) == ["moves"]
    assert names(full.further_stages(dear, 2)) == ["moves", "distances", "curve"]
    for _, stage in full.further_stages(dear, 2)[:1]:
        stage()
    assert full.ledger.broken_by.tolist() == [CLEAN, 2, 2, 2, STANDING]


def test_an_example_without_a_gradient_has_none_in_any_pixel(opened: Callable[..., Block]) -> None:
    made = opened()
    assert not made.ledger.flat.any()

    class Corner(nn.Module):
        """Looks at one pixel, and at none of a bright image."""

        def forward(self, x: Tensor) -> Tensor:
            height = (x[:, 0, 0, 0] - 0.5).clamp(max=0.1)
            return torch.stack([-height, height], 1)

    made.engines = Engines(Corner(), made.ledger.x)
    made.clean()
    assert made.ledger.flat.tolist() == [False, False, False, False, True]


def test_every_stage_spends_what_went_through_the_model(
    opened: Callable[..., Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "FAB", lambda **_: Black())
    made = opened(sample=[1, 4], batch=3, alone=1, curve=["1/50", "1/10"], distances=True)
    rungs: list[Attack] = [FGSM(), PGD(steps=3, restarts=2), Moves(by=0.02, weak=0.01)]
    stages = [*made.first_stages(rungs[:2]), *made.further_stages(rungs[2:], 2)]
    before = made.ledger.forward.clone(), made.ledger.backward.clone()
    assert [int(column.sum()) for column in before] == [10, 5], "a look and a gradient each"

    for name, stage in stages:
        spent = [int(column.sum()) for column in (made.ledger.forward, made.ledger.backward)]
        Mean.passes[:] = [0, 0]
        stage()
        now = [int(column.sum()) for column in (made.ledger.forward, made.ledger.backward)]
        assert [new - old for new, old in zip(now, spent, strict=True)] == Mean.passes, name
        assert Mean.passes[0] > 0, name
    # Nobody pays for an example that nothing attacks: a wrong one has two looks, now that it was read twice.
    assert (made.ledger.forward[0], made.ledger.backward[0]) == (4, 2)


@pytest.mark.parametrize(
    ("weak", "asked", "stood"),
    [
        (None, [3, 1], [0, 0, -1, 0, 1]),  # only of who was broken before nothing is known
        (0.03, [3, 2], [0, 0, -1, 1, 1]),  # what the strong one broke the weak one has to break itself
    ],
)
def test_alone_an_attack_is_asked_of_the_sample_what_the_ladder_does_not_know(
    opened: Callable[..., Block], weak: float | None, asked: list[int], stood: list[int]
) -> None:
    made = opened(sample=[0, 1, 3, 4])
    made.rung(0, Moves(by=0.02, label="first"))
    assert made.ledger.broken_by.tolist() == [CLEAN, 0, STANDING, STANDING, STANDING]
    Moves.asked.clear()
    made.rung(1, Moves(by=0.1, weak=weak))

    assert made.ledger.broken_by.tolist() == [CLEAN, 0, 1, 1, STANDING]
    assert [count for count, _ in Moves.asked] == asked
    assert made.ledger.withstood["moves"].tolist() == stood
    seeds = [derive(0, "attack", name, 3, 0) for name in ("moves", "moves/alone")]
    assert [seed for _, seed in Moves.asked] == seeds


def test_a_restart_meets_what_the_one_before_has_left(opened: Callable[..., Block]) -> None:
    made = opened(batch=3)

    fell = made.attack(Moves(by=0.02, restarts=2), made.ledger.correct, LINF, "m")
    assert fell.tolist() == [True, False, False, False]
    one, other = (derive(0, "attack", "m", 3, restart) for restart in (0, 1))
    assert Moves.asked == [(3, one), (1, one), (3, other)]
    assert (made.ledger.broken_by[1:] == STANDING).all(), "without a rung only the answer is returned"
    Moves.asked.clear()
    made.attack(Together(by=0.02), made.ledger.correct, LINF, "m", 0)
    assert [count for count, _ in Moves.asked] == [4], "whatever the batch"
    assert made.ledger.broken_by.tolist() == [CLEAN, 0, STANDING, STANDING, STANDING]


def test_signs_begin_at_the_image_and_take_twenty_steps_in_the_whole_and_in_twice_the_ball(
    opened: Callable[..., Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[Any] = []

    def run(self: PGD, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        met.append((self, threat, len(x), noise.seed))
        return x - 0.1

    monkeypatch.setattr(PGD, "run", run)
    made = opened(Threat("L2", 0.25), sample=[0, 1, 4], alone=1)
    for _, stage in made.first_stages([])[1:]:
        stage()

    still = PGD(steps=20, random_start=False)
    assert met == [
        (still, Threat("L2", 2), 2, derive(0, "attack", "sign/unbounded", 3, 0)),
        (still, Threat("L2", 0.5), 2, derive(0, "attack", "sign/further", 3, 0)),
    ]
    for name in ("sign/unbounded", "sign/further"):
        assert made.ledger.withstood[name].tolist() == [-1, 0, -1, -1, 1]


@pytest.mark.parametrize(("norm", "pixels"), [("Linf", 1), ("L2", 2), ("L1", 4)])
def test_the_nearest_fooling_point_is_bisected_ten_times(
    opened: Callable[..., Block], monkeypatch: pytest.MonkeyPatch, norm: Norm, pixels: float
) -> None:
    judged: list[Threat] = []
    judge = Ledger.judge

    def counted(self: Ledger, model: nn.Module, threat: Threat, rows: Tensor, candidates: Tensor) -> Tensor:
        judged.append(threat)
        return judge(self, model, threat, rows, candidates)

    met: list[Any] = []
    monkeypatch.setattr(Ledger, "judge", counted)
    monkeypatch.setattr(blocks, "FAB", lambda **how: met.append(how) or Black())
    monkeypatch.setattr(Black, "met", met)
    block = opened(Threat(norm, 0.01), distances=True)
    block.distances()

    whole = whole_box(Threat(norm, 0.01), 4)
    assert met == [{"nearest": True}, (whole, derive(0, "attack", "distances", 3))]
    assert judged == [whole] * 11
    assert block.ledger.distance[0] == math.inf
    # On the way to black the mean pixel falls in proportion, and of that way a thousandth is left.
    over = block.ledger.distance[1:] - pixels * (MEANS[1:] - 0.5)
    assert (over >= -1e-6).all()
    assert (over <= pixels * MEANS[1:] / 2**10 + 1e-6).all()


def test_the_curve_goes_on_from_radius_to_radius_with_what_still_stands(
    opened: Callable[..., Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[Any] = []

    def ascend(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, **how: Any) -> Tensor:
        met.append((x, threat, how))
        return x - threat.eps

    monkeypatch.setattr(blocks, "ascend", ascend)
    made = opened(curve=["1/50", "1/10"])
    made.ledger.distance[3] = 0.02  # somebody has found a point right at the first radius
    made.ledger.distance[4] = 0.02 + 3e-6
    made.curve()

    (x, small, first), (y, large, second) = met
    assert (small, large) == (Threat("Linf", 0.02), Threat("Linf", 0.1))
    assert torch.equal(x, made.ledger.x[[1, 2, 4]])
    assert torch.equal(y, made.ledger.x[[2]]), "row 1 fell at the first radius, and for the others a point is known"
    assert 0 < (first["start"] - x).abs().amax((1, 2, 3)).min() <= (first["start"] - x).abs().max() <= 0.02 + 1e-6
    assert torch.equal(second["start"], y - 0.02), "where the radius before ended"
    assert [(how["steps"], how["step_size"]) for _, _, how in met] == [(20, 0.005), (20, 0.025)]
    assert made.ledger.withstood["curve/1/50"].tolist() == [0, 0, 1, 0, 1]
    assert made.ledger.withstood["curve/1/10"].tolist() == [0, 0, 0, 0, 0]
