"""The operators behind common corruptions, on batches: Hendrycks and Dietterich 2019 (arXiv 1903.12261), appendix A.

Each takes images (B, C, H, W) in [0, 1], the examples' random numbers and its own parameters, and gives images of that
shape, which may leave [0, 1]. Filters and resamplings are scipy's and Pillow's: what is linear and separable is made
by them once for each side, as a matrix, and then applied to a whole batch on its device.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import scipy  # whose ndimage loads when it is first used: every start of the command would wait for it
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

Matrix = NDArray[np.float64]


class Draws:
    """Random numbers that belong to examples: one generator each, on the CPU, so that every device meets the same."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.device = device

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1), (B, *shape)."""
        return self._each(lambda source: torch.randn(shape, generator=source))

    def uniform(self, *shape: int, low: float = 0, high: float = 1) -> Tensor:
        """U(low, high), (B, *shape)."""
        return self._each(lambda source: torch.rand(shape, generator=source)) * (high - low) + low

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform on low, ..., high - 1, (B, *shape) int64."""
        return self._each(lambda source: torch.randint(low, high, shape, generator=source))

    def poisson(self, rates: Tensor) -> Tensor:
        """Counts at `rates` (B, ...), of that shape."""
        pairs = zip(rates.cpu(), self.generators, strict=True)
        return torch.stack([torch.poisson(rate, source) for rate, source in pairs]).to(self.device)

    def _each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([draw(source) for source in self.generators]).to(self.device)


def gaussian_noise(x: Tensor, draw: Draws, deviation: float) -> Tensor:
    """x + N(0, deviation^2) in every channel of every pixel."""
    return x + deviation * draw.normal(*x.shape[1:])


def shot_noise(x: Tensor, draw: Draws, photons: float) -> Tensor:
    """A Poisson count of `photons` at white, in units of white."""
    return draw.poisson(photons * x) / photons


def impulse_noise(x: Tensor, draw: Draws, share: float) -> Tensor:
    """A `share` of all values becomes 0 or 1, each as often."""
    u = draw.uniform(*x.shape[1:])
    return torch.where(u < share, (u < share / 2).to(x), x)


def defocus_blur(x: Tensor, draw: Draws, radius: float, sigma: float) -> Tensor:
    """Convolution with a disk of that radius, its edge smoothed by a Gaussian of `sigma`, both in pixels."""
    del draw
    kernel = torch.from_numpy(disk(radius, sigma)).to(x)
    reach = len(kernel) // 2
    padded = functional.pad(x, (reach, reach, reach, reach), mode="reflect")
    return functional.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None]).view_as(x)


@lru_cache
def disk(radius: float, sigma: float) -> Matrix:
    """The kernel of `defocus_blur`, (2 k + 1, 2 k + 1), of sum 1; the Gaussian has 3 taps, or 5 above radius 8."""
    half = max(8, math.floor(radius))
    squares = np.arange(-half, half + 1) ** 2
    inside = (squares[:, None] + squares <= radius**2).astype(float)
    smooth = scipy.ndimage.gaussian_filter(inside / inside.sum(), sigma, mode="mirror", radius=1 if radius <= 8 else 2)
    edge = int(np.flatnonzero(smooth.any(1))[0])
    return smooth[edge : len(smooth) - edge, edge : len(smooth) - edge]


def glass_blur(x: Tensor, draw: Draws, sigma: float, reach: float, times: float) -> Tensor:
    """Pixels take the place of others at most `reach` away, `times` over, between two Gaussian blurs of `sigma`.

    From the lower right to the upper left each pixel becomes a copy of its random neighbour, which is what the
    published images hold: their generator meant to swap the two, and on colour images did not.
    """
    (count, channels, height, width), reach, times = x.shape, int(reach), int(times)
    inside = np.arange(height * width).reshape(height, width)[
        reach + 1 : height - reach + 1, reach + 1 : width - reach + 1
    ]
    spots = np.tile(inside.flatten()[::-1], times)
    steps = draw.integers(-reach, reach, 2, len(spots)).cpu().numpy()
    sources = (spots + steps[:, 0] * width + steps[:, 1]).T
    taken = np.arange(height * width)[:, None].repeat(count, 1)
    everyone = np.arange(count)
    for spot, source in zip(spots, sources, strict=True):
        taken[spot] = taken[source, everyone]
    index = torch.from_numpy(taken.T).to(x.device)[:, None].expand(-1, channels, -1)
    return blur(blur(x, sigma).flatten(2).gather(2, index).view_as(x), sigma)


