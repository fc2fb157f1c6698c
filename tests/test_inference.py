"""Faster passes: the same function as the model's own, or the model itself; nothing of the model is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.base import fooled
from advbench.inference import Engines, Quick, folded, quick
from advbench.models.base import Model
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.mnist_cnn import MnistCnn
from advbench.models.preact_resnet18 import PreActResNet18
from advbench.models.resnet18 import ResNet18
from advbench.models.wrn_28_10 import Wrn2810


def lived_in(model: Model, shape: tuple[int, int, int]) -> nn.Module:
    """A network whose batch norms have statistics and scales of their own, as after training."""
    torch.manual_seed(0)
    net = model.build(shape, 10).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 2),
                (module.bias, -0.5, 0.5),
            ):
                values.data.uniform_(low, high)
    return net.eval().requires_grad_(False)


def count(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (DigitsCnn(), 0),
        (ResNet18(), 0),
        # What stands before an activation, and not behind a convolution alone, stays: 8 at the blocks' doors, one at
        # the end.
        (PreActResNet18(), 9),
        (Wrn2810(depth=10, widen=1), 4),
    ],
)
def test_folding_is_exact(model: Model, left: int):
    net = lived_in(model, (3, 8, 8))
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)

    graph = folded(net)

    # Folding multiplies a norm's scale into the weights: nothing but float64's own rounding is left.
    assert (graph(x) - net(x)).abs().max() <= 1e-12 * net(x).abs().max()
    used = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    modules = dict(graph.named_modules())
    assert sum(isinstance(modules[str(name)], nn.BatchNorm2d) for name in used) == left


@pytest.mark.parametrize("model", [MnistCnn(), ResNet18(), PreActResNet18()])
def test_a_quick_model_is_the_same_function_and_leaves_the_model_alone(model: Model):
    net = lived_in(model, (3, 8, 8)).float()
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(5, 3, 8, 8)

    fast = quick(net, x, "fp32")

    assert isinstance(fast, Quick)
    torch.testing.assert_close(fast(x), net(x), rtol=0, atol=1e-5 * float(net(x).abs().max()))
    rough = quick(net, x, "bf16")(x)
    assert rough.dtype == torch.float32
    # bf16 keeps 8 bits: it differs, and by little.
    assert 1e-5 < float((rough - net(x)).abs().max() / net(x).abs().max()) < 0.1
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert fast.judge is net
    assert net not in list(fast.modules())


class Twice(nn.Module):
    """One convolution in two places, of which one has a batch norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(2)
        self.norm.running_var = torch.tensor([4.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(self.conv(x)))).flatten(1)


class Noisy(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.rand_like(x))


class Branching(Twice):
    """A forward pass that torch.fx cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


class Counter(Twice):
    """What it answers depends on how often it was asked: a copy starts somewhere else."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls // 2


def test_a_shared_convolution_is_not_folded():
    net = Twice().double().eval()
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(folded(net)(x), net(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", [Noisy, Counter])
def test_what_cannot_be_copied_faithfully_stays_as_it_is(kind: type[nn.Module]):
    net = kind().eval()
    assert quick(net, torch.rand(2, 1, 4, 4), "bf16") is net


def test_what_cannot_be_traced_runs_unfolded():
    net = Branching().eval().requires_grad_(False)
    x = torch.rand(2, 1, 4, 4)
    fast = quick(net, x, "fp32")
    assert isinstance(fast, Quick)
    torch.testing.assert_close(fast(x), net(x))


def test_float64_is_left_alone():
    net = Twice().double().eval()
    assert quick(net, torch.rand(2, 1, 4, 4, dtype=torch.float64), "fp32") is net


def test_gradients_to_the_images_are_the_model_s_own():
    net = lived_in(ResNet18(), (3, 8, 8)).float()
    fast = quick(net, torch.rand(2, 3, 8, 8), "fp32")

    def gradient(model: nn.Module) -> Tensor:
        x = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
        return torch.autograd.grad(model(x).square().sum(), x)[0]

    assert isinstance(fast, Quick)
    torch.testing.assert_close(gradient(fast), gradient(net), rtol=0, atol=1e-4 * float(gradient(net).abs().max()))


def test_only_what_the_judge_finds_wrong_is_fooled():
    """Rounded logits say wrong, wrong, right; the exact model says wrong, right (and is not asked of the third)."""
    asked: list[Tensor] = []

    class Rounded(nn.Module):
        def judge(self, x: Tensor) -> Tensor:
            asked.append(x)
            return torch.tensor([[0.0, 1.0], [1.0, 0.0]])

    x, y = torch.arange(3.0)[:, None], torch.zeros(3, dtype=torch.int64)
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])

    assert fooled(Rounded(), x, logits, y).tolist() == [True, False, False]
    assert torch.equal(asked[0], x[:2])
    assert fooled(nn.Identity(), x, logits, y).tolist() == [True, True, False]
    assert fooled(nn.Identity(), x, torch.tensor([[0.0, 1.0], [0.0, torch.inf], [torch.nan, 1.0]]), y).tolist() == [
        True,
        False,
        False,
    ]


