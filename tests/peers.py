"""What tests share that ask attacks and networks of others for the same: small networks, images, and those others."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
HELD = {"Linf": 0.02, "L2": 0.15, "L1": 1.5}
"""Radii at which some examples of `net` fall and some stand."""


def noise(n: int, seed: int = 0, rows: Tensor | None = None) -> BlockNoise:
    """The random numbers of n examples, or of those in `rows` among them."""
    return BlockNoise(torch.device("cpu"), seed, n, torch.arange(n) if rows is None else rows)


def images(*shape: int) -> Tensor:
    """Pixels of which three in ten are black, so that the box binds."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    return torch.where(x < 0.3, 0, x)


def net(channels: int, size: int, classes: int = 10) -> nn.Module:
    """A small convnet with random weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        layers = nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * size * size, classes)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def smooth(classes: int) -> nn.Module:
    """A small network without kinks, so that equal paths stay equal."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, classes))
    return model.eval().requires_grad_(False)


def gradient_points(model: nn.Module, run: Any) -> list[Tensor]:
    """Where the model is asked for gradients, in order."""
    points: list[Tensor] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].requires_grad:
            points.append(inputs[0].detach().clone())

    handle = model.register_forward_pre_hook(look)
    run()
    handle.remove()
    return points


def fell(model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Who is misread at a point of the ball (B,)."""
    return (model(x_adv).argmax(1) != y) & threat.contains(x_adv, x)


def square(model: nn.Module, threat: Threat, queries: int, seed: int = 0, *, rescale: bool = False) -> SquareAttack:
    """The package's."""
    return SquareAttack(
        model, norm=threat.norm, eps=threat.eps, n_queries=queries, seed=seed, device="cpu", resc_schedule=rescale
    )


def architecture(family: str) -> Any:
    """robustbench's file of a family of networks, such as "resnet"; without it the test is skipped."""
    package = find_spec("robustbench")
    if package is None or package.origin is None:
        pytest.skip("robustbench is not installed")
    # The one file, because importing the package imports every model family it knows.
    file = Path(package.origin).parent / "model_zoo" / "architectures" / f"{family}.py"
    spec = spec_from_file_location("_theirs", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
