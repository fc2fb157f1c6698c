"""Estimates order the queue: they grow with what costs, and come within a factor of the truth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advbench import find
from advbench.attacks.base import Attack
from advbench.attacks.pgd import input_gradient
from advbench.collect import collect
from advbench.data.subsets import choose
from advbench.estimate import Effort, collecting, rate
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.recipe import Training
from advbench.spec import validate
from advbench.task import Data, Defended, Evaluation, read
from advbench.threat import Threat

SPEED = (1e-4, 1e-6)


def defense(name: str, **fields: Any):
    return find.build(find.defense(find.defense_file(Defended(name=name), Path())), fields)


@pytest.fixture
def cost(digits):
    def make(
        attacks: list[dict[str, Any]], *, name: str = "pgd-at", data: dict[str, Any] | None = None, **fields: Any
    ) -> float:
        training = Training(epochs=fields.pop("epochs", 3))
        collectors = find.collectors(fields.pop("collect", {}), Path())
        how = validate(Evaluation, {"attacks": attacks, "curve": fields.pop("curve", [])})
        subsets = choose(digits, Data(name="digits", **(data or {})), "cpu")
        made = [find.named(Attack, a) for a in attacks]
        return Effort(training, how, defense(name, **fields), made, collectors, subsets, 10).seconds(SPEED)

    return make


FGSM = [{"name": "fgsm"}]


def test_more_of_anything_costs_more(cost):
    base = cost(FGSM)

    assert cost(FGSM, epochs=6) > base
    assert cost(FGSM, steps=20) > base
    assert cost(FGSM, curve=["1/20"]) > base
    assert cost([*FGSM, {"name": "pgd"}]) > base
    assert cost([*FGSM, {"name": "pgd", "restarts": 2}]) > cost([*FGSM, {"name": "pgd"}])
    assert cost([*FGSM, {"name": "autoattack"}]) > cost([*FGSM, {"name": "pgd", "restarts": 5}])
    assert base > cost(FGSM, name="fast-at") > cost(FGSM, name="standard")
    assert cost(FGSM, data={"train": 100}) < base
    assert cost(FGSM, data={"test": 10}) < base
    # A model that stands has more of AutoAttack to go through.
    aa = [{"name": "autoattack"}]
    assert cost(aa) - cost(FGSM) > 2 * (cost(aa, name="standard") - cost(FGSM, name="standard")) > 0


def test_collecting_counts_by_what_and_how_often_it_looks(cost):
    """Seconds of one pass of one example: half a pair's, and the call's share of 256."""
    each = (SPEED[1] + SPEED[0] / 256) / 2
    base = cost(FGSM)

    def more(**collect: dict[str, Any]) -> float:
        return (cost(FGSM, collect=collect) - base) / each

    # PGD-20 for all who look at as many examples, two looks of margins, two more of calibration.
    assert more(margins={"examples": 100}) == pytest.approx(100 * (40 + 4))
    assert more(margins={"examples": 100}, calibration={"examples": 100}) == pytest.approx(100 * (40 + 4 + 2))
    assert more(margins={"examples": 100}, calibration={"examples": 50}) == pytest.approx(100 * 44 + 50 * 42)
    # After every second of three epochs and the last one, and when all is over.
    assert more(margins={"examples": 100, "every": 2}) == pytest.approx(3 * 100 * 44)
    # What watches the steps of the training asks for nothing of its own.
    assert more(updates={}) == 0
    assert more(fosc={"examples": 9, "steps": 40}) > more(fosc={"examples": 9}) > 0


@pytest.mark.slow
def test_what_the_starter_suite_collects_takes_about_as_long_as_its_passes(digits, repo: Path):
    """By the processor's clock, a pass beside the collectors in one process, within a factor of three."""
    tables = read(repo / "tasks" / "digits-linf.toml")["collect"]
    collectors = find.collectors(tables)
    subsets = choose(digits, Data(name="digits", test=64), "cpu")
    torch.manual_seed(0)
    model, threat = DigitsCnn().build(digits.shape, digits.classes).eval(), Threat("Linf", 0.15)
    x, y = subsets.test.pixels(slice(None)), subsets.test.labels

    def took(work: Callable[[], Any]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    took(lambda: input_gradient(model, x, y))
    truth, pairs = 0.0, list[float]()
    for one in collectors:
        truth += took(lambda one=one: collect(model, subsets.test, threat, [one]))
        # In turn, so that whatever else the machine does slows both.
        pairs.append(took(lambda: [input_gradient(model, x, y) for _ in range(10)]) / 10)
    pair = statistics.mean(pairs) / len(x)
    # One after the other, each makes adversarial examples of its own.
    said = sum(collecting([one], Training(epochs=1), subsets, 10) for one in collectors) * pair / 2

    assert truth / 3 < said < 3 * truth


def test_the_rate_is_that_of_the_model_and_leaves_the_threads_as_they_are(digits):
    threads = torch.get_num_threads()
    small, large = (rate(one, digits, "Linf") for one in (Linear(), Mlp(hidden=(1024, 1024))))

    assert torch.get_num_threads() == threads
    assert min(*small, *large) >= 0
    assert small[0] > 0
    assert large[0] + 128 * large[1] > 2 * (small[0] + 128 * small[1])

    # Against the clock, by an order of magnitude: this machine is shared.
    torch.manual_seed(0)
    model, x = Mlp(hidden=(1024, 1024)).build((1, 8, 8), 10), torch.rand(128, 1, 8, 8)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        model(x).sum().backward()
        taken.append(time.perf_counter() - started)
    assert 0.1 < (large[0] + 127 * large[1]) / min(taken) < 10


def test_a_projection_is_a_part_of_the_rate(digits, monkeypatch: pytest.MonkeyPatch):
    """Beside a small model it may be most of what a job does."""
    whole, norms = Threat.projection, set[str]()

    def slow(self: Threat, x: torch.Tensor) -> Any:
        norms.add(self.norm)
        time.sleep(0.02)
        return whole(self, x)

    monkeypatch.setattr(Threat, "projection", slow)

    assert rate(Linear(), digits, "L2")[0] >= 0.02
    assert norms == {"L2"}
