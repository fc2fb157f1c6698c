"""Who is broken is decided by the ledger alone, every pass is counted, and a killed evaluation goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.ledger import CLEAN, STANDING
from advbench.scores import Verdicts
from advbench.seeds import BlockNoise
from advbench.threat import Threat

LADDER = [FGSM(), PGD(steps=6, restarts=2), PGD(steps=5, step_size=0.5, label="pgd-b")]
LINF = Threat("Linf", 0.1)


def same(one: Verdicts, other: Verdicts) -> None:
    """In everything but seconds."""
    for name in ("predicted", "broken_by", "adversarial", "flat", "forward", "backward", "index"):
        assert torch.equal(getattr(one.ledger, name), getattr(other.ledger, name)), name
    assert one.ledger.withstood.keys() == other.ledger.withstood.keys()
    assert all(torch.equal(column, other.ledger.withstood[name]) for name, column in one.ledger.withstood.items())
    assert one.scores == other.scores


@pytest.fixture(scope="module")
def few(digits_test: Examples) -> Examples:
    """120 digits, so that blocks of 50 end in a shorter one."""
    return Examples(digits_test.stored[:120], digits_test.labels[:120], digits_test.index[:120], digits_test.peak)


class Cheat(Attack):
    """Proposes what it may not."""

    name = "cheat"
    paper = "none"
    how: str

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        images = x.roll(1, 0)  # another example, most often of another class, so it would be misclassified
        match self.how:
            case "out of the ball":
                return images
            case "just out of the ball":
                return (x + (images - x).sign() * threat.eps * 1.001).clamp(0, 1)
            case "out of the box":
                return x - threat.eps * (x == 0) + threat.eps * (x == 1)
            case "NaN":
                return torch.full_like(x, torch.nan)
            case "infinite":
                return torch.full_like(x, torch.inf)
            case _:
                x.copy_(images)  # so that the candidate would be no perturbation at all
                y.copy_(y.roll(1))
                return x


HOWS = ["out of the ball", "just out of the ball", "out of the box", "NaN", "infinite", "in place"]


@pytest.mark.parametrize("how", HOWS)
def test_an_attack_that_cheats_breaks_nothing(judged, digits_cnn, few, how):
    # So wide a ball that what is cheated with would count if it were allowed.
    threat = Threat("Linf", 0.4)
    found = judged(digits_cnn, few, [Cheat(how=how)], threat, curve=[])

    broken = found.ledger.broken_by >= 0
    x, adversarial = found.ledger.x, found.ledger.adversarial
    if how == "just out of the ball":
        # Clipping to the box brings some back into the ball; they are broken fairly.
        assert ((adversarial - x).abs().amax((1, 2, 3))[broken] <= 0.4 + 1e-5).all()
    else:
        assert not broken.any()
    assert torch.equal(x, few.pixels(slice(None)))
    assert torch.equal(adversarial[~broken], x[~broken])


def test_another_class_s_image_is_a_fair_candidate_where_the_ball_reaches_it(judged, digits_cnn, few):
    found = judged(digits_cnn, few, [Cheat(how="out of the ball")], Threat("Linf", 1.0), curve=[], block=50)

    ledger = found.ledger
    digits_cnn.eval()
    for number, first in enumerate((0, 50, 100)):
        rows = [i for i in ledger.correct.tolist() if first <= i < first + 50]
        for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True):
            wrong = int(digits_cnn(ledger.x[other : other + 1]).argmax()) != ledger.labels[row]
            assert ledger.broken_by[row] == (0 if wrong else STANDING), number


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_verdict_is_confirmed_in_float64(judged, digits_cnn, digits_test, norm):
    threat = Threat(norm, 0.1 if norm == "Linf" else 0.4)
    found = judged(digits_cnn, digits_test, LADDER, threat)
    ledger, model = found.ledger, digits_cnn.double().eval()

    x, adversarial = ledger.x.double(), ledger.adversarial.double()
    with torch.no_grad():
        logits, clean = model(adversarial), model(x)
    fell = ledger.broken_by >= 0
    delta = (adversarial - x).flatten(1)
    size = delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)
    top = logits.topk(2).values
    sure = top[:, 0] - top[:, 1] > 1e-5
    assert fell.sum() > 30
    assert (logits.argmax(1) != ledger.labels)[fell & sure].all()
    assert (size <= threat.eps + 1e-5).all()
    assert adversarial.min() >= -1e-6
    assert adversarial.max() <= 1 + 1e-6
    assert (size[~fell] == 0).all()
    assert torch.equal(clean.argmax(1), ledger.predicted)
    assert torch.equal(ledger.predicted != ledger.labels, ledger.broken_by == CLEAN)
    assert torch.equal(ledger.labels, digits_test.labels)
    assert torch.equal(ledger.index, digits_test.index)
    own = clean.gather(1, ledger.labels[:, None])
    others = clean.scatter(1, ledger.labels[:, None], -torch.inf).amax(1, keepdim=True)
    torch.testing.assert_close(ledger.margin.double(), (own - others).squeeze(1).detach(), rtol=1e-4, atol=1e-4)
    assert [w for w in found.broken_by if w] == [
        "clean" if b == CLEAN else LADDER[b].key for b in ledger.broken_by.tolist() if b != STANDING
    ]


class Counted(nn.Module):
    """A model that counts its own passes, without hooks."""

    forwards: ClassVar[int] = 0
    backwards: ClassVar[int] = 0

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        Counted.forwards += len(x)
        return _Back.apply(self.inner(x))


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        Counted.backwards += len(grads[0])
        return grads[0]


def test_passes_add_up_to_those_of_an_independent_count(judged, digits_cnn, few):
    Counted.forwards = Counted.backwards = 0
    # Without a sample there is no look at the model, whose passes nobody pays for.
    found = judged(Counted(digits_cnn), few, LADDER, LINF, batch=33, alone=0)

    # Two go forward to see whether the model answers at all, two with a gradient whether it has one, one and two to see
    # how much memory they take: no cost of an example's verdict.
    assert int(found.ledger.forward.sum()) == Counted.forwards - 7 > 0
    assert int(found.ledger.backward.sum()) == Counted.backwards - 2 > 0
    # What was wrong at once cost one look and one gradient.
    wrong = found.ledger.broken_by == CLEAN
    assert set(found.ledger.forward[wrong].tolist()) == {2}
    assert set(found.ledger.backward[wrong].tolist()) == {1}


class Killed(FGSM):
    """Ends the process, so to speak, when it runs for the `lives`-th time."""

    label: str | None = "pgd"
    left: ClassVar[int] = 0

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        Killed.left -= 1
        if Killed.left < 0:
            raise KeyboardInterrupt
        return super().run(model, x, y, threat, noise)


@pytest.mark.parametrize("lives", [0, 1, 2])
def test_an_evaluation_interrupted_between_stages_ends_in_the_same_verdicts(judged, digits_cnn, few, lives):
    ladder = [FGSM(), Killed(), PGD(steps=3, label="pgd-b")]
    Killed.left = 99
    whole = judged(digits_cnn, few, ladder, LINF, block=50)

    Killed.left = lives
    with pytest.raises(KeyboardInterrupt):
        judged(digits_cnn, few, ladder, LINF, folder="j", block=50)
    Killed.left = 99
    same(judged(digits_cnn, few, ladder, LINF, folder="j", block=50), whole)

    # Now the journal is whole: nothing is left to ask the model.
    digits_cnn[0].weight.data.fill_(torch.nan)
    same(judged(digits_cnn, few, ladder, LINF, folder="j", block=50), whole)


@pytest.mark.parametrize("change", [{"attacks": LADDER[:2]}, {"threat": Threat("Linf", 0.05)}, {"seed": 1}])
def test_a_journal_of_something_else_is_not_used(judged, digits_cnn, few, change):
    arguments = {"attacks": LADDER, "threat": LINF, **change}
    wanted = judged(digits_cnn, few, **arguments)

    judged(digits_cnn, few, LADDER, LINF, folder="j")
    same(judged(digits_cnn, few, folder="j", **arguments), wanted)


def test_a_journal_of_other_weights_is_not_used(judged, digits_cnn, few):
    judged(digits_cnn, few, LADDER, LINF, folder="j")
    digits_cnn[7].bias.data += torch.arange(10)
    wanted = judged(digits_cnn, few, LADDER, LINF)

    same(judged(digits_cnn, few, LADDER, LINF, folder="j", key="other weights"), wanted)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_journal_is_not_used(tmp_path: Path, judged, digits_cnn, few, share):
    whole = judged(digits_cnn, few, LADDER, LINF, folder="j")
    entry = tmp_path / "journal" / "j" / "0.safetensors"
    content = entry.read_bytes()
    entry.write_bytes(content[: int(share * len(content))])

    same(judged(digits_cnn, few, LADDER, LINF, folder="j"), whole)
    again, before = load(entry.read_bytes()), load(content)
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_progress_is_told_stage_by_stage(judged, digits_cnn, few):
    news: list[tuple[str, int, int, str]] = []

    judged(digits_cnn, few, LADDER, LINF, tell=lambda *n: news.append(n), block=50)

    # The cheap ones on all blocks come first, because they decide whether the others are worth their time.
    cheap = ["clean", "fgsm", "pgd", "pgd-b", "sign/unbounded", "sign/further"]
    first = [("evaluate", 7 * block + i, 21, name) for block in range(3) for i, name in enumerate(cheap)]
    assert news == first + [("evaluate", 7 * block + 6, 21, "curve") for block in range(3)]


def test_the_ensemble_names_the_protocol_wherever_it_stands_and_has_a_score_alone(judged, digits_cnn, few):
    class Two(FGSM):
        """An ensemble of two."""

        def parts(self, classes: int) -> tuple[Attack, ...]:
            return (FGSM(label="one"), PGD(steps=3, label="two"))

    found = judged(digits_cnn, few, [Two(label="both"), PGD(steps=2)], Threat("Linf", 0.1), curve=[])

    one, two = found.ledger.withstood["one"] == 1, found.ledger.withstood["two"] == 1
    assert found.scores.robust.protocol == "both"
    assert found.one_step == ("one",), "whatever it is called"
    assert found.scores.alone["both"] == int((one & two).sum()) / len(few)
    assert found.scores.alone["both"] <= min(found.scores.alone["one"], found.scores.alone["two"])


def test_a_long_attack_says_how_far_it_is(judged, digits_cnn, few, monkeypatch):
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr("advbench.evaluate.time.monotonic", lambda: next(clock))
    said: list[str] = []

    judged(digits_cnn, few, [PGD(steps=6)], Threat("Linf", 0.1), curve=[], tell=lambda *news: said.append(news[3]))

    passes = [int(words.split(", ")[1].split()[0].replace(",", "")) for words in said if words.startswith("pgd, ")]
    assert len(passes) >= 2
    assert passes == sorted(passes)
