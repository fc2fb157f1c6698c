"""Signs: each is seen where it is and nowhere else, and looking leaves no trace."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from typing import Any

import pytest
import torch
from known_bad import KNOWN, another_reader
from torch import Tensor, nn

from advbench.data.base import DataSet, Examples
from advbench.data.subsets import choose
from advbench.signs import ROUNDING, Connected, Signs, connected, signs
from advbench.task import Data


@pytest.fixture(scope="module")
def another(digits: DataSet) -> nn.Module:
    return another_reader(choose(digits, Data(name="digits"), "cpu").train)


@pytest.fixture(params=[0, 1], ids=["cnn", "mlp"])
def reader(request, digits_cnn, another) -> nn.Module:
    return (digits_cnn, another)[request.param].eval()


def look(model: Any, test: Examples, count: int = 64) -> Signs:
    return signs(model, test.pixels(slice(0, count)), test.labels[:count])


def raised(seen: Signs) -> set[str]:
    return {
        name
        for name, wrong in {
            "softmax": seen.softmax,
            "nonfinite": seen.nonfinite > 0,
            "stochastic": seen.stochastic > ROUNDING,
            "batch": seen.batch > ROUNDING,
            "optimises": seen.optimises,
            "disconnected": seen.disconnected,
            "saturated": seen.saturated > 0.5,
            "flat": seen.logits_flat > 0.5,
        }.items()
        if wrong
    }


def test_an_honest_model_shows_nothing(reader, digits_test):
    seen = look(reader, digits_test)

    assert raised(seen) == set()
    assert (seen.stochastic, seen.changed, seen.regrouped, seen.saturated, seen.logits_flat) == (0, 0, 0, 0, 0)
    right = reader(digits_test.pixels(slice(0, 64))).argmax(1) == digits_test.labels[:64]
    assert (seen.images, seen.correct) == (64, int(right.sum()))


@pytest.mark.parametrize("which", [0, 1], ids=["one", "other"])
@pytest.mark.parametrize(
    ("kind", "signs_of_it"),
    [
        ("gradient killer", {"saturated", "flat"}),
        ("quantised input", {"saturated", "flat"}),
        ("softmax output", {"softmax"}),
        ("random noise", {"stochastic", "batch"}),
        ("temperature 1e-4", {"saturated"}),
        ("batch norm in training mode", {"batch"}),
        ("jpeg", {"disconnected", "saturated", "flat"}),
        ("optimisation in the forward", {"optimises"}),
        ("non-finite logits", {"nonfinite"}),
    ],
)
def test_a_bad_model_shows_its_fault_and_no_other(kind, signs_of_it, which, digits_cnn, another, digits_test):
    build = KNOWN[kind][1 + which]
    model = build((digits_cnn, another)[which]).eval()

    # A look-up table is cut off from its input, and steps taken for a whole batch depend on the batch.
    also = {("quantised input", 1): {"disconnected"}, ("optimisation in the forward", 1): {"batch"}}
    assert raised(look(model, digits_test)) == signs_of_it | also.get((kind, which), set())


def test_signs_are_plain_numbers(reader, digits_test):
    seen = asdict(look(reader, digits_test, 8))

    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    assert {type(value) for value in seen.values()} == {int, float, bool}


class Telltale(nn.Module):
    """Moves whatever a forward pass can move: statistics, weights, its own mode, the global streams."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.norm = nn.BatchNorm1d(10)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        self.seen = self.seen + len(x)  # another tensor
        with torch.no_grad():
            self.norm.weight += 0.1
        return self.norm(self.inner(x)) + torch.randn(10)


def test_looking_changes_nothing(reader, digits_test):
    model = Telltale(reader).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    x = digits_test.pixels(slice(0, 16)).clone()
    kept, stream = x.clone(), torch.get_rng_state()

    seen = signs(model, x, digits_test.labels[:16])
    connected(model, x)

    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in model.modules()] == modes
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == tensors
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), stream)
    assert seen.stochastic > ROUNDING


def test_a_model_that_fails_is_left_as_it_was_too(reader, digits_test):
    class Fails(Telltale):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ZeroDivisionError

    model, stream, profile = Fails(reader).eval(), torch.get_rng_state(), sys.getprofile()

    with pytest.raises(ZeroDivisionError):
        look(model, digits_test)

    assert float(model.seen) == 0
    assert torch.equal(torch.get_rng_state(), stream)
    assert (sys.getprofile(), threading.getprofile()) == (profile, None)


def test_the_numbers_of_a_random_model_are_the_same_at_every_look(digits_cnn, digits_test):
    noisy = KNOWN["random noise"][1](digits_cnn.eval())
    first = look(noisy, digits_test)
    torch.rand(7)

    assert look(noisy, digits_test) == first


