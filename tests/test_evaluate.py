"""Verdicts: right by recomputation and in closed form, the same whatever the batch and however often interrupted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.ledger import CLEAN, STANDING
from advbench.scores import interval
from advbench.seeds import BlockNoise, derive
from advbench.threat import Norm, Threat

LADDER = [FGSM(), PGD(steps=6, restarts=2), PGD(steps=5, step_size=0.5, label="pgd-b")]
LINF = Threat("Linf", 0.1)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.4), pytest.param("L1", 1.5, marks=pytest.mark.slow)])
def test_the_batch_changes_no_verdict(judged, digits_cnn, digits_test, norm, eps):
    threat = Threat(norm, eps)
    found = [
        judged(digits_cnn, digits_test, LADDER[:2], threat, curve=["1/10"], batch=batch) for batch in (500, 64, 17)
    ]

    states = [int((found[0].ledger.broken_by == v).sum()) for v in (CLEAN, STANDING, 0, 1)]
    assert min(states) >= 2, "some examples in each state, or equality would say little"
    for other in found[1:]:
        assert torch.equal(found[0].ledger.broken_by, other.ledger.broken_by)
        assert found[0].scores == other.scores
        torch.testing.assert_close(found[0].ledger.margin, other.ledger.margin, rtol=1e-4, atol=1e-5)
        # Restarts leave out what they have broken, in batches of their own, so passes are the same in sum too.
        assert found[0].ledger.forward.sum() == other.ledger.forward.sum()
        assert found[0].ledger.backward.sum() == other.ledger.backward.sum()


def test_parameters_are_frozen_for_attacks_and_given_back(judged, digits_cnn, digits_test):
    digits_cnn[0].bias.requires_grad_(False)
    wanted = [p.requires_grad for p in digits_cnn.parameters()]

    class Look(FGSM):
        def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
            assert not model.training
            assert not any(p.requires_grad for p in model.parameters())
            images = x.clone().requires_grad_()
            model(images).sum().backward()  # the careless way: even so parameters get no gradient
            if threat.eps > 1:
                raise RuntimeError("the attack broke down")
            return super().run(model, x, y, threat, noise)

    judged(digits_cnn, digits_test, [Look()], LINF, curve=[])
    assert [p.requires_grad for p in digits_cnn.parameters()] == wanted
    assert all(p.grad is None for p in digits_cnn.parameters())
    assert digits_cnn.training
    with pytest.raises(RuntimeError):
        judged(digits_cnn, digits_test, [Look()], Threat("L2", 2), curve=[])
    assert [p.requires_grad for p in digits_cnn.parameters()] == wanted
    assert digits_cnn.training


def test_freezing_changes_no_candidate(digits_cnn, digits_test):
    digits_cnn.eval()
    x, y = digits_test.pixels(slice(0, 50)), digits_test.labels[:50]

    def candidates() -> Tensor:
        return PGD(steps=5).run(digits_cnn, x, y, LINF, BlockNoise(x.device, 3, 50, torch.arange(50)))

    free = candidates()
    digits_cnn.requires_grad_(False)
    assert torch.equal(candidates(), free)


def test_each_block_attack_and_restart_has_its_own_seed(judged, digits_cnn, digits_test):
    seeds: list[tuple[int, int]] = []

    class Seen(PGD):
        def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
            seeds.append((noise.seed, noise.size))
            return x  # breaks nothing, so that every restart happens

    def collect(**how: Any) -> list[tuple[int, int]]:
        seeds.clear()
        attacks = [Seen(label="a", restarts=2), Seen(label="b")]
        judged(digits_cnn, digits_test, attacks, LINF, curve=[], **how)
        return list(seeds)

    first = collect(block=180)
    assert len(set(first)) == len(first) == 6
    assert first[0] == (derive(0, "attack", "a", 0, 0), 180)
    assert set(collect(block=180, batch=50)) == set(first)
    assert not set(collect(block=180, seed=1)) & set(first)


def test_scores_are_shares_of_the_rows(judged, digits_cnn, digits_test):
    found = judged(digits_cnn, digits_test, LADDER, LINF)
    ledger, scores = found.ledger, found.scores

    still = [((ledger.broken_by == STANDING) | (ledger.broken_by > rung)).float().mean().item() for rung in range(3)]
    assert list(scores.attacks.values()) == pytest.approx(still)
    assert list(scores.attacks) == ["fgsm", "pgd", "pgd-b"]
    clean = (ledger.predicted == ledger.labels).float().mean().item()
    assert scores.clean.accuracy == pytest.approx(clean)
    assert scores.robust is not None
    assert scores.robust.accuracy == pytest.approx(still[-1])
    assert scores.robust.protocol == "pgd-b"
    # Each rung and each radius can only take away.
    assert clean > still[0] > still[1] >= still[2] > 0
    assert clean > scores.curve["1/20"] > scores.attacks["fgsm"] > scores.curve["1/5"]
    # Alone, on every example: what the ladder's first rung did it did alone; the last one alone does less.
    assert scores.alone["fgsm"] == scores.attacks["fgsm"]
    assert scores.alone["pgd"] >= scores.attacks["pgd"]
    assert scores.alone["pgd-b"] >= scores.attacks["pgd-b"]
    assert scores.alone_n == {"fgsm": 360, "pgd": 360, "pgd-b": 360}


def test_scores_alone_are_those_of_a_ladder_of_one(judged, digits_cnn, digits_test):
    ladder = judged(digits_cnn, digits_test, LADDER, LINF).scores

    for attack in LADDER:
        single = judged(digits_cnn, digits_test, [attack], LINF, curve=[]).scores
        assert single.attacks[attack.key] == ladder.alone[attack.key]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (250, 360), (9_999, 10_000)])
def test_intervals_are_wilson_s(right, n):
    # Wilson 1927: the roots p of (right/n - p)^2 = z^2 p (1 - p) / n.
    found, z, share = interval(right, n), 1.959963984540054, right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5

    assert found.accuracy == share
    assert found.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1, centre + half), abs=1e-12)


class Plane(nn.Module):
    """Two logits, linear in the pixels, whose robust accuracy is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(5)))

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([-height, height], 1)