def test_a_copy_is_tried_on_fewer_images_where_the_memory_is_short(monkeypatch: pytest.MonkeyPatch):
    model, tried = nn.Identity(), list[int]()

    def short(made: nn.Module, x: Tensor, _: str) -> nn.Module:
        tried.append(len(x))
        assert len(tried) < 9, "it would be tried for ever"
        if len(x) > room:
            raise torch.OutOfMemoryError
        return made

    monkeypatch.setattr("advbench.inference.quick", short)
    room = 2
    assert Engines(model, torch.zeros(9, 1, 1, 1)).of("fp32") is model
    assert tried == [9, 4, 2]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        Engines(model, torch.zeros(2, 1, 1, 1)).of("fp32")
    assert tried == [9, 4, 2, 2, 1]


class Offset(nn.Module):
    """Two answers, the smaller of them a little too large."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self.off = off

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + torch.tensor([self.off, 0.0])


@pytest.mark.parametrize(("off", "how"), [(1.0, "folded"), (1.5, "copy"), (-1.5, "copy")])
def test_a_copy_may_be_off_by_a_ten_thousandth_of_the_largest_logit(monkeypatch: pytest.MonkeyPatch, off, how):
    monkeypatch.setattr("advbench.inference.folded", lambda _: torch.fx.symbolic_trace(Offset(off)))
    engines = Engines(Offset(0), torch.tensor([0.0, -1e4]).view(1, 2, 1, 1))

    assert engines.told() == {}
    engines.of("fp32")
    engines.of("bf16")
    assert engines.told() == {"bf16": how, "fp32": how}


def test_copies_are_made_once_and_their_kind_is_told(monkeypatch: pytest.MonkeyPatch):
    made: list[nn.Module] = []
    monkeypatch.setattr("advbench.inference.quick", lambda *told: made.append(quick(*told)) or made[-1])
    x = torch.rand(2, 1, 4, 4)

    for net, how in ((Twice(), "folded"), (Branching(), "copy"), (Noisy(), "the model itself")):
        engines = Engines(net.eval(), x)
        assert engines.of(None) is net
        assert engines.of("fp32") is engines.of("fp32") is made[-1]
        assert engines.told() == {"fp32": how}
    assert len(made) == 3


def test_norms_behind_norms_are_folded_too():
    norms = [nn.BatchNorm2d(2, dtype=torch.float64) for _ in range(2)]
    net = nn.Sequential(nn.Conv2d(1, 2, 3, dtype=torch.float64), *norms, nn.Flatten()).eval()
    for number, norm in enumerate(norms):
        norm.running_mean, norm.running_var = torch.tensor([[1.0, 2.0], [3.0, 4.0 + number]], dtype=torch.float64)
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)

    graph = folded(net)
    torch.testing.assert_close(graph(x), net(x), rtol=1e-12, atol=0)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "3"]


def test_a_model_with_one_wide_parameter_is_left_alone():
    net = Twice().eval()
    net.register_parameter("wide", nn.Parameter(torch.zeros(1, dtype=torch.float64)))

    assert quick(net, torch.rand(2, 1, 4, 4), "fp32") is net


@pytest.mark.parametrize("kind", [Twice, nn.Flatten])
def test_only_convolutions_see_channels_last(kind: type[nn.Module]):
    x, seen = torch.rand(2, 3, 4, 4)[:, :2], list[Tensor]()
    convolves = kind is Twice
    net = kind().eval()
    if convolves:
        net.conv = nn.Conv2d(2, 2, 1)
        net.norm = nn.BatchNorm2d(2).eval()

    fast = quick(net, x, "fp32")
    assert isinstance(fast, Quick)
    fast.inside.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    fast(x)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == convolves
    wide = [value for value in fast.state_dict().values() if value.ndim == 4 and value.shape[2:] == (3, 3)]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in wide)
