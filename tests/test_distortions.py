"""Each operator that moves or mixes pixels, against the library's own filter on whole images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from smooth_images import draws, smooth
from torch import Tensor

from advbench import distortions

CPU = torch.device("cpu")


LIMITS = {
    "gaussian_noise": (0,),
    "impulse_noise": (0,),
    "defocus_blur": (0, 0.01),
    "glass_blur": (0, 1, 0),
    "motion_blur": (0, 1),
    "zoom_blur": (1.005, 0.01),
    "snow": (0, 0, 1.5, 0.1, 3, 1, 1),
    "fog": (0, 2),
    "brightness": (0,),
    "contrast": (1,),
    "elastic_transform": (0, 0, 0),
    "pixelate": (1,),
}


@pytest.mark.parametrize("name", LIMITS)
def test_at_no_strength_an_image_stays_what_it_is(name: str):
    x = smooth()
    torch.testing.assert_close(getattr(distortions, name)(x, draws(), *LIMITS[name]), x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("radius", [1.5, 3, 10])
def test_a_point_out_of_focus_is_a_disk(radius: float):
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    found = distortions.defocus_blur(x, draws(1), radius, 0.01)[0, 0]
    place = torch.arange(41) - 20
    disk = (place[:, None] ** 2 + place**2 <= radius**2).float()
    torch.testing.assert_close(found, disk / disk.sum(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("radius", "half", "reach"), [(6, 8, 1), (8, 8, 1), (10, 10, 2)])
def test_a_disk_s_edge_is_smoothed_over_one_pixel_or_two(radius: int, half: int, reach: int):
    place = np.arange(-half, half + 1) ** 2
    disk = np.pad((place[:, None] + place <= radius**2).astype(float), reach, mode="reflect")
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * 0.5**2))
    side = 2 * half + 1
    expected = (
        sum(
            one * other * disk[down : down + side, right : right + side]
            for down, one in enumerate(taps / taps.sum())
            for right, other in enumerate(taps / taps.sum())
        )
        / (place[:, None] + place <= radius**2).sum()
    )

    kernel = distortions.disk(radius, 0.5)
    spare = half - len(kernel) // 2
    assert spare == max(0, half - radius - reach), "no wider than it has to be"
    np.testing.assert_allclose(np.pad(kernel, spare), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "truncate"), [("nearest", 4), ("reflect", 3)])
@pytest.mark.parametrize("sigma", [0.4, 1.5, 9])
def test_a_blur_is_scipy_s(mode: str, truncate: float, sigma: float):
    x = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    expected = ndimage.gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode=mode, truncate=truncate)
    torch.testing.assert_close(
        distortions.blur(x, sigma, mode, truncate).double(), torch.from_numpy(expected), rtol=0, atol=1e-6
    )
    assert torch.equal(distortions.blur(x, sigma), distortions.blur(x, sigma, "nearest", 4)), "scipy's own width"


def test_glass_moves_pixels_one_after_another_each_with_its_draw():
    x, (reach, times) = smooth(3, 9, 12), (2, 2)
    found = distortions.glass_blur(x, draws(), 0, reach, times)

    steps = draws().integers(-reach, reach, 2, times * (9 - 2 * reach) * (12 - 2 * reach))
    for image, result, (down, right) in zip(x.clone(), found, steps, strict=True):
        moves = iter(zip(down.tolist(), right.tolist(), strict=True))
        for _ in range(times):
            for row in range(9 - reach, reach, -1):
                for column in range(12 - reach, reach, -1):
                    dy, dx = next(moves)
                    image[:, row, column] = image[:, row + dy, column + dx].clone()
        assert torch.equal(result, image)
    assert steps.min() == -reach
    assert steps.max() == reach - 1


def test_glass_blurs_before_and_after():
    x = smooth()
    found = distortions.glass_blur(x, draws(), 1.5, 1, 0)
    torch.testing.assert_close(found, distortions.blur(distortions.blur(x, 1.5), 1.5))


@pytest.mark.parametrize(("degrees", "step"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, None), (-25, None)])
def test_a_moving_point_leaves_half_a_gaussian(degrees: float, step: tuple[int, int] | None):
    x = torch.zeros(1, 2, 31, 31)
    x[0, :, 15, 15] = 1
    found = distortions.trail(x, torch.tensor([float(degrees)]), 4, 2.0)[0, 0]
    weights = [math.exp(-(i**2) / 8) for i in range(9)]
    expected = torch.zeros(31, 31)
    for i, weight in enumerate(weights):
        angle = math.radians(degrees)
        # What is seen at a place came from i pixels further on, to the nearest pixel.
        down, right = (i * step[0], i * step[1]) if step else (round(i * math.sin(angle)), round(i * math.cos(angle)))
        expected[15 - down, 15 - right] += weight / sum(weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters", "ends", "radius"),
    [("motion_blur", (10, 3), (-45, 45), 10), ("snow", (0.1, 0.3, 3, 0.5, 12, 4, 0.8), (-135, -45), 12)],
)
def test_trails_lie_within_45_degrees_of_their_direction(
    monkeypatch: pytest.MonkeyPatch, name: str, parameters: tuple[float, ...], ends: tuple[int, int], radius: int
):
    met: list[Tensor] = []

    def trail(x: Tensor, degrees: Tensor, reach: int, sigma: float) -> Tensor:
        assert (reach, sigma) == (radius, 3 if name == "motion_blur" else 4)
        met.append(degrees)
        return x

    monkeypatch.setattr(distortions, "trail", trail)
    getattr(distortions, name)(torch.zeros(1000, 1, 4, 4), draws(1000), *parameters)
    [degrees] = met
    # Of a thousand even draws over 90 degrees the outermost come within a degree of both ends.
    assert ends[0] <= degrees.min() < ends[0] + 1
    assert ends[1] - 1 < degrees.max() <= ends[1]


def test_a_trail_goes_on_with_the_border_and_keeps_a_constant():
    flat = torch.full((3, 1, 8, 8), 0.7)
    found = distortions.trail(flat, torch.tensor([-130.0, 0, 44]), 14, 12)
    torch.testing.assert_close(found, flat)
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., -1] = 1
    weights = torch.exp(-(torch.arange(13.0) ** 2) / 8)
    seen = [float(weights[7 - column :].sum() / weights.sum()) for column in range(8)]
    torch.testing.assert_close(distortions.trail(edge, torch.zeros(1), 6, 2)[0, 0, 3], torch.tensor(seen))


@pytest.mark.parametrize("side", [16, 28, 32])
def test_zooms_are_scipy_s_on_the_whole_image(side: int):
    image = np.random.default_rng(1).random((side, side))
    total, factors = image.copy(), np.arange(1, 1.26, 0.01)
    for factor in factors:
        kept = math.ceil(side / factor)
        top = (side - kept) // 2
        large = np.asarray(ndimage.zoom(image[top : top + kept, top : top + kept], factor, order=1))
        spare = (len(large) - side) // 2
        total += large[spare : spare + side, spare : spare + side]
    found = distortions.zoom_blur(torch.from_numpy(image)[None, None].float(), draws(1), 1.26, 0.01)
    expected = torch.from_numpy(total / (len(factors) + 1)).float()
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-6)


def test_an_affine_map_moves_three_points_as_drawn():
    side, jitter = 32, 0.05
    place = torch.arange(32.0)
    ramps = torch.stack([place.expand(32, 32), place[:, None].expand(32, 32)]).expand(4, -1, -1, -1) / 31
    found = distortions.elastic_transform(ramps, draws(), 0, 0, jitter)

    before = torch.tensor([[26, 26], [26, 6], [6, 6]])
    after = before + side * draws().uniform(3, 2, low=-jitter, high=jitter)
    for image, points in zip(found, after, strict=True):
        for (x, y), (x0, y0) in zip(points.tolist(), before.tolist(), strict=True):
            column, row = int(x), int(y)
            # A ramp stays linear under an affine map, so it may be read between the pixels.
            corner = image[:, row, column]
            across, down = image[:, row, column + 1] - corner, image[:, row + 1, column] - corner
            there = 31 * (corner + (x - column) * across + (y - row) * down)
            assert there.tolist() == pytest.approx([x0, y0], abs=1e-3)


def test_displacements_are_smoothed_noise_and_reflected_at_the_border():
    x, amplitude, sigma = smooth(2, 16, 24), 0.5, 0.05
    found = distortions.elastic_transform(x, draws(), amplitude, sigma, 0)

    source = draws()
    source.uniform(3, 2)
    noise = source.uniform(2, 16, 24, low=-1).double().numpy()
    field = 16 * amplitude * ndimage.gaussian_filter(noise, (0, 0, 16 * sigma, 16 * sigma), mode="reflect", truncate=3)
    assert np.abs(field).max() > 3
    for image, result, (right, down) in zip(x.double().numpy(), found, field, strict=True):
        rows, columns = np.meshgrid(np.arange(16), np.arange(24), indexing="ij")
        for channel, got in zip(image, result, strict=True):
            expected = ndimage.map_coordinates(channel, [rows + down, columns + right], order=1, mode="reflect")
            torch.testing.assert_close(got, torch.from_numpy(expected).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.95, 0.65, 0.25])
def test_pixelate_is_pillow_s_box_there_and_back(share: float):
    x = smooth(1, 32, 32, 1)
    image = Image.fromarray(x[0, 0].numpy())
    small = image.resize((int(32 * share), int(32 * share)), Image.Resampling.BOX)
    expected = torch.from_numpy(np.array(small.resize((32, 32), Image.Resampling.BOX)))
    torch.testing.assert_close(distortions.pixelate(x, draws(1), share)[0, 0], expected, rtol=0, atol=1e-6)
