"""What an estimate adds up: pass by pass against sums by hand, and the clock of a machine that is not here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import estimate
from advbench.plan import Work
from advbench.recipe import Training
from advbench.spec import validate
from advbench.task import Evaluation

TRAINING = Training(epochs=3, batch=64)
DEFENSE: Any = SimpleNamespace(passes=lambda: (3, 2), adversarial=True)
PLAIN: Any = SimpleNamespace(passes=lambda: (1, 1), adversarial=False)


def part(**fields: Any) -> Any:
    return SimpleNamespace(parts=lambda classes: range(4 if fields["name"].startswith("auto") else 1), **fields)


ATTACKS = [
    part(name="fgsm", restarts=1),
    part(name="eot", restarts=3, steps=7, eot=2),
    part(name="pgd", restarts=2, steps=5, eot=None),
    part(name="autoattack"),
    part(name="autoattack-fast"),
    part(name="autoattack-rand"),
]
PAIRS = [1, 42, 10, 5_300, 2_650, 4_040]
"""Of a forward and a backward pass; the ensemble's parts have 202 + 1,827 + 3,600 + 5,000 forward equivalents, which
are about 10,600; a gentle one takes half; the one for noise has 2 parts of 101 passes, 20 each."""


def subsets(test: int = 50) -> Any:
    return SimpleNamespace(train=range(1000), validation=range(100), test=range(test))


def evaluation(*curve: str) -> Evaluation:
    return validate(Evaluation, {"attacks": [{"name": "fgsm"}], "curve": list(curve), "batch": 20, "block": 10})


def collector(count: int | None, passes: int, every: int | None = None, *, along: bool = False) -> Any:
    return SimpleNamespace(examples=count, passes=lambda classes: passes * classes, every=every, along_only=along)


def test_the_ensemble_costs_what_its_parts_publish() -> None:
    assert pytest.approx((202 + 1_827 + 3_600 + 5_000) / 2, rel=0.005) == estimate.AUTOATTACK_PAIRS


@pytest.mark.parametrize(("defense", "passes", "standing"), [(DEFENSE, 5, 0.6), (PLAIN, 2, 0.1)])
def test_work_is_the_sum_of_all_passes(defense: Any, passes: int, standing: float) -> None:
    how, collectors = evaluation("1/20", "1/10"), [collector(40, 1)]
    made = estimate.Effort(TRAINING, how, defense, ATTACKS, collectors, subsets(), 3).work()

    ladder = [pairs * 50 for pairs in PAIRS[:3]] + [pairs * 50 * standing for pairs in PAIRS[3:]]
    assert made.model_dump() == pytest.approx(
        Work(
            train=3 * passes * 1000,
            validation=2 * 3 * 12 * 100,  # FGSM and PGD-10 an epoch, and the clean look
            attack=2 * (sum(ladder) + 20 * 3 * 50),  # PGD-20 at each radius, and the signs
            collect=40 * (3 + 40),
            test=50,
            adversarial=defense.adversarial,
        ).model_dump()
    )


@pytest.mark.parametrize(
    ("test", "calls"),
    [(50, [2.5, 2.5, 2.5, 3, 3, 3, 2.5]), (5, [1, 1, 1, 1, 1, 1, 1])],  # a call takes a batch, or what there is
)
def test_seconds_are_of_calls_and_of_the_examples_in_them(test: int, calls: list[float]) -> None:
    how, collectors = evaluation("1/20", "1/10"), [collector(None, 1)]
    found = estimate.Effort(TRAINING, how, DEFENSE, ATTACKS, collectors, subsets(test), 3).seconds((0.5, 0.01))

    # A backward pass counts as two forward ones: 3 + 2 * 2 over 3 for a pair.
    expected = 3 * 7 / 3 * (0.5 * 1000 / 64 + 0.01 * 1000) + 3 * 12 * (0.5 * 100 / 20 + 0.01 * 100)
    met = [test] * 3 + [0.6 * test] * 3 + [test]
    for pairs, count, call in zip([*PAIRS, 60], met, calls, strict=True):
        expected += pairs * (0.5 * call + 0.01 * count)
    expected += test * (3 + 40) / 2 * (0.5 / 256 + 0.01)
    assert found == pytest.approx(expected)


def test_collectors_look_at_what_there_is_as_often_as_they_say() -> None:
    def passes(*collectors: Any, epochs: int = 7) -> float:
        return estimate.collecting(collectors, Training(epochs=epochs), subsets(), 10)

    assert passes() == 0
    assert passes(collector(None, 2)) == passes(collector(50, 2)) == passes(collector(999, 2)) == 50 * (20 + 40)
    assert passes(collector(5, 2), collector(5, 3)) == 5 * (20 + 30 + 40)
    assert passes(collector(5, 2), collector(6, 3)) == 5 * 20 + 6 * 30 + 11 * 40
    # Of 7 epochs: 3, 6 and 7; on 100 examples of validation, and on those of test when all is over.
    assert passes(collector(None, 2, 3)) == 3 * 100 * 60 + 50 * 60
    assert passes(collector(None, 2, 3), epochs=6) == 2 * 100 * 60 + 50 * 60
    assert passes(collector(None, 2, 3), collector(None, 1, 7)) == 3 * 100 * 60 + 100 * 50 + 50 * (20 + 10 + 40)
    # It watches steps: its own passes, if any, and nobody's adversarial examples.
    assert passes(collector(None, 0, 1, along=True)) == 0
    assert passes(collector(10, 1, 1, along=True)) == 7 * 10 * 10


class Machine:
    """A clock, and a model whose pass takes `call` and `example` seconds, the first one of a size `wakes` more."""

    def __init__(self, call: float, example: float, wakes: float) -> None:
        self.call, self.example, self.wakes = call, example, wakes
        self.now, self.met = 0.0, list[int]()
        self.asked: set[Any] = set()

    def perf_counter(self) -> float:
        return self.now

    def ascend(self, net: nn.Module, x: Tensor, y: Tensor, threat: Any, **how: Any) -> Tensor:
        self.now += self.call + self.example * len(x) + (0 if len(x) in self.met else self.wakes)
        self.met.append(len(x))
        assert how.pop("start") is x
        self.asked.add((net.training, torch.get_num_threads(), tuple(x.shape[1:]), y.dtype, threat, *how.items()))
        return x


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.0), ("L1", 10.0)])
@pytest.mark.parametrize(
    ("call", "example", "wakes", "met", "per"),
    [
        (1 / 1024, 1 / 1024, 0.1, [1] * 4 + [128] * 4, 1 / 1024),  # no more than 128, and four times
        (0.065, 0.03, 0.1, [1] * 4 + [10] * 3, 0.03),  # as many as take a second alone; no more once a second is over
        (0.25, 0.25, 0.0, [1] * 2 + [4] * 2, 0.25),  # at least 4, and twice
        (0.5, -0.05, 0.0, [1] * 3 + [4] * 4, 0),  # a device that is busy elsewhere in between
    ],
)
def test_a_rate_is_of_the_fastest_pass_of_one_and_of_many(
    monkeypatch: pytest.MonkeyPatch,
    norm: Any,
    eps: float,
    call: float,
    example: float,
    wakes: float,
    met: list[int],
    per: float,
) -> None:
    machine = Machine(call, example, wakes)
    monkeypatch.setattr(estimate, "time", machine)
    monkeypatch.setattr(estimate, "ascend", machine.ascend)
    torch.set_num_threads(2)
    model: Any = SimpleNamespace(build=lambda shape, classes: nn.Linear(shape[-1], classes))
    data: Any = SimpleNamespace(shape=(1, 2, 5), classes=3)
    found = estimate.rate(model, data, norm)

    assert found == pytest.approx((call + example, per))
    assert machine.met == met
    [(training, threads, shape, labels, threat, *how)] = machine.asked
    assert (training, threads, shape, labels) == (False, 1, (1, 2, 5), torch.int64)
    assert (threat.norm, threat.eps) == (norm, eps)
    # A step that leaves the ball, so that the projection has something to do.
    assert how == [("steps", 1), ("step_size", 2 * eps)]
    assert torch.get_num_threads() == 2
