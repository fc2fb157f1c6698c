"""Is APGD the authors' APGD? Asked of their package with the same draws, and of models with known optima."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from advbench.attacks import apgd
from advbench.attacks.apgd import APGD, Loss, checkpoints, radii
from advbench.data.base import Examples
from advbench.losses import targeted_dlr
from advbench.passes import counting
from advbench.seeds import BlockNoise
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
LOSSES: tuple[Loss, ...] = ("ce", "dlr", "dlr-targeted")
THREATS = {"Linf": Threat("Linf", 0.07), "L2": Threat("L2", 0.4), "L1": Threat("L1", 1.2)}
"""Radii at which the digits model is fooled on some examples and not on others."""


def noise(n: int, seed: int = 0) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), seed, n, torch.arange(n))


@pytest.fixture
def some(digits_cnn: nn.Module, digits_test: Examples) -> tuple[nn.Module, Tensor, Tensor]:
    """The frozen digits model with 24 digits that it reads right."""
    model = digits_cnn.eval().requires_grad_(False)
    x, y = digits_test.pixels(slice(0, 40)), digits_test.labels[:40]
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:24]
    return model, x[right], y[right]


# --- the package ------------------------------------------------------------------------------------------------------


class Drawn(BlockNoise):
    """The package's draws: torch's global stream, for those that stand; in L1 it draws for every ball and uses one."""

    def __init__(self, norm: Norm) -> None:
        super().__init__(torch.device("cpu"), 0, 0, torch.arange(0))
        self.wasted = 3 if norm == "L1" else 0

    def some(self, kept: Tensor) -> BlockNoise:
        return self

    def uniform(self, x: Tensor) -> Tensor:
        return 2 * torch.rand(x.shape) - 1

    def normal(self, x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape)
        for _ in range(self.wasted):
            torch.randn(x.shape)
        return drawn


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float64 for the package too, which casts what it gets to `float`: else rounding decides between trajectories."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())
    yield
    torch.set_default_dtype(torch.float32)


def package(model: nn.Module, threat: Threat, loss: Loss, runs: int, seed: int = 0, steps: int = 100) -> APGDAttack:
    kind = APGDAttack_targeted if loss == "dlr-targeted" else APGDAttack
    made = kind(model, n_iter=steps, norm=threat.norm, eps=threat.eps, seed=seed, device="cpu")
    made.use_largereps = threat.norm == "L1"
    if loss == "dlr-targeted":
        made.n_target_classes = runs
    else:
        made.loss, made.n_restarts = loss, runs
    return made


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("norm", "loss"), [*((norm, loss) for norm in NORMS for loss in ("ce", "dlr-targeted")), ("Linf", "dlr")]
)
def test_with_the_package_s_draws_it_goes_where_the_package_goes(some, monkeypatch, norm, loss):
    model, x, y = some[0].double(), some[1].double(), some[2]
    theirs = package(model, THREATS[norm], loss, runs=2, steps=50)
    # It also counts pixels that only rounding has moved, by 1e-16.
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda moved: (moved.abs() > 1e-12).flatten(1).sum(1))
    single = "decr_eps_pgd" if norm == "L1" else "attack_single_run"
    seen, run = [], getattr(theirs, single)
    monkeypatch.setattr(theirs, single, lambda *given: seen.append(run(*given)) or seen[-1])
    with torch.no_grad():
        fooled = model(theirs.perturb(x, y)).argmax(1) != y

    torch.manual_seed(0)
    candidates = APGD(loss=loss, steps=50, runs=2, together=1).run(model, x, y, THREATS[norm], Drawn(norm))

    assert torch.equal(model(candidates).argmax(1) != y, fooled)
    assert 3 <= fooled.sum() <= len(y) - 3, "some should fall and some stand, or this says little"
    # What stands was in both runs, the second time without those that the first one fooled.
    (points, stood, losses, _), (more_points, stood_again, more_losses, _) = seen
    points, losses = points[stood][stood_again], losses[stood][stood_again]
    higher = more_losses[stood_again] > losses
    best = torch.where(higher[:, None, None, None], more_points[stood_again], points)
    torch.testing.assert_close(candidates[~fooled], best, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("norm", "loss"), [("Linf", "ce"), ("L2", "dlr-targeted"), ("L1", "ce")])
def test_with_its_own_draws_it_fools_as_many_as_the_package(some, norm, loss):
    """Five steps, so that the start decides. Counts over K seeds: their means differ by no more than chance allows.

    Under one law the difference of the means has the variance (s1^2 + s2^2) / K, of the counts' own spread; a
    difference beyond three standard errors (and half an example, where the counts hardly spread) is another law.
    """
    model, x, y = some
    threat, seeds = THREATS[norm], range(10)

    def count(candidates: Tensor) -> float:
        return float((model(candidates).argmax(1) != y).sum())

    ours = [count(APGD(loss=loss, steps=5, runs=1).run(model, x, y, threat, noise(len(x), s))) for s in seeds]
    with torch.no_grad():
        theirs = [count(package(model, threat, loss, 1, s, steps=5).perturb(x, y)) for s in seeds]

    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    error = ((ours.var() + theirs.var()) / len(seeds)).sqrt()
    assert abs(ours.mean() - theirs.mean()) <= 3 * error + 0.5
    assert 3 <= theirs.mean() <= len(y) - 3


# --- schedules --------------------------------------------------------------------------------------------------------


def test_step_sizes_are_reconsidered_where_the_paper_says():
    assert checkpoints("Linf", 100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    # Section 3.3: p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), after ceil(p_j N) steps.
    for steps in (100, 200, 1000):
        before, share, expected = Fraction(0), Fraction(22, 100), []
        while share <= 1:
            expected.append(math.ceil(share * steps))
            before, share = share, share + max(share - before - Fraction(3, 100), Fraction(6, 100))
        assert list(checkpoints("L2", steps)) == expected
    assert checkpoints("Linf", 5) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    # In L1 after every 4 %, which is every step of the 30 to 40 in one ball.
    assert checkpoints("L1", 40) == dict.fromkeys(range(1, 41), 1)
    assert checkpoints("L1", 100) == dict.fromkeys(range(4, 101, 4), 4)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(100, (30, 30, 40)), (25, (8, 8, 9)), (5, (2, 2, 1)), (3, (1, 1, 1)), (2, (1, 1, 0)), (1, (1, 0, 0))],
)
def test_in_l1_the_ball_shrinks_from_three_radii_to_one(steps, expected):
    assert radii("L1", steps) == [(3, expected[0]), (2, expected[1]), (1, expected[2])]
    assert radii("Linf", steps) == radii("L2", steps) == [(1, steps)]


def ascents(kind: type[apgd._Ascents], n: int, threat: Threat, pixels: int = 12) -> apgd._Ascents:
    """`n` ascents that have just begun at the middle of the box."""
    x, rows = torch.full((n, pixels), 0.5), torch.arange(n)
    made = kind(APGD(), nn.Flatten(), x, rows, rows, rows, rows)
    made.threat, made.project = threat, threat.projection(x)
    made._begin(x)
    return made


def test_a_step_size_is_halved_when_the_loss_rose_too_seldom_or_stands_where_it_stood():
    a = ascents(apgd._Ascents, 4, Threat("Linf", 0.1))
    where = torch.full((4, 12), 0.5)

    def window(steps: int, rises: list[int], height: list[float]) -> None:
        """So many rises in `steps` steps, whose highest loss is `height` at the last of the rises."""
        for i in range(steps):
            a.x_adv, a.grad = where + 0.001 * (i + 1), where * (i + 1)
            a.value = torch.zeros(4)
            a._note(
                torch.tensor(
                    [h if i == r - 1 else (h / 2 if i < r else -1.0) for r, h in zip(rises, height, strict=True)]
                )
            )
        a._reconsider(steps)

    # At most 16.5 rises of 22 are too few.
    window(22, [22, 17, 16, 3], [1.0, 1.0, 1.0, 1.0])
    assert a.halved.tolist() == [False, False, True, True]
    assert a.step.flatten().tolist() == pytest.approx([0.2, 0.2, 0.1, 0.1])
    # The halved go back to the best point and its gradient, the others on from where they are.
    best = [22, 22, 16, 3]
    torch.testing.assert_close(a.x_adv[:, 0], 0.5 + 0.001 * torch.tensor(best))
    torch.testing.assert_close(a.grad[:, 0], 0.5 * torch.tensor(best))
    # Rises enough, but no new height: halved, unless it was halved the last time.
    window(19, [19, 19, 19, 14], [2.0, 1.0, 1.0, 2.0])
    assert a.halved.tolist() == [False, True, False, True]
    assert a.step.flatten().tolist() == pytest.approx([0.2, 0.1, 0.1, 0.05])
    window(16, [16, 16, 16, 13], [2.0, 1.0, 1.0, 2.0])
    assert a.halved.tolist() == [True, False, True, False]
    assert a.step.flatten().tolist() == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_in_l1_a_step_is_shared_by_the_pixels_of_the_largest_gradients():
    a = ascents(apgd._SparseAscents, 2, Threat("L1", 0.6))
    a.grad = torch.tensor([[3.0, -5, 1, 4, 0, 2, -1, 1, 1, 1, 1, 1], [0.0] * 12])
    a.share = torch.tensor([0.25, 0.25])

    a._move(first=True)

    assert a.x_adv[0].tolist() == pytest.approx([0.7, 0.3, 0.5, 0.7, *[0.5] * 8])
    assert a.x_adv[1].tolist() == [0.5] * 12


def test_in_l1_the_step_size_starts_anew_where_the_best_point_got_sparser():
    a = ascents(apgd._SparseAscents, 3, Threat("L1", 0.6))
    a.moved = torch.tensor([10.0, 4.0, 3.0])
    a.step = torch.tensor([[0.1], [0.3], [0.06]])
    a.best = a.x.clone()
    a.best[:, :4] += 0.1
    a.x_adv = a.x + 0.01

    a._reconsider(1)

    # 4 of 10 pixels: the whole radius again, from the best point. 4 of 4 and of 3: shorter, but never below a tenth.
    assert a.step.flatten().tolist() == pytest.approx([0.6, 0.2, 0.06])
    assert torch.equal(a.x_adv[0], a.best[0])
    assert torch.equal(a.x_adv[1:], a.x[1:] + 0.01)
    assert a.share.tolist() == pytest.approx([4 / 12 / 1.5] * 3)


# --- models with known optima -----------------------------------------------------------------------------------------


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
