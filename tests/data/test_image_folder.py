from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from advbench.data.base import DataSet, Missing
from advbench.data.image_folder import ImageFolder
from advbench.spec import BadInput

COLOURS = {"cat": (255, 0, 0), "ant": (0, 128, 0), "bee": (0, 0, 64)}


def picture(label: str, number: int) -> NDArray[np.uint8]:
    """3 rows of 5 pixels in the class's colour, and the number in the top left pixel."""
    pixels = np.full((3, 5, 3), COLOURS[label], np.uint8)
    pixels[0, 0] = number
    return pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with pets/{train,test}/{ant,bee,cat}/{0,1}.png."""
    for split in ("train", "test"):
        for label in COLOURS:
            folder = tmp_path / "pets" / split / label
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(picture(label, number)).save(folder / f"{number}.png")
    return tmp_path


def load(root: Path) -> DataSet:
    return ImageFolder(path="pets").load(root)


def test_classes_are_alphabetical_and_pixels_in_place(root: Path) -> None:
    data = load(root)
    assert (data.shape, data.classes, data.peak) == ((3, 3, 5), 3, 255)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [picture(label, n).transpose(2, 0, 1) for label in ("ant", "bee", "cat") for n in range(2)]
    np.testing.assert_array_equal(data.train.images, expected)
    np.testing.assert_array_equal(data.test.images, expected)


def grey(path: Path) -> None:
    Image.open(path).convert("L").save(path)


def test_grey_images_have_one_channel(root: Path) -> None:
    for path in root.rglob("*.png"):
        grey(path)
    data = load(root)
    assert data.shape == (1, 3, 5)
    assert data.train.images[2, 0, 0].tolist() == [0, 7, 7, 7, 7]  # 0.114 of a blue of 64


def test_a_grey_image_among_colours_is_spread_over_the_channels(root: Path) -> None:
    grey(root / "pets" / "train" / "cat" / "1.png")
    image = load(root).train.images[5]
    assert image.shape == (3, 3, 5)
    assert (image == image[0]).all()


def test_a_colour_image_among_greys_is_refused(root: Path) -> None:
    for path in root.rglob("*.png"):
        grey(path)
    odd = root / "pets" / "test" / "bee" / "1.png"
    Image.fromarray(picture("bee", 1)).save(odd)
    with pytest.raises(BadInput, match=re.escape(f"{odd}: a colour image, but the first one is grey")):
        load(root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_another_size_names_the_file(root: Path, split: str) -> None:
    odd = root / "pets" / split / "cat" / "1.png"
    Image.new("RGB", (5, 4)).save(odd)
    with pytest.raises(BadInput, match=re.escape(f"{odd}: 5x4 pixels, but the first image has 5x3")):
        load(root)


@pytest.mark.parametrize("place", ["train/ant/0.png", "test/cat/1.png"])
def test_a_corrupt_image_is_named(root: Path, place: str) -> None:
    path = root / "pets" / place
    whole = path.read_bytes()
    for content in (b"", b"GIF89a, said the text file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=re.escape(f"{path}: not a readable image: ")):
            load(root)


def test_a_truncated_jpeg_is_named(root: Path) -> None:
    path = root / "pets" / "train" / "bee" / "9.jpg"
    Image.fromarray(picture("bee", 9)).save(path)
    assert len(load(root).train.labels) == 7
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match=re.escape(f"{path}: not a readable image: ")):
        load(root)


def test_deep_pixels_are_refused_rather_than_clipped(root: Path) -> None:
    path = root / "pets" / "train" / "bee" / "1.png"
    Image.fromarray(np.full((3, 5), 40_000, np.uint16)).save(path)
    with pytest.raises(BadInput, match=re.escape(f"{path}: more than 8 bits a channel")):
        load(root)


def test_class_folders_must_agree(root: Path) -> None:
    shutil.copytree(root / "pets" / "test" / "bee", root / "pets" / "test" / "dog")
    with pytest.raises(BadInput, match=re.escape(f"{root / 'pets'}: class folder 'dog' is in only one of train")):
        load(root)


def test_an_empty_class_folder_is_named(root: Path) -> None:
    (root / "pets" / "train" / "eel").mkdir()
    with pytest.raises(BadInput, match=re.escape(str(root / "pets" / "train")) + ".*eel"):
        load(root)


def test_no_class_folder_at_all_is_bad_input(root: Path) -> None:
    shutil.rmtree(root / "pets" / "train")
    (root / "pets" / "train").mkdir()
    with pytest.raises(BadInput, match=re.escape(f"{root / 'pets' / 'train'}: ")):
        load(root)


@pytest.mark.parametrize("gone", ["pets", "pets/train", "pets/test"])
def test_an_absent_folder_is_missing(root: Path, gone: str) -> None:
    shutil.rmtree(root / gone)
    with pytest.raises(Missing, match=r"is not there; put images there, in a folder for each class.*--data-root"):
        load(root)


def test_files_are_the_images_and_the_folders_whose_time_tells_of_new_ones(root: Path) -> None:
    files = ImageFolder(path="pets").files(root)
    images = sorted(root.rglob("*.png"))
    assert [path for path in files if path.is_file()] == images
    assert len(images) == 12
    assert {path for path in files if path.is_dir()} == {image.parent for image in images} | {
        root / "pets" / "train",
        root / "pets" / "test",
    }


def test_files_behind_links_are_watched_too(root: Path) -> None:
    elsewhere = root / "elsewhere"
    (root / "pets" / "train" / "cat").rename(elsewhere)
    (root / "pets" / "train" / "cat").symlink_to(elsewhere)
    assert len(load(root).train.labels) == 6
    assert sum(path.is_file() for path in ImageFolder(path="pets").files(root)) == 12


def test_with_a_size_images_of_many_sizes_are_cropped(root: Path) -> None:
    odd = root / "pets" / "test" / "bee" / "1.png"
    Image.new("RGB", (40, 9), COLOURS["bee"]).save(odd)
    data = ImageFolder(path="pets", size=7).load(root)
    assert data.shape == (3, 7, 7)
    assert (data.test.images[3] == np.array(COLOURS["bee"], np.uint8)[:, None, None]).all()


def test_a_size_is_part_of_the_digest(root: Path) -> None:
    digests = {ImageFolder(path="pets", size=size).load(root).sha256 for size in (None, 3, 4)}
    assert len(digests) == 3
