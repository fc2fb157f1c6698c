"""Decoded images are kept as a memory map, and made again when and only when they changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from advbench.data import decode, folders
from advbench.data.base import Missing
from advbench.data.image_folder import ImageFolder
from advbench.spec import BadInput

NOISE = np.random.default_rng(0).integers(0, 256, (2, 2, 300, 4, 6, 3), dtype=np.uint8)
"""Split, class, image: more than one chunk."""


def written(root: Path, each: int) -> Path:
    for s, split in enumerate(("train", "test")):
        for c, label in enumerate("ab"):
            folder = root / "d" / split / label
            folder.mkdir(parents=True)
            for i in range(each):
                Image.fromarray(NOISE[s, c, i]).save(folder / f"{i:03}.png", compress_level=0)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with 600 images a split in d/{train,test}/{a,b}."""
    return written(tmp_path, 300)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """The same with 6 images a split."""
    return written(tmp_path, 3)


def load(root: Path) -> NDArray[np.uint8]:
    """The training images."""
    images = ImageFolder(path="d").load(root).train.images
    assert images.dtype == np.uint8
    return images  # pyright: ignore[reportReturnType]


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "d" / "decoded").iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded for their pixels since the test began."""
    files: list[str] = []
    real = decode.pixels

    def watched(file: str, **how: object) -> NDArray[np.uint8]:
        files.append(file)
        return real(file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "pixels", watched)
    return files


def test_the_map_holds_every_pixel_in_order(root: Path) -> None:
    images = load(root)
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, NOISE[0].reshape(600, 4, 6, 3).transpose(0, 3, 1, 2))


def test_images_are_decoded_once(root: Path, decoded: list[str]) -> None:
    one = load(root)
    assert len(decoded) == 1_200
    np.testing.assert_array_equal(load(root), one)
    assert len(decoded) == 1_200
    assert re.fullmatch(r"test-whole-[0-9a-f]{16}\.npy train-whole-[0-9a-f]{16}\.npy", " ".join(kept(root)))


def touched(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


CHANGES = {
    "gone": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("zzz.png")),
    "another size": lambda path: Image.fromarray(NOISE[1, 1, 1] // 2).save(path),
    "another time": touched,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_the_map_again_and_forgets_the_old_one(root: Path, decoded: list[str], change: str) -> None:
    load(root)
    before = kept(root)
    CHANGES[change](root / "d" / "train" / "a" / "007.png")
    decoded.clear()
    images = load(root)
    assert len(decoded) == 600 - (change == "gone")
    assert len(kept(root)) == 2
    assert len(set(kept(root)) & set(before)) == 1  # the test split's
    if change == "renamed":
        np.testing.assert_array_equal(images[299], NOISE[0, 0, 7].transpose(2, 0, 1))
    elif change == "another size":
        np.testing.assert_array_equal(images[7], NOISE[1, 1, 1].transpose(2, 0, 1) // 2)


def test_a_cut_off_map_is_made_again(root: Path) -> None:
    whole = np.array(load(root))
    for path in (root / "d" / "decoded").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(load(root), whole)


def test_a_map_is_on_the_disk_before_it_gets_its_name(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, bool(maps()))))

    def maps() -> list[str]:
        return [name for name in kept(few) if name.startswith("train-")]

    load(few)
    size = (few / "d" / "decoded" / maps()[0]).stat().st_size
    assert synced == [(size, False), (size, True)]  # of the training split, then of the test split
    assert size == 128 + 6 * 3 * 4 * 6


def test_another_process_may_forget_the_old_map_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "train-whole-gone.npy"]))
    folders._forget(tmp_path / "train-whole-new.npy", "train-whole")


def test_folders_behind_links_are_read_and_watched(few: Path) -> None:
    (few / "d" / "train" / "a").rename(few / "a")
    (few / "d" / "train" / "a").symlink_to(few / "a")
    assert len(load(few)) == 6
    assert sum(path.suffix == ".png" for path in ImageFolder(path="d").files(few)) == 12


def test_a_split_that_is_not_there_is_missing_and_a_class_in_one_split_is_bad(few: Path) -> None:
    for label in "cd":
        (few / "d" / "test" / label).mkdir()
        Image.fromarray(NOISE[0, 0, 0]).save(few / "d" / "test" / label / "1.png")
    with pytest.raises(BadInput, match=re.escape(f"{few / 'd'}: class folder 'c' is in only one of train and test")):
        load(few)
    (few / "d" / "test").rename(few / "elsewhere")
    with pytest.raises(Missing, match=re.escape(f"{few / 'd' / 'test'} is not there; put images there")):
        load(few)


def test_nothing_is_left_where_an_image_cannot_be_read(root: Path) -> None:
    bad = root / "d" / "train" / "b" / "299.png"
    bad.write_bytes(b"no image")
    with pytest.raises(BadInput, match=re.escape(f"{bad}: not a readable image: ")):
        load(root)
    assert kept(root) == []


def test_what_a_killed_process_left_is_removed(root: Path) -> None:
    (root / "d" / "decoded").mkdir()
    alive, dead = (root / "d" / "decoded" / f".train-whole-x.npy.{pid}.tmp" for pid in (os.getpid(), 2**22 + 1))
    for path in (alive, dead):
        path.touch()
    load(root)
    assert alive.exists()
    assert not dead.exists()


def test_a_folder_that_takes_no_map_is_one_line(root: Path) -> None:
    (root / "d" / "decoded").write_bytes(b"a file")
    with pytest.raises(BadInput, match=re.escape(f"{root / 'd' / 'decoded'}: decoded images cannot be kept there: ")):
        load(root)


def test_another_size_is_another_map_beside_it(root: Path, decoded: list[str]) -> None:
    load(root)
    assert ImageFolder(path="d", size=3).load(root).train.images.shape == (600, 3, 3, 3)
    assert len(kept(root)) == 4
    decoded.clear()
    assert load(root).shape == (600, 3, 4, 6)
    assert decoded == []