def blur(x: Tensor, sigma: float, mode: str = "nearest", truncate: float = 4) -> Tensor:
    """scipy's Gaussian filter over height and width, with its names of what lies beyond the border."""
    return separable(x, lambda side: _gaussian(side, sigma, mode, truncate))


def separable(x: Tensor, matrix: Callable[[int], Matrix]) -> Tensor:
    """The matrix (side, side) of each side applied along it."""
    rows, columns = (torch.from_numpy(matrix(side)).to(x) for side in x.shape[2:])
    return rows @ x @ columns.T


@lru_cache
def _gaussian(side: int, sigma: float, mode: str, truncate: float) -> Matrix:
    if sigma == 0:
        return np.eye(side)
    return scipy.ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=mode, truncate=truncate)


def motion_blur(x: Tensor, draw: Draws, radius: float, sigma: float) -> Tensor:
    """A trail within 45 degrees of the horizontal."""
    return trail(x, draw.uniform(low=-45, high=45), int(radius), sigma)


def trail(x: Tensor, degrees: Tensor, radius: int, sigma: float) -> Tensor:
    """ImageMagick's motion blur at `degrees` (B,): half a Gaussian along the pixels that a line of 2 radius + 1 meets.

    Beyond the border the image goes on with its border's pixels.
    """
    height, width = x.shape[2:]
    taps = torch.arange(2 * radius + 1, device=x.device)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = torch.deg2rad(degrees)[:, None]
    down, right = ((taps * part - 0.5).ceil().long()[:, :, None] for part in (angle.sin(), angle.cos()))
    rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + right).clamp(0, width - 1)
    # Channels last while indexing: one index for each pixel instead of one for each channel of it.
    last, image = x.permute(0, 2, 3, 1), torch.arange(len(x), device=x.device)[:, None, None]
    total = torch.zeros_like(last)
    for tap, weight in enumerate(weights):
        total += weight * last[image, rows[:, tap, :, None], columns[:, tap, None]]
    return total.permute(0, 3, 1, 2).contiguous()


