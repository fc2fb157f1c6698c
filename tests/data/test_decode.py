from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from advbench.data.decode import cropped, pixels


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (256, 256), (300, 257), (40, 900), (61, 47)])
@pytest.mark.parametrize(("size", "short"), [(224, 256), (64, 73), (32, 37)])
def test_a_crop_is_torchvision_s_evaluation(shape: tuple[int, int], size: int, short: int) -> None:
    noise = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    theirs = Compose([Resize(short), CenterCrop(size)])(image)
    np.testing.assert_array_equal(np.asarray(cropped(image, size)), np.asarray(theirs))


def test_rows_columns_and_colours_stay_in_their_places(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    file = tmp_path / "x.png"
    Image.fromarray(noise).save(file)
    found = pixels(str(file), mode="RGB", width=5, height=3, crop=False)
    assert found.shape == (3, 3, 5)
    assert all((found[c] == noise[:, :, c]).all() for c in range(3))


def test_print_colours_become_red_green_and_blue(tmp_path: Path) -> None:
    # ImageNet holds a few such files.
    file = tmp_path / "x.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file)
    found = pixels(str(file), mode="RGB", width=8, height=8, crop=False)
    assert found[0].min() > 200
    assert found[1:].max() < 60
