"""What every model family owes to attacks, defenses and collectors, whatever its architecture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advbench.models.base import Model, Shape
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.models.mnist_cnn import MnistCnn
from advbench.models.preact_resnet18 import PreActResNet18

MODELS = [Linear(), Mlp(), Mlp(hidden=(7,)), DigitsCnn(), MnistCnn(), PreActResNet18(mean=(0.5,), std=(0.25,))]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{getattr(m, 'hidden', '')}")


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
def test_no_relu_writes_in_place(model: Model) -> None:
    assert not any(module.inplace for module in built(model).modules() if isinstance(module, nn.ReLU))


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_double_backward_is_the_derivative_of_the_gradient(model: Model, training: bool) -> None:
    network = built(model).double().train(training)
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    y = torch.tensor([0, 1, 2, 4])

    def gradient(at: Tensor) -> Tensor:
        at = at.requires_grad_()
        loss = F.cross_entropy(network(at), y, reduction="sum")
        return torch.autograd.grad(loss, at, create_graph=True)[0]

    at = x.clone()
    [exact] = torch.autograd.grad((gradient(at) * v).sum(), at)
    # Small enough that no ReLU changes side, large enough for rounding.
    step = 1e-7
    nearby = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    assert exact.norm() > 0
    torch.testing.assert_close(exact, nearby.detach(), rtol=1e-3, atol=1e-5 * float(exact.norm()))
