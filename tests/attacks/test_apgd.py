"""Is APGD good? Asked of models with known optima; and what it costs, and what it must not touch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks import apgd
from advbench.attacks.apgd import APGD
from advbench.losses import targeted_dlr
from advbench.passes import counting
from advbench.seeds import BlockNoise
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
THREATS = {"Linf": Threat("Linf", 0.07), "L2": Threat("L2", 0.4), "L1": Threat("L1", 1.2)}


def noise(n: int, seed: int = 0) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), seed, n, torch.arange(n))


class Planes(nn.Module):
    """Logits W (x - 1/2) + b of flattened examples, in float64."""

    def __init__(self, classes: int, size: int, bias: float = 0.0) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(classes)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=source, dtype=torch.float64))
        self.bias = nn.Parameter(bias * torch.eye(classes, dtype=torch.float64)[0])

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T + self.bias


def middle(n: int, size: int = 12) -> Tensor:
    """Examples far enough from the box that it does not bind."""
    return 0.4 + 0.2 * torch.rand(n, size, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize(("norm", "share"), [("Linf", 1 - 1e-12), ("L2", 1 - 1e-4), ("L1", 0.9)])
def test_it_finds_the_best_point_of_a_hyperplane(norm, share):
    # Label 0 leads by so much that nothing is fooled and all steps are taken.
    x, model = middle(16), Planes(2, 12, bias=5.0)
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.2, "L1": 0.8}[norm])
    w = (model.weight[1] - model.weight[0]).detach()

    found = (APGD().run(model, x, torch.zeros(16, dtype=torch.int64), threat, noise(16)) - x) @ w

    # In L1 steps are never shorter than a tenth of the radius, so that much may be missed.
    best = (threat.farthest(x, w.expand(16, -1)) - x) @ w
    assert (found <= best + 1e-9).all()
    assert (found >= share * best).all()


@pytest.mark.parametrize(("norm", "share"), [("Linf", 0.999), ("L2", 0.99), ("L1", 0.9)])
def test_targets_fool_whatever_a_plane_is_near_enough_for(norm, share):
    """The least over classes of (z_y - z_k) / ||w_y - w_k||_dual is the distance to being fooled, exactly."""
    model, x = Planes(5, 12), middle(60)
    logits, w = model(x).detach(), model.weight.detach()
    y = logits.argmax(1)
    threat = Threat(norm, {"Linf": 0.01, "L2": 0.03, "L1": 0.05}[norm])
    gap = logits.gather(1, y[:, None]) - logits
    dual = threat.dual_norm((w[y][:, None] - w).flatten(0, 1)).view(60, 5)
    distance = torch.where(gap > 0, gap / dual, torch.inf).amin(1)

    candidates = APGD(loss="dlr-targeted").run(model, x, y, threat, noise(60))

    fooled = model(candidates).argmax(1) != y
    assert threat.contains(candidates, x).all()
    assert not fooled[distance > threat.eps * (1 + 1e-9)].any()
    assert fooled[distance < threat.eps * share].all()
    assert 10 <= fooled.sum() <= 50


@pytest.mark.parametrize("norm", NORMS)
def test_candidates_keep_to_ball_and_box(digits_cnn, digits_test, norm):
    model, x, y = digits_cnn.eval().requires_grad_(False), digits_test.pixels(slice(0, 12)), digits_test.labels[:12]
    threat = Threat(norm, 0.5 * THREATS[norm].eps)

    candidates = APGD(steps=10).run(model, x, y, threat, noise(12))

    assert threat.contains(candidates, x).all()
    # Nearly: all the radius is used.
    assert (threat.size(candidates - x) > 0.8 * threat.eps).any()
    assert ((candidates >= 0) & (candidates <= 1)).all()
    if norm == "Linf":
        low, high = (x - threat.eps).clamp_min(0), (x + threat.eps).clamp_max(1)
        assert ((low <= candidates) & (candidates <= high)).all()


# --- targets and runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "classes", "count"), [("Linf", 12, 9), ("L1", 12, 5), ("L2", 4, 3)])
def test_targets_are_the_other_classes_the_likeliest_first(monkeypatch, norm, classes, count):
    model, x = Planes(classes, 12), middle(6)
    y = model(x).argmax(1)
    met: list[list[int]] = []

    def watched(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        if met[-1:] != [targets.tolist()]:
            met.append(targets.tolist())
        return targeted_dlr(logits, labels, targets)

    monkeypatch.setattr(apgd, "targeted_dlr", watched)
    APGD(loss="dlr-targeted", steps=4, together=1).run(model, x, y, Threat(norm, 1e-6), noise(6))

    order = [sorted(range(classes), key=lambda k: -row[k]) for row in model(x).tolist()]
    assert met == [[row[1 + turn] for row in order] for turn in range(count)]


def test_how_many_runs_an_example_gets():
    ce, targeted = APGD(), APGD(loss="dlr-targeted")

    assert [ce.runs_for(norm, 10) for norm in NORMS] == [1, 1, 5]
    assert [ce.runs_for(norm, 3) for norm in NORMS] == [5, 5, 5]
    assert [targeted.runs_for(norm, 10) for norm in NORMS] == [9, 9, 5]
    assert [targeted.runs_for(norm, 5) for norm in NORMS] == [4, 4, 4]
    assert APGD(runs=3).runs_for("L1", 10) == 3
    assert APGD(loss="dlr-targeted", runs=30).runs_for("L2", 100) == 30


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("dlr-targeted", 3)])
def test_too_few_classes_are_refused_in_one_line(loss, classes):
    line = f"apgd: the loss '{loss}' needs {classes + 1} classes, here are {classes}; use loss = \"ce\""
    for ask in (
        lambda: APGD(loss=loss).parts(classes),
        lambda: APGD(loss=loss).run(Planes(classes, 12), middle(2), torch.zeros(2).long(), THREATS["L2"], noise(2)),
    ):
        with pytest.raises(BadInput) as caught:
            ask()
        assert caught.value.lines == (line,)
    assert APGD(loss=loss).parts(classes + 1) == (APGD(loss=loss),)


class Apart(nn.Module):
    """A small network that sums each example for itself: a matrix product may round by the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.first, self.last = (torch.randn(shape, generator=source) for shape in ((16, 64), (10, 16)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = ((x.flatten(1)[:, None] - 0.5) * self.first).sum(2).tanh()
        return (hidden[:, None] * self.last).sum(2)


@pytest.mark.parametrize(("norm", "loss"), [("Linf", "dlr-targeted"), ("L2", "dlr-targeted"), ("L1", "ce")])
def test_an_outcome_depends_on_no_batch_no_order_and_no_neighbour(digits_test, norm, loss):
    model, x = Apart(), digits_test.pixels(slice(0, 30))
    y, n = model(x).argmax(1), len(x)
    threat = Threat(norm, {"Linf": 0.02, "L2": 0.1, "L1": 0.4}[norm])

    def run(rows: Tensor, together: int) -> Tensor:
        block = BlockNoise(torch.device("cpu"), 5, n, rows)
        return APGD(loss=loss, steps=12, runs=4, together=together).run(model, x[rows], y[rows], threat, block)

    whole = run(torch.arange(n), 1)
    fooled = model(whole).argmax(1) != y
    assert 3 <= fooled.sum() <= n - 3

    for together in (n, 2 * n + 1, 1000):
        assert torch.equal(run(torch.arange(n), together), whole), together
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    assert torch.equal(run(shuffled, 64)[shuffled.argsort()], whole)
    split = torch.arange(n).split([1, 7, n - 8])
    assert torch.equal(torch.cat([run(rows, 64) for rows in split]), whole)


# --- cost and side effects --------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Says class 0 of bright examples (their first pixel is 1) and class 1 of dark ones, wherever they are moved."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        bright = self.slope * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([bright, -bright, 0 * bright - 9, 0 * bright - 8], dim=1)


def bright(*values: float) -> Tensor:
    return torch.tensor(values)[:, None].expand(-1, 12).clone()


@pytest.mark.parametrize(("loss", "runs"), [("ce", 1), ("ce", 3), ("dlr-targeted", 3)])
def test_what_is_fooled_costs_nothing_more(loss, runs):
    # Right to the end, wrong from the beginning, and fooled by the first step or before it.
    x, y, threat = bright(1.0, 0.0, 0.55), torch.tensor([0, 0, 0]), Threat("Linf", 0.1)
    attack = APGD(loss=loss, steps=10, runs=runs)

    model = Fixed()

    def spent(rows: list[int], together: int = 1) -> tuple[int, int]:
        made = attack.model_copy(update={"together": together})
        with counting(model) as passes:
            made.run(model, x[rows], y[rows], threat, BlockNoise(torch.device("cpu"), 0, 3, torch.tensor(rows)))
        return passes.forward, passes.backward

    # The clean pass, then in each run the start and ten steps, of which the last needs no gradient.
    stands = (1 + 11 * runs, 10 * runs)
    assert spent([0]) == stands
    assert spent([1]) == (1, 0)
    falls = spent([2])
    assert 2 <= falls[0] <= 3
    assert falls[1] <= 1
    assert spent([0, 1]) == (stands[0] + 1, stands[1])
    assert spent([0], together=64) == stands


def test_those_that_are_fooled_are_judged_by_the_exact_model():
    class Rounded(Fixed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).roll(1, dims=1)

    model = Rounded()
    x, y = bright(1.0, 1.0), torch.tensor([0, 0])
    model.__dict__["judge"] = Fixed()
    with counting(model) as passes:
        APGD(steps=10).run(model, x, y, Threat("Linf", 0.1), noise(2))
    assert (passes.forward, passes.backward) == (2 * 12, 2 * 10)


def test_logits_that_are_not_finite_fool_nobody_and_break_nothing():
    class Broken(Fixed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    x, threat = bright(1.0, 0.3), Threat("L2", 0.1)
    candidates = APGD(steps=3).run(Broken(), x, torch.tensor([0, 1]), threat, noise(2))

    assert torch.equal(candidates, x)


@pytest.mark.parametrize("norm", NORMS)
def test_no_parameter_gets_a_gradient_and_no_global_stream_is_moved(norm):
    model, x = Planes(5, 12), middle(4)
    before, given = torch.get_rng_state(), x.clone()

    candidates = APGD(loss="dlr-targeted", steps=5).run(model, x, torch.arange(4), THREATS[norm], noise(4))

    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, given)
    assert not candidates.requires_grad


def test_no_examples_are_no_trouble():
    empty = APGD().run(Planes(5, 12), middle(0), torch.arange(0), THREATS["Linf"], noise(0))

    assert empty.shape == (0, 12)
