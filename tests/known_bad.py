"""Defenses that are known to fool attacks instead of withstanding them, each built twice.

The two of a kind share nothing but the mistake: other layers, other names, another way to write it. What finds both
looked at the call. Each takes an honest network `inner` for 8x8 digits.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from advbench.data.base import Examples
from advbench.losses import cross_entropy

Build = Callable[[nn.Module], nn.Module]


def another_reader(train: Examples) -> nn.Module:
    """An honest network that is no relative of `digits_cnn`: tanh, no convolution, a last layer without a bias."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 10, bias=False))
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(6):
            for rows in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                cross_entropy(model(train.pixels(rows)), train.labels[rows]).mean().backward()
                optimizer.step()
    model.zero_grad()
    return model


class Before(nn.Module):
    """Something done to the image first."""

    def __init__(self, change: Callable[[Tensor], Tensor], inner: nn.Module) -> None:
        super().__init__()
        self.change, self.inner = change, inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


class After(nn.Module):
    """Something done to the logits last."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.change = inner, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.body(images))


# Gradient killers: the image as it is, to the eye and to the network.


class _Killed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return torch.zeros_like(grads[0])


# Quantised input: eight levels of grey.


def palette(x: Tensor) -> Tensor:
    """The same by looking up the nearest of a list of greys: integers have no gradient at all."""
    greys = torch.linspace(0, 1, 8)
    return greys[torch.bucketize(x, (greys[1:] + greys[:-1]) / 2)]


# Probabilities for logits.


def normalised_exponentials(z: Tensor) -> Tensor:
    powers = (z - z.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


# Noise: of torch's global stream, and of a stream of its own.


class Jitter(nn.Module):
    """Rolls all images by up to a pixel, by a coin that no global seed reaches."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net, self.coin = inner, np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.roll(tuple(int(n) for n in self.coin.integers(-1, 2, 2)), (2, 3)))


# Temperature 1e-4: softmax is 0 or 1 in float32, and so is its gradient 0.


def large_weights(inner: nn.Module) -> nn.Module:
    grown = deepcopy(inner)
    last = [module for module in grown.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= 1e4
    return grown


# Batch norm in training mode.


class Standardised(nn.Module):
    """By hand, with the mean and the deviation of this very batch; then to about where the pixels were."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.rest = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(0.3 + 0.37 * (x - x.mean()) / (x.std() + 1e-3))


class NeverInEval(nn.Module):
    """`eval()` does not reach its batch norm, whose running statistics move at every pass."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.trunk = nn.BatchNorm2d(1), inner
        nn.init.constant_(self.norm.weight, 0.37)
        nn.init.constant_(self.norm.bias, 0.3)

    def train(self, mode: bool = True) -> NeverInEval:
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(self.norm(x))


# JPEG: through bytes, where no gradient follows.


def through_pillow(x: Tensor) -> Tensor:
    decoded = []
    for image in x:
        file = io.BytesIO()
        Image.fromarray((255 * image[0]).round().to(torch.uint8).numpy()).save(file, "JPEG", quality=75)
        decoded.append(torch.from_numpy(np.asarray(Image.open(file), dtype=np.float32))[None] / 255)
    return torch.stack(decoded)


class OneLargeFile(nn.Module):
    """All images in one column and one file: JPEG's blocks are 8x8 pixels too. `numpy()` refuses a gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.reader = inner

    def forward(self, x: Tensor) -> Tensor:
        with io.BytesIO() as file:
            Image.fromarray(np.rint(255 * x.numpy().reshape(-1, 8)).astype(np.uint8)).save(file, "JPEG", quality=60)
            column = np.array(Image.open(file), dtype=np.float32)
        return self.reader(torch.from_numpy(column / 255).reshape(x.shape))


# Optimisation in the forward: the image is moved to where the model is surer, then classified.


class SurerFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = x if x.requires_grad else x.detach().requires_grad_()
            sure = self.inner(moved).logsumexp(1).sum()
            (slope,) = torch.autograd.grad(sure, moved, create_graph=True)
        return self.inner(x + 0.02 * slope.detach().sign())


class Counterstep(nn.Module):
    """An optimizer of torch moves a shift of the whole batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.f = inner

    def forward(self, x: Tensor) -> Tensor:
        shift = torch.zeros_like(x[:1], requires_grad=True)
        optimizer = torch.optim.SGD([shift], lr=1e-3)
        with torch.enable_grad():
            (-self.f(x.detach() + shift).amax(1).mean()).backward(inputs=[shift])
        optimizer.step()
        return self.f(x + shift.detach())


# Logits that are not finite.


class Normalised(nn.Module):
    """Divides by the first pixel, which is black in most digits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.features = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) / (x[:, 0, 0, :1] > 0)


# Shattered gradients: right answers, slopes that point anywhere.


def ripple(x: Tensor) -> Tensor:
    """A wave too small to be seen and too steep to be climbed: its slope is up to 20 times the image's own."""
    return x + 1e-3 * torch.sin(2e4 * x)


class _Scrambled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(0)
        return torch.randn(grads[0].shape, generator=source) * grads[0].abs()


# A gradient on the data alone: one step from an image is well aimed, and the next one is blind.


def on_the_grid(x: Tensor) -> Tensor:
    """Digits have pixels of k/16; whoever has other ones gets no gradient."""
    on = (16 * x == (16 * x).round()).flatten(1).all(1)
    return torch.where(on[:, None, None, None], x, x.detach())


class _OnlyFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward((x * 16 % 1 == 0).flatten(1).all(1))
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (clean,) = ctx.saved_tensors
        return grads[0] * clean.view(-1, 1, 1, 1)


KNOWN: dict[str, tuple[str, Build, Build]] = {
    "gradient killer": (
        "zero-gradient",
        lambda inner: Before(_Killed.apply, inner),
        lambda inner: Before(lambda x: torch.floor(x * 2**16) / 2**16, inner),
    ),
    "quantised input": (
        "zero-gradient",
        lambda inner: Before(lambda x: torch.round(8 * x) / 8, inner),
        lambda inner: Before(palette, inner),
    ),
    "softmax output": (
        "softmax-output",
        lambda inner: nn.Sequential(inner, nn.Softmax(1)),
        lambda inner: After(inner, normalised_exponentials),
    ),
    "random noise": ("stochastic", lambda inner: Before(lambda x: x + 0.1 * torch.randn_like(x), inner), Jitter),
    "temperature 1e-4": ("zero-gradient", lambda inner: After(inner, lambda z: z / 1e-4), large_weights),
    "batch norm in training mode": ("batch-dependent", Standardised, NeverInEval),
    "jpeg": ("zero-gradient", lambda inner: Before(lambda x: through_pillow(x.detach()), inner), OneLargeFile),
    "optimisation in the forward": ("optimises-in-forward", SurerFirst, Counterstep),
    "non-finite logits": (
        "non-finite-logits",
        lambda inner: After(inner, lambda z: (z.softmax(1) - 0.1).log()),
        Normalised,
    ),
    "shattered gradient": (
        "black-box-beats-white-box",
        lambda inner: Before(ripple, inner),
        lambda inner: Before(_Scrambled.apply, inner),
    ),
    "gradient on the data alone": (
        "one-step-beats-many",
        lambda inner: Before(on_the_grid, inner),
        lambda inner: Before(_OnlyFirst.apply, inner),
    ),
}
"""The flag that a kind must raise, and its two builds."""