DUAL: dict[Norm, Any] = {"Linf": lambda w: w.abs().sum(), "L2": lambda w: w.norm(), "L1": lambda w: w.abs().max()}
RADII = {"Linf": [0.002, 0.005, 0.01, 0.02], "L2": [0.01, 0.03, 0.07, 0.12], "L1": [0.03, 0.08, 0.17, 0.35]}


@pytest.mark.parametrize("norm", DUAL)
def test_a_linear_model_s_robust_accuracy_is_the_closed_form_at_every_radius(judged, norm):
    source = torch.Generator().manual_seed(1)
    x = 0.4 + 0.2 * torch.rand(300, 1, 8, 8, generator=source)
    model = Plane()
    margin = ((x.double().flatten(1) - 0.5) @ model.weight.detach().double()).detach()
    y = (margin > 0.05).long()  # so that some are wrong without an attack
    signed = margin * (2 * y - 1)
    distance = signed / DUAL[norm](model.weight.detach().double())
    radii = RADII[norm]
    test = Examples(x, y, torch.arange(300), 255)
    exact = {eps: ((signed > 0) & (distance > eps)).double().mean().item() for eps in radii}
    # No example so near an edge that rounding decides, and each radius takes some.
    assert min((distance.abs() - eps).abs().min() for eps in radii) > 2e-7
    assert 0.95 > exact[radii[0]] > exact[radii[1]] > exact[radii[2]] > exact[radii[3]] > 0

    attacks = [FGSM(), PGD(steps=20)]
    found = judged(model, test, attacks, Threat(norm, radii[2]), curve=[str(eps) for eps in radii], classes=2).scores

    assert found.clean.accuracy == (signed > 0).double().mean()
    # One step is the whole answer for a plane, so all three agree.
    assert found.attacks == {"fgsm": exact[radii[2]], "pgd": exact[radii[2]]}
    assert found.alone == found.attacks
    assert list(found.curve.values()) == [exact[eps] for eps in radii]


@pytest.mark.parametrize("norm", DUAL)
def test_the_nearest_fooling_point_of_a_plane_is_found_however_far_it_is(judged, norm):
    x = 0.4 + 0.2 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = Plane()
    margin = ((x.double().flatten(1) - 0.5) @ model.weight.detach().double()).detach()
    exact = margin.abs() / DUAL[norm](model.weight.detach().double())
    test = Examples(x, (margin > 0).long(), torch.arange(40), 255)
    radii = RADII[norm]

    found = judged(
        model, test, [FGSM()], Threat(norm, radii[0]), curve=[str(eps) for eps in radii], distances=True, classes=2
    )

    # FAB oversteps by 5 %, and ten halvings leave a thousandth of that; fp32 logits decide which side a point is on.
    assert (found.ledger.distance >= exact - 1e-5).all()
    torch.testing.assert_close(found.ledger.distance, exact, rtol=1e-3, atol=1e-5)
    assert found.scores.distance == pytest.approx(float(exact.median()), rel=1e-3, abs=1e-5)
    # So the curve needs no attack any more to be exact.
    assert list(found.scores.curve.values()) == [(exact > eps).double().mean().item() for eps in radii]
