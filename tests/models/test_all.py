"""What every model family owes to attacks, defenses and collectors, whatever its architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fields import fields
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from advbench import find
from advbench.models.base import Model, Normalized, Shape
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.library import Library
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.models.mnist_cnn import MnistCnn
from advbench.models.preact_resnet18 import PreActResNet18
from advbench.models.resnet18 import ResNet18
from advbench.models.wrn_28_10 import Wrn2810

GREY: dict[str, Any] = {"mean": (0.5,), "std": (0.25,)}
LIBRARIES = [find.named(Model, {"name": name, **GREY}) for name in ("torchvision:shufflenet_v2_x0_5", "timm:resnet10t")]
MODELS = [
    *(Linear(), Mlp(), Mlp(hidden=(7,)), DigitsCnn(), MnistCnn()),
    *(PreActResNet18(**GREY), ResNet18(**GREY), Wrn2810(depth=10, widen=1, **GREY), *LIBRARIES),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{getattr(m, 'hidden', '')}")


def test_every_file_of_the_folder_is_here() -> None:
    assert {model.name.partition(":")[0] for model in MODELS} == set(find.names(find.PACKAGE / "models"))


FIELDS = """
model.extra_data null length >= 1
model.pretrained null
model.pretrained_sha256 null like ^[0-9a-f]{64}$
normalized.mean [0.4914, 0.4822, 0.4465] items >= 1
normalized.std [0.2471, 0.2435, 0.2616] items >= 1 > 0
library.stem "auto"
mlp.hidden [128, 128] items >= 1 >= 1
resnet18.width 64 >= 1 <= 1024
timm.patch_size null >= 1
wrn-28-10.depth 28 >= 10
wrn-28-10.widen 10 >= 1
"""
"""Every field with its default, which tasks/README.md names, and its bounds."""


def test_fields_have_the_defaults_of_the_manual_and_bounds() -> None:
    bases = fields("model", Model) + fields("normalized", Normalized) + fields("library", Library)
    names = sorted(find.names(find.PACKAGE / "models"))

    own = [line for name in names for line in fields(name, find.part(Model, name))]

    assert bases + own == FIELDS.split("\n")[1:-1]


def built(model: Model, shape: Shape = (3, 8, 8), classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return model.build(shape, classes)


@every_model
@pytest.mark.parametrize("classes", [2, 13])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 9), (4, 4, 7)])
def test_any_shape_and_class_count(model: Model, shape: Shape, classes: int) -> None:
    logits = built(model, shape, classes).eval()(torch.rand(2, *shape))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()
    # Different images get different answers: nothing is multiplied by a zero-sized feature map.
    assert not torch.equal(logits[0], logits[1])


@every_model
def test_the_start_is_torchs_global_seed(model: Model) -> None:
    one, same = built(model).state_dict(), built(model).state_dict()
    other = model.build((3, 8, 8), 5).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every_model
def test_an_example_does_not_see_its_batch_when_evaluated(model: Model) -> None:
    network = built(model).double().eval()
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-12, atol=1e-12)


@every_model
def test_evaluation_changes_no_state(model: Model) -> None:
    network = built(model).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.rand(4, 3, 8, 8)
    kept = x.clone()
    network(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@every_model
def test_nothing_writes_in_place(model: Model) -> None:
    assert not any(getattr(module, "inplace", False) for module in built(model).modules())


@every_model
def test_weights_survive_a_file(model: Model) -> None:
    network = built(model).train()
    network(torch.rand(4, 3, 8, 8))  # batch statistics that are not those of the start
    torch.manual_seed(1)
    again = model.build((3, 8, 8), 5)
    again.load_state_dict(load(save({name: value.contiguous() for name, value in network.state_dict().items()})))
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), network.eval()(x))


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_double_backward_is_the_derivative_of_the_gradient(model: Model, training: bool) -> None:
    network = built(model).double()
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    # With the statistics of a start the signal dies on its way through a deep network; give it those of the data.
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    network.train()(x)
    network.train(training)
    y = torch.tensor([0, 1, 2, 4])

    def gradient(at: Tensor) -> Tensor:
        at = at.requires_grad_()
        loss = F.cross_entropy(network(at), y, reduction="sum")
        return torch.autograd.grad(loss, at, create_graph=True)[0]

    at = x.clone()
    [exact] = torch.autograd.grad((gradient(at) * v).sum(), at)
    # Small enough that no ReLU changes side, large enough for rounding.
    step = 1e-9
    nearby = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    assert exact.norm() > 0
    torch.testing.assert_close(exact, nearby.detach(), rtol=1e-3, atol=1e-5 * float(exact.norm()))