def zoom_blur(x: Tensor, draw: Draws, stop: float, step: float) -> Tensor:
    """The mean of the image and of its zooms by 1, 1 + step, ... below `stop` (numpy.arange, which may reach it)."""
    del draw
    factors = np.arange(1, stop, step)
    return (x + sum(zoomed(x, float(factor)) for factor in factors)) / (len(factors) + 1)


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The centre of x, enlarged `factor` times to x's size by scipy's linear spline, in whole pixels."""
    return separable(x, lambda side: _zoom(side, factor))


@lru_cache
def _zoom(side: int, factor: float) -> Matrix:
    kept = math.ceil(side / factor)
    top = (side - kept) // 2
    large: Matrix = np.asarray(scipy.ndimage.zoom(np.eye(side)[top : top + kept], (factor, 1), order=1))
    spare = (len(large) - side) // 2
    return large[spare : spare + side]


def snow(
    x: Tensor,
    draw: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
) -> Tensor:
    """Flakes N(mean, deviation^2), zoomed, those below `threshold` left out, falling within 45 degrees of the vertical.

    The image keeps that share of itself and gives the rest to a whitened grey one.
    """
    flakes = zoomed(mean + deviation * draw.normal(1, *x.shape[2:]), zoom)
    flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
    flakes = trail(flakes, draw.uniform(low=-135, high=-45), int(radius), sigma)
    # ITU-R BT.601 luma.
    grey = x if x.shape[1] == 1 else (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    white = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey + 0.5)
    return white + flakes + flakes.flip(2, 3)


def fog(x: Tensor, draw: Draws, thickness: float, decay: float) -> Tensor:
    """x plus `thickness` times a plasma fractal, scaled so that its brightest value m is what m alone was."""
    height, width = x.shape[2:]
    side = 2 ** math.ceil(math.log2(max(height, width)))
    clouds = plasma(draw, side, decay)[:, None, :height, :width]
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * clouds) * brightest / (brightest + thickness)


def plasma(draw: Draws, side: int, decay: float) -> Tensor:
    """A height map by diamonds and squares on a torus, (B, side, side) from 0 to 1; `side` is a power of two.

    Fournier, Fussell and Carpenter 1982. Each place is the mean of four neighbours, plus noise whose width falls by
    decay^2 from one level to the next.
    """
    heights = torch.zeros(len(draw.generators), side, side, device=draw.device)
    step, noise = side, 1.0

    def rough(four: Tensor) -> Tensor:
        return four / 4 + noise * draw.uniform(*four.shape[1:], low=-1)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = rough(pairs + pairs.roll(-1, 2))
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = rough(centres + centres.roll(1, 1) + corners + corners.roll(-1, 2))
        heights[:, half::step, ::step] = rough(centres + centres.roll(1, 2) + pairs)
        step, noise = half, noise / decay**2
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


def brightness(x: Tensor, draw: Draws, shift: float) -> Tensor:
    """HSV's value plus `shift`, at most 1, with hue and saturation kept."""
    del draw
    value = x.amax(1, keepdim=True)
    brighter = (value + shift).clamp(max=1)
    return torch.where(value > 0, x * (brighter / value), brighter)


def contrast(x: Tensor, draw: Draws, factor: float) -> Tensor:
    """Differences from each channel's mean, times `factor`."""
    del draw
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, draw: Draws, amplitude: float, sigma: float, jitter: float) -> Tensor:
    """A random affine map, then displacements U(-amplitude, amplitude) smoothed by a Gaussian; in shares of the side.

    The affine map moves three points around the centre by U(-jitter, jitter) each way.
    """
    count, (height, width) = len(x), x.shape[2:]
    side = min(height, width)
    third = side // 3
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]]) * third + torch.tensor([width // 2, height // 2])
    before = corners.to(x.device, torch.float64)
    after = before + draw.uniform(3, 2, low=-jitter, high=jitter) * side
    back = torch.linalg.solve(functional.pad(after, (0, 1), value=1), before.expand(count, -1, -1))
    places = torch.meshgrid(*(torch.arange(n, device=x.device) for n in (width, height)), indexing="xy")
    grid = torch.stack(places, 2).double()
    source = (functional.pad(grid, (0, 1), value=1).flatten(0, 1) @ back).view(count, height, width, 2)
    size = torch.tensor([width, height], device=x.device)
    # Beyond the border: d c b | a b c d | c b a, and then d c b a | a b c d | d c b a, as published.
    x = functional.grid_sample(x, (2 * source / (size - 1) - 1).to(x), padding_mode="reflection", align_corners=True)
    noise = draw.uniform(2, height, width, low=-1)
    moved = grid + blur(noise, sigma * side, "reflect", 3).permute(0, 2, 3, 1) * amplitude * side
    return functional.grid_sample(x, ((2 * moved + 1) / size - 1).to(x), padding_mode="reflection", align_corners=False)


def pixelate(x: Tensor, draw: Draws, share: float) -> Tensor:
    """Pillow's box filter down to that share of the side, and up again."""
    del draw
    return separable(x, lambda side: _boxes(side, int(side * share)))


@lru_cache
def _boxes(side: int, small: int) -> Matrix:
    image = Image.fromarray(np.eye(side, dtype=np.float32))
    for height in (small, side):
        image = image.resize((side, height), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def jpeg_compression(x: Tensor, draw: Draws, quality: float) -> Tensor:
    """Pillow's JPEG of that quality, there and back, in bytes."""
    del draw
    stored = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    found: list[NDArray[np.uint8]] = []
    for image in stored:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as read:
            found.append(np.asarray(read).reshape(image.shape))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(x) / 255
