from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from advbench.data.decode import cropped, mode_of, pixels
from advbench.spec import BadInput


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


@pytest.mark.parametrize(
    ("mode", "meant"), [("1", "L"), ("L", "L"), ("RGB", "RGB"), ("P", "RGB"), ("RGBA", "RGB"), ("CMYK", "RGB")]
)
def test_an_image_is_grey_where_it_can_be_nothing_else(mode: str, meant: str) -> None:
    assert mode_of(Image.new(mode, (2, 2))) == meant


@pytest.mark.parametrize(
    ("kept", "size", "asked", "complaint"),
    [
        ("RGB", (8, 8), "RGB", ""),
        ("L", (8, 8), "L", ""),
        ("L", (8, 8), "RGB", ""),
        ("RGB", (8, 8), "L", "a colour image, but the first one is grey"),
        ("RGB", (8, 9), "RGB", "8x9 pixels, but the first image has 8x8"),
        ("RGB", (9, 8), "RGB", "9x8 pixels, but the first image has 8x8"),
        ("I;16", (8, 8), "L", "more than 8 bits a channel (mode I;16); save it with 8"),
    ],
)
def test_what_would_not_fit_the_others_is_refused(
    tmp_path: Path, kept: str, size: tuple[int, int], asked: str, complaint: str
) -> None:
    file = str(tmp_path / "x.png")
    Image.new(kept, size).save(file)
    if complaint:
        with pytest.raises(BadInput, match=f"^{re.escape(f'{file}: {complaint}')}$"):
            pixels(file, mode=asked, width=8, height=8, crop=False)
    else:
        assert pixels(file, mode=asked, width=8, height=8, crop=False).shape == (len(asked), 8, 8)


def test_with_a_crop_any_size_will_do(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8))
    image.save(file)
    found = pixels(str(file), mode="RGB", width=6, height=6, crop=True)
    np.testing.assert_array_equal(found, np.asarray(cropped(image, 6)).transpose(2, 0, 1))
