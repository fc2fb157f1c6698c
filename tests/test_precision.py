"""Faster passes are nearly the exact ones, exact ones are exact, and nothing of either stays behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import precision
from advbench.attacks.pgd import input_gradient
from advbench.losses import cross_entropy
from advbench.precision import Engine, bf16_is_fast, choose, exact, fast, proven
from advbench.recipe import Training

CPU = torch.device("cpu")
BF16 = Engine("bf16", channels_last=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 8, 3),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    )


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.rand(16, 2, 8, 8, generator=source), torch.randint(5, (16,), generator=source)


def off(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize(("engine", "low", "high"), [(BF16, 1e-4, 5e-2), (Engine("fp32", channels_last=True), 0, 1e-5)])
def test_fast_passes_are_near_the_exact_ones(batch, engine, low, high):
    x, y = batch
    model, plain = network(), network()

    with fast(model, engine):
        logits, gradient = model(x), input_gradient(model, x, y)
        cross_entropy(model(x), y).sum().backward()

    expected = plain(x).detach()
    cross_entropy(plain(x), y).sum().backward()
    assert logits.dtype == gradient.dtype == torch.float32
    # Below `low` nothing would have been rounded to bf16 at all.
    assert low <= off(logits, expected) < high
    assert low <= off(gradient, input_gradient(plain, x, y)) < high
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert mine.grad is not None
        assert theirs.grad is not None
        assert off(mine.grad, theirs.grad) < high


def test_nothing_of_it_stays_behind(batch):
    x, _ = batch
    model = network()
    with pytest.raises(RuntimeError, match="channels"), fast(model, BF16):
        model(x[:, :1])

    assert type(model) is nn.Sequential
    assert all(weight.is_contiguous() for weight in model.parameters())
    assert torch.equal(model(x), network()(x))


def test_a_copy_made_inside_uses_its_own_weights(batch):
    x, _ = batch
    model = network().eval()
    with fast(model, BF16):
        twin = copy.deepcopy(model)
        nn.init.zeros_(next(twin.parameters()))
        assert not torch.equal(twin(x), model(x))
        with exact(twin):
            assert torch.equal(twin.state_dict()["0.weight"], torch.zeros(8, 2, 3, 3))
            changed = twin(x)
    plain = network().eval()
    nn.init.zeros_(next(plain.parameters()))
    assert off(changed.detach(), plain(x).detach()) < 1e-6


def test_exact_passes_inside_are_those_of_the_plain_model(batch):
    x, y = batch
    model, plain = network().eval(), network().eval()

    with fast(model, BF16):
        rounded = model(x)
        with exact(model):
            inside = model(x)
            # Channels last sums in another order, so not bit for bit.
            assert off(inside, plain(x)) < 1e-6
            # And can be differentiated twice.
            x = x.requires_grad_()
            [first] = torch.autograd.grad(cross_entropy(model(x), y).sum(), x, create_graph=True)
            [second] = torch.autograd.grad(first.square().sum(), x)
            assert second.abs().max() > 0
        assert torch.equal(model(x), rounded)
        assert not torch.equal(inside, rounded)
    with exact(model):  # also where nothing is fast
        assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize(
    ("field", "device", "fields"),
    [
        ("precision", {True: "bf16", False: "fp32"}, {}),
        ("precision", {True: "fp32", False: "fp32"}, {"precision": "fp32"}),
        ("precision", {True: "bf16", False: "bf16"}, {"precision": "bf16"}),
    ],
)
def test_the_number_format_follows_the_device_unless_the_task_says_it(monkeypatch, field, device, fields):
    for quick, expected in device.items():
        monkeypatch.setattr(precision, "bf16_is_fast", lambda _, quick=quick: quick)
        engine = choose(Training(epochs=1, **fields), CPU, network(), lambda: 1e9)
        assert getattr(engine, field) == expected
        assert not engine.compiled
        assert engine.channels_last
        assert not choose(Training(epochs=1), CPU, nn.Linear(2, 2), lambda: 1).channels_last


@pytest.mark.parametrize(
    ("known", "quick"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"sve_bf16": True}, True),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_is_fast_at_bf16_when_it_has_the_instruction(monkeypatch, known, quick):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert bf16_is_fast(CPU) is quick
    assert not bf16_is_fast(torch.device("mps")), "a CPU's instructions are no other device's"


@pytest.mark.parametrize(("capability", "quick"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True)])
def test_a_gpu_is_fast_at_bf16_from_the_generation_that_multiplies_it(monkeypatch, capability, quick):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert bf16_is_fast(torch.device("cuda")) is quick


def test_by_itself_an_engine_is_plain():
    assert Engine() == Engine("fp32", channels_last=False, compiled=False, micro_batch=0, note="")


@pytest.mark.parametrize("last", [False, True])
def test_channels_lie_side_by_side_where_that_is_chosen(batch, last: bool):
    model, seen = network(), list[Tensor]()
    model[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[index]
    with fast(model, Engine(channels_last=last)):
        model(batch[0])
        kernels = [weight for weight in model.parameters() if weight.ndim == 4]
        assert {t.is_contiguous(memory_format=torch.channels_last) for t in [*kernels, *seen]} == {last}


def test_compiling_pays_only_for_long_jobs_on_a_device_that_gains(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    cuda = torch.device("cuda")

    def compiled(passes: float, **fields: Any) -> bool:
        return choose(Training(epochs=1, **fields), cuda, network(), lambda: passes).compiled

    assert [compiled(1_000), compiled(49_999), compiled(50_000), compiled(100_000)] == [False, False, True, True]
    assert [compiled(1_000, compile="on"), compiled(100_000, compile="off")] == [True, False]


def faulty(kind: str):
    """A compiler that goes wrong."""

    def compiler(forward: Any, **_: object) -> Any:
        if kind in ("raises", "asserts"):

            def compiled(model: nn.Module, x: Tensor) -> Tensor:
                raise RuntimeError("no C++ compiler\nmore lines") if kind == "raises" else AssertionError
        else:

            def compiled(model: nn.Module, x: Tensor) -> Tensor:
                return forward(model, x) * (1 if kind == "right" else 1.2 if kind == "wrong" else torch.nan)

        return compiled

    return compiler


@pytest.mark.parametrize(
    ("kind", "kept", "note"),
    [
        ("right", True, "compiled passes lie 0 of"),
        ("wrong", False, "differ by 0.2"),
        ("nan", False, "differ by nan"),
        ("raises", False, "not compiled: RuntimeError: no C++ compiler"),
        ("asserts", False, "not compiled: AssertionError: no reason given"),
    ],
)
def test_a_compiled_graph_that_is_wrong_is_not_used(monkeypatch, batch, kind, kept, note):
    monkeypatch.setattr(torch, "compile", faulty(kind))
    model = network()
    random = torch.get_rng_state()

    found = proven(model, Engine("fp32", channels_last=True, compiled=True), *batch)

    assert found.compiled is kept
    assert note in found.note
    assert "\n" not in found.note
    # The probe trained nothing and moved no statistics.
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), network().state_dict().values(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("name", "factor", "kept"),
    [("fp32", 1.0005, True), ("fp32", 1.0015, False), ("bf16", 1.04, True), ("bf16", 1.07, False)],
)
def test_how_far_compiled_passes_may_lie_from_eager_ones(monkeypatch, batch, name, factor, kept):
    def compiler(forward: Any, **_: object) -> Any:
        return lambda model, x: forward(model, x) + (factor - 1) * forward(model, x).detach().abs().max()

    monkeypatch.setattr(torch, "compile", compiler)
    found = proven(network(), Engine(name, channels_last=True, compiled=True), *batch)
    assert found.compiled is kept


def test_dropout_falls_alike_in_both_passes(monkeypatch, batch):
    monkeypatch.setattr(torch, "compile", faulty("right"))
    model = nn.Sequential(network(), nn.Dropout(0.5))
    assert proven(model, Engine(channels_last=True, compiled=True), *batch).compiled


def test_a_batch_that_shrinks_makes_no_graph_for_each_of_its_sizes(monkeypatch):
    """The whole batch and the next size have graphs of their own, and all others one."""
    torch.compiler.reset()  # the tests before have compiled this very forward pass
    made: list[bool] = []
    compiler = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(any(isinstance(i, torch.SymInt) for i in inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda forward, **options: compiler(forward, backend=backend, **options))
    model, plain = network().eval(), network().eval()
    with fast(model, Engine("fp32", channels_last=True, compiled=True)), torch.no_grad():
        for size in (16, 11, 16, 11):
            model(torch.rand(size, 2, 8, 8))
        assert made == [False, False]
        for size in (16, *range(15, 2, -1), 16):
            x = torch.rand(size, 2, 8, 8)
            torch.testing.assert_close(model(x), plain(x))
    assert made == [False, False, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_compiler_agrees_with_eager_passes(batch):
    found = proven(network(), Engine("bf16", channels_last=True, compiled=True), *batch)

    assert found.compiled, found.note
