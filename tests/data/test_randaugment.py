"""RandAugment draws for each image, and each operation is torchvision's at the paper's strength."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from advbench.data.randaugment import _kernels, randaugment

NAMES: list[str] = [
    *("Identity", "AutoContrast", "Equalize", "Rotate", "Solarize", "Color", "Posterize", "Contrast", "Brightness"),
    *("Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
]


def images(n: int = 60, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth bytes, as photographs are."""
    coarse = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (255 * vision.resize(coarse, [16, 16])).round().to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_its_images_one_by_one(channels: int) -> None:
    stored = images(channels=channels)
    found = randaugment(stored, torch.Generator().manual_seed(5), ops=2, magnitude=9)

    source = torch.Generator().manual_seed(5)
    kernels = _kernels(0.3, 16)
    pixels = stored.float() / 255
    for _ in range(2):
        choice = torch.randint(14, (60,), generator=source)
        sign = 1 - 2 * torch.randint(2, (60,), generator=source)
        each = zip(choice.tolist(), sign.tolist(), strict=True)
        pixels = torch.cat([kernels[c](pixels[i : i + 1], s) for i, (c, s) in enumerate(each)])
    assert found.dtype == torch.uint8
    assert torch.equal(found, (255 * pixels).round().to(torch.uint8))
    assert len({tuple(image.flatten().tolist()) for image in found}) == 60


@pytest.mark.parametrize("magnitude", [3, 9, 30])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("Shear")])
def test_an_operation_is_torchvision_s_at_the_same_magnitude(name: str, magnitude: int) -> None:
    pixels = images(8).float() / 255
    reference = v2.RandAugment(num_magnitude_bins=31)
    strengths, signed = reference._AUGMENTATION_SPACE[name]
    scale = strengths(31, 16, 16)
    strength = 0.0 if scale is None else float(scale[magnitude])
    kernel = _kernels(magnitude / 30, 16)[NAMES.index(name)]

    for sign in (1, -1) if signed else (1,):
        expected = reference._apply_image_or_video_transform(
            pixels, name, sign * strength, v2.InterpolationMode.BILINEAR, {}
        )
        torch.testing.assert_close(kernel(pixels, sign), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["ShearX", "ShearY"])
def test_a_shear_moves_lines_in_proportion_to_their_distance_from_the_middle(
    name: str, sign: int, share: float
) -> None:
    kernel = _kernels(share, 41)[NAMES.index(name)]

    def line(row: slice | int, column: slice | int) -> Tensor:
        """Where along each row the line lies after the shear; as if all shears were along rows."""
        pixels = torch.zeros(1, 1, 41, 41)
        pixels[0, 0, row, column] = 1
        found = kernel(pixels, sign)[0, 0] if name == "ShearX" else kernel(pixels.mT, sign)[0, 0].T
        found = found if row == slice(None) else found.T
        return (found * torch.arange(41)).sum(1) / found.sum(1)

    slopes = (line(slice(None), 20) - 20)[[5, 10, 30, 35]] / torch.tensor([-15, -10, 10, 15])
    assert slopes.abs().tolist() == pytest.approx([0.3 * share] * 4, abs=0.01)
    assert len({math.copysign(1, slope) for slope in slopes.tolist()}) == 1
    # The middle row stays where it is.
    assert line(20, slice(None))[[5, 10, 30, 35]].tolist() == pytest.approx([20] * 4, abs=0.01)


def test_all_operations_are_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = torch.zeros(14)

    def counting(number: int):
        def kernel(x: Tensor, _: int) -> Tensor:
            seen[number] += len(x)
            return x

        return kernel

    monkeypatch.setattr("advbench.data.randaugment._kernels", lambda *_: [counting(n) for n in range(14)])
    randaugment(torch.zeros(14_000, 1, 2, 2), torch.Generator().manual_seed(0), ops=1, magnitude=9)

    assert seen.sum() == 14_000
    assert (seen - 1000).abs().max() < 4 * math.sqrt(1000)


@pytest.mark.parametrize("peak", [16, 255])
def test_stored_levels_stay_levels_and_floats_stay_in_the_box(peak: int) -> None:
    levels = torch.randint(0, peak + 1, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = randaugment(levels, torch.Generator().manual_seed(0), 2, 15, peak)
    floats = randaugment(levels.float() / peak, torch.Generator().manual_seed(0), 2, 15)

    assert found.max() <= peak
    assert 0 <= floats.min() <= floats.max() <= 1
    assert torch.equal((floats * peak).round().to(torch.uint8), found)


@pytest.mark.parametrize("name", ["TranslateX", "TranslateY"])
def test_the_furthest_move_is_150_pixels_of_imagenet_s_331(name: str) -> None:
    pixels = torch.zeros(1, 1, 331, 331)
    pixels[0, 0, 165, 165] = 1
    found = _kernels(1.0, 331)[NAMES.index(name)](pixels, -1)

    assert divmod(int(found.argmax()), 331) == ((165, 15) if name == "TranslateX" else (15, 165))
