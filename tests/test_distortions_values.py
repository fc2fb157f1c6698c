"""Each operator that changes values, against its formula or law."""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from smooth_images import draws, smooth

from advbench import distortions

CPU = torch.device("cpu")


@pytest.mark.parametrize("deviation", [0.04, 0.38])
def test_gaussian_noise_has_its_mean_and_variance(deviation: float):
    x = torch.full((4, 3, 100, 100), 0.5)
    added = distortions.gaussian_noise(x, draws(), deviation) - x
    # Five standard errors of 120,000 values.
    assert abs(added.mean()) < 5 * deviation / math.sqrt(added.numel())
    assert float(added.var()) == pytest.approx(deviation**2, rel=5 * math.sqrt(2 / added.numel()))


def test_shot_noise_is_a_count_of_photons():
    x = torch.linspace(0, 1, 5).repeat(4, 3, 4000, 1)
    found = distortions.shot_noise(x, draws(), 25)
    assert torch.equal((25 * found).round() / 25, found)
    for column, level in enumerate(torch.linspace(0, 1, 5).tolist()):
        values = found[..., column]
        # A Poisson count has the variance of its mean.
        assert float(values.mean()) == pytest.approx(level, abs=5 * math.sqrt(level / 25 / values.numel()))
        assert float(values.var()) == pytest.approx(level / 25, rel=0.05)


def test_impulse_noise_is_as_much_salt_as_pepper_and_leaves_the_rest():
    x = torch.full((4, 3, 200, 200), 0.5)
    found = distortions.impulse_noise(x, draws(), 0.27)
    n = x.numel()
    for value, share in ((0, 0.135), (1, 0.135), (0.5, 0.73)):
        assert float((found == value).double().mean()) == pytest.approx(share, abs=5 * math.sqrt(share / n))


def test_without_flakes_snow_whitens_by_luma():
    x = smooth()
    found = distortions.snow(x, draws(), 0.1, 0, 1, 0.5, 3, 1, 0.6)
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(found, 0.6 * x + 0.4 * torch.maximum(x, (1.5 * luma + 0.5)[:, None]))


def test_flakes_fall_on_the_image_and_turned_by_half():
    black = torch.zeros(4, 3, 12, 12)
    # With nothing given up to white, what is left is the flakes.
    found = distortions.snow(black, draws(), 0.2, 0.3, 1, 0.6, 0, 1, 1)
    flakes = 0.2 + 0.3 * draws().normal(1, 12, 12)
    flakes = (flakes * (flakes >= 0.6)).clamp(0, 1)
    torch.testing.assert_close(found, (flakes + flakes.rot90(2, (2, 3))).expand(-1, 3, -1, -1))
    assert 0.05 < float((flakes > 0).double().mean()) < 0.15  # 1 - Phi(4/3) = 9 %


def test_a_fractal_is_diamonds_and_squares_place_by_place():
    side, decay, source = 8, 1.75, draws(1)
    expected, step, noise = np.zeros((side, side)), side, 1.0

    def mean(*places: tuple[int, int]) -> float:
        return sum(expected[row % side, column % side] for row, column in places) / 4

    while step >= 2:
        half = step // 2
        corners = [(row, column) for row in range(0, side, step) for column in range(0, side, step)]
        for down, right in ((half, half), (0, half), (half, 0)):
            rough = noise * source.uniform(side // step, side // step, low=-1).flatten().double().numpy()
            values = {}
            for (row, column), wobble in zip(corners, rough, strict=True):
                r, c = row + down, column + right
                if down and right:
                    near = [(r - half, c - half), (r - half, c + half), (r + half, c - half), (r + half, c + half)]
                else:
                    near = [(r - half, c), (r + half, c), (r, c - half), (r, c + half)]
                values[r, c] = mean(*near) + wobble
            for place, value in values.items():
                expected[place] = value
        step, noise = half, noise / decay**2
    expected = (expected - expected.min()) / np.ptp(expected)
    found = distortions.plasma(draws(1), side, decay)[0]
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=1e-6)


def test_fog_adds_clouds_and_keeps_the_brightest_value():
    x = 0.8 * smooth(3, 20, 24)
    clouds = distortions.plasma(draws(), 32, 2)[:, None, :20, :24]
    top = x.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(distortions.fog(x, draws(), 1.5, 2), (x + 1.5 * clouds) * top / (top + 1.5))
    assert torch.equal(distortions.fog(0 * x, draws(), 1.5, 2), 0 * x)


def test_brightness_is_hsv_s_value():
    x = smooth(count=1)
    x[0, :, 0, 0] = 0
    found = distortions.brightness(x, draws(1), 0.3)
    for pixel, result in zip(x[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert result == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3)), abs=1e-6)
    grey = smooth(1)
    torch.testing.assert_close(distortions.brightness(grey, draws(), 0.3), (grey + 0.3).clamp(max=1))


def test_contrast_shrinks_towards_each_channel_s_mean():
    x = smooth()
    found = distortions.contrast(x, draws(), 0.4)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(found.var((2, 3)), 0.16 * x.var((2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillow_s_of_that_quality(channels: int):
    x = smooth(channels)
    found = distortions.jpeg_compression(x, draws(), 40)
    for image, result in zip((255 * x).round().byte(), found, strict=True):
        file = io.BytesIO()
        pixels = image.permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(file, format="JPEG", quality=40)
        with Image.open(file) as read:
            expected = torch.from_numpy(np.array(read)).view(20, 20, channels).permute(2, 0, 1)
        assert torch.equal((255 * result).round().byte(), expected)
        assert not torch.equal(image, expected)