@pytest.mark.parametrize("size", [1e-5, 1e-2])
def test_a_difference_is_a_share_of_the_largest_logit(size, digits_test):
    class Alternates(nn.Module):
        """Every other pass is `size` of the largest logit higher in one class."""

        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            logits = 50 * x.flatten(1)[:, :10] + torch.eye(10)[3] * 200
            return logits + torch.eye(10)[1] * (200 * size * (self.passes % 2))

    seen = look(Alternates(), digits_test)

    # The largest logit is between 200 and 250.
    assert 0.8 * size <= seen.stochastic <= 1.01 * size
    assert seen.changed == 0


def test_what_depends_on_place_or_company_is_told(digits_test):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        pixels = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    class First(nn.Module):
        """The first image of a batch is given away."""

        def forward(self, x: Tensor) -> Tensor:
            place = torch.arange(len(x))[:, None] == 0
            return pixels(x) + 5 * place

    class Company(nn.Module):
        """Each image is seen beside the brightest one."""

        def forward(self, x: Tensor) -> Tensor:
            return pixels(x / x.sum((1, 2, 3)).amax())

    assert raised(look(First(), digits_test)) == {"batch"}
    assert raised(look(Company(), digits_test)) == {"batch"}
    assert raised(look(pixels, digits_test)) == set()


def inner_loss(x: Tensor) -> Tensor:
    return (x**2).sum()


@pytest.mark.parametrize(
    "derive",
    [
        lambda x: torch.autograd.grad(inner_loss(x), x),
        lambda x: inner_loss(x).backward(),
        lambda x: torch.autograd.backward([inner_loss(x)]),
        lambda x: torch.func.grad(inner_loss)(x),
        lambda x: torch.func.vjp(inner_loss, x)[1](torch.ones(())),
        lambda x: torch.func.jvp(inner_loss, (x,), (torch.ones_like(x),)),
        lambda x: torch.autograd.functional.jacobian(inner_loss, x),
    ],
    ids=["grad", "backward", "autograd.backward", "func.grad", "func.vjp", "func.jvp", "jacobian"],
)
@pytest.mark.parametrize("threaded", [False, True])
def test_derivatives_are_seen_however_they_are_taken(derive, threaded, reader, digits_test):
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = reader

        def forward(self, x: Tensor) -> Tensor:
            def work() -> None:
                with torch.enable_grad():
                    derive(x.detach().clone().requires_grad_())

            if threaded:  # as DataParallel does
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            else:
                work()
            return self.body(x)

    assert raised(look(Inner(), digits_test)) == {"optimises"}


def test_a_method_with_a_telling_name_and_a_first_pass_that_prepares_are_no_optimisation(reader, digits_test):
    class Innocent(nn.Module):
        ready = False

        def grad(self, x: Tensor) -> Tensor:
            return reader(x)

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:  # as torch.compile does
                self.ready = True
                with torch.enable_grad():
                    inner_loss(torch.ones(1, requires_grad=True)).backward()
            return self.grad(x)

    assert raised(look(Innocent(), digits_test)) == set()


def test_shares_are_of_the_correct_images(digits_test):
    class Half(nn.Module):
        """Always right, and without a gradient on the images of even digits."""

        def forward(self, x: Tensor) -> Tensor:
            lit = x.flatten(1).mean(1, keepdim=True)
            even = labels[: len(x), None] % 2 == 0
            sure = torch.where(even, lit.detach(), lit)
            wrong = torch.arange(len(x))[:, None] < 10
            right = torch.eye(10)[labels[: len(x)]]
            return sure * torch.where(wrong, -right, right)

    labels = digits_test.labels[:64]
    seen = signs(Half(), digits_test.pixels(slice(0, 64)), labels)

    even = float((labels[10:] % 2 == 0).float().mean())
    assert seen.correct == 54
    assert seen.saturated == pytest.approx(even)
    assert seen.logits_flat == pytest.approx(even)


def test_a_connected_model_is_not_touched(reader, digits_test):
    assert connected(reader, digits_test.pixels(slice(0, 8))) is reader


@pytest.mark.parametrize("which", [1, 2])
def test_a_model_without_a_gradient_gets_one_of_zero(which, digits_cnn, digits_test):
    x = digits_test.pixels(slice(0, 8))
    model = KNOWN["jpeg"][which](digits_cnn.eval().requires_grad_(False))

    joined = connected(model, x)

    assert isinstance(joined, Connected)
    leaf = x.clone().requires_grad_()
    logits = joined(leaf)
    assert torch.equal(logits.detach(), model(x))
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    assert torch.equal(gradient, torch.zeros_like(x))


def test_what_a_model_says_of_its_own_mistakes_is_heard(digits_test):
    class Clumsy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.5).flatten(1)  # of a leaf that asks for a gradient

    with pytest.raises(RuntimeError, match="in-place"):
        connected(Clumsy(), digits_test.pixels(slice(0, 8)))
