"""Corrupted images: published strengths, random numbers of each example's own, accuracies that go on where stopped."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from advbench.corruptions import accuracies, corrupt
from advbench.data.base import Examples
from advbench.severities import NAMES, SEVERITIES
from advbench.spec import BadInput


def smooth(count: int, channels: int, height: int, width: int) -> Tensor:
    """Images as smooth as photographs, from 0.05 to 0.95."""
    noise = np.random.default_rng(0).random((count, channels, height, width))
    found = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return torch.from_numpy(0.05 + 0.9 * (found - found.min()) / np.ptp(found)).float()


def grey(side: int, value: float = 0.5) -> Tensor:
    return torch.full((3, 3, side, side), value)


def deviation(severity: int, side: int) -> float:
    # By the median, which the cut at 0 and 1 does not move.
    found = corrupt("gaussian-noise", severity, grey(side), torch.arange(3), 0)
    return float((found - 0.5).abs().median()) / 0.674490


def photons(severity: int, side: int) -> float:
    found = corrupt("shot-noise", severity, grey(side, 0.2), torch.arange(3), 0).unique()
    return 1 / float(found.diff().min())


def impulses(severity: int, side: int) -> float:
    return float((corrupt("impulse-noise", severity, grey(side), torch.arange(3), 0) != 0.5).double().mean())


def slope(severity: int, side: int) -> float:
    x = smooth(3, 3, side, side)
    return float((corrupt("contrast", severity, x, torch.arange(3), 0).std((2, 3)) / x.std((2, 3))).mean())


def shift(severity: int, side: int) -> float:
    return float((corrupt("brightness", severity, grey(side, 0.2), torch.arange(3), 0) - 0.2).mean())


def blocks(severity: int, side: int) -> float:
    ramp = torch.linspace(0.1, 0.9, side).expand(1, 1, side, side)
    return len(corrupt("pixelate", severity, ramp, torch.zeros(1), 0)[0, 0, 0].unique())


def quality(severity: int, side: int) -> float:
    """The one at which Pillow's own file holds the same pixels."""
    x = smooth(1, 3, side, side)
    found = (255 * corrupt("jpeg-compression", severity, x, torch.zeros(1), 0)[0]).round().byte().permute(1, 2, 0)
    image = Image.fromarray((255 * x[0]).round().byte().permute(1, 2, 0).numpy())
    for candidate in range(1, 101):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=candidate)
        with Image.open(file) as read:
            if np.array_equal(np.asarray(read), found.numpy()):
                return candidate
    return 0


MEASURED = [
    (deviation, 0.02, {32: (0.04, 0.10), 64: (0.04, 0.18), 224: (0.08, 0.38)}),
    (photons, 1e-3, {32: (500, 50), 64: (250, 15), 224: (60, 3)}),
    (impulses, 0.2, {32: (0.01, 0.07), 64: (0.01, 0.14), 224: (0.03, 0.27)}),
    (slope, 1e-3, {32: (0.75, 0.15), 64: (0.4, 0.05), 224: (0.4, 0.05)}),
    (shift, 1e-3, {32: (0.05, 0.3), 64: (0.1, 0.5), 224: (0.1, 0.5)}),
    # int(32 * 0.95) and so on.
    (blocks, 0, {32: (30, 20), 64: (57, 32), 224: (134, 56)}),
    (quality, 0, {32: (80, 40), 64: (65, 25), 224: (25, 7)}),
]


@pytest.mark.parametrize(("measure", "tolerance", "published"), MEASURED, ids=[row[0].__name__ for row in MEASURED])
def test_an_image_shows_the_published_strength(measure: Any, tolerance: float, published: dict[int, Any]):
    for side, (first, last) in published.items():
        assert measure(1, side) == pytest.approx(first, rel=tolerance)
        assert measure(5, side) == pytest.approx(last, rel=tolerance)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 30, 41), (3, 64, 64)], ids=str)
def test_every_corruption_gives_images_and_changes_them(shape: tuple[int, int, int]):
    x = smooth(3, *shape)
    before, stream = x.clone(), torch.get_rng_state()
    for name in NAMES:
        if min(shape[1:]) < 16 and name == "zoom-blur":
            with pytest.raises(BadInput, match="zoom-blur needs images of 16 pixels"):
                corrupt(name, 1, x, torch.arange(3), 0)
            continue
        for severity in SEVERITIES:
            found = corrupt(name, severity, x, torch.arange(3), 0)
            assert (found.shape, found.dtype, found.device) == (x.shape, x.dtype, x.device), name
            assert found.min() >= 0, name
            assert found.max() <= 1, name
            assert (found - x).abs().max() > 1e-3, f"{name} {severity} leaves images as they are"
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), stream), "training's random numbers are its own"


def test_images_of_imagenet_s_size_go_through():
    x = smooth(1, 3, 224, 224)
    for name in NAMES:
        found = corrupt(name, 3, x, torch.zeros(1, dtype=torch.int64), 0)
        assert 1e-4 < float((found - x).square().mean()) < 0.2, name


NO_ORDER = {"glass-blur", "elastic-transform", "motion-blur"}
"""Their published numbers are no order of strength: the first elastic severity moves an image farthest; the fourth
glass and motion differ from the third in kind."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_ORDER])
@pytest.mark.parametrize("side", [32, 64])
def test_distortion_grows_with_severity(name: str, side: int):
    x = smooth(40, 3, side, side)
    distances = [float((corrupt(name, s, x, torch.arange(40), 0) - x).square().mean()) for s in SEVERITIES]
    assert all(one < other for one, other in pairwise(distances)), distances


@pytest.mark.parametrize("name", NAMES)
def test_an_example_s_corruption_is_its_own_whatever_the_batch(name: str):
    x, index = smooth(7, 3, 32, 32), torch.tensor([5, 0, 77, 3, 1000, 8, 2])
    whole = corrupt(name, 4, x, index, 3)
    rows = torch.tensor([6, 2, 4])

    assert torch.equal(corrupt(name, 4, x, index, 3), whole)
    # Sums over a batch of another size may be added up in another order.
    torch.testing.assert_close(corrupt(name, 4, x[rows], index[rows], 3), whole[rows], rtol=0, atol=1e-6)
    torch.testing.assert_close(corrupt(name, 4, x[4:5], index[4:5], 3), whole[4:5], rtol=0, atol=1e-6)


FIXED = {"defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg-compression"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FIXED])
def test_another_example_and_another_seed_meet_other_numbers(name: str):
    x = smooth(1, 3, 32, 32).expand(2, -1, -1, -1)
    one, other = corrupt(name, 2, x, torch.tensor([0, 1]), 0)
    again, _ = corrupt(name, 2, x, torch.tensor([0, 1]), 1)
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(one, again, atol=1e-3)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith("-noise") and n != "jpeg-compression"])
def test_a_grey_image_is_corrupted_as_a_colour_image_without_colour(name: str):
    x = smooth(3, 1, 32, 32)
    found = corrupt(name, 5, x, torch.arange(3), 0)
    colour = corrupt(name, 5, x.expand(-1, 3, -1, -1), torch.arange(3), 0)
    torch.testing.assert_close(colour, found.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "severity", "shape", "line"),
    [
        ("fgo", 1, (1, 3, 32, 32), "no corruption 'fgo'; did you mean 'fog'?"),
        ("fog", 0, (1, 3, 32, 32), "a corruption's severity is 1, 2, 3, 4 or 5, not 0"),
        ("fog", 1, (1, 4, 32, 32), "needs grey or RGB images, not 4 channels"),
        ("fog", 1, (1, 1, 7, 32), "fog needs images of 8 pixels or more, not 7"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(name: str, severity: int, shape: tuple[int, ...], line: str):
    with pytest.raises(BadInput) as found:
        corrupt(name, severity, torch.zeros(shape), torch.zeros(1), 0)
    assert line in str(found.value)


def test_images_of_which_one_side_is_too_small_are_refused_before_anything_runs():
    wide = Examples(torch.zeros(2, 1, 12, 30), torch.zeros(2, dtype=torch.int64), torch.arange(2), 1)
    said: list[object] = []
    with pytest.raises(BadInput, match="zoom-blur needs images of 16 pixels"):
        accuracies(nn.Flatten(), wide, ["fog", "zoom-blur"], 0, 2, tell=lambda *news: said.append(news))
    assert said == []


@pytest.fixture
def few(digits_test: Examples) -> Examples:
    return Examples(digits_test.stored[:60], digits_test.labels[:60], digits_test.index[:60], digits_test.peak)


def test_accuracies_are_the_shares_of_right_answers(digits_cnn: nn.Module, few: Examples):
    digits_cnn.eval()
    names = ["contrast", "gaussian-noise", "snow"]
    found = accuracies(digits_cnn, few, names, seed=4, batch=60)

    assert list(found) == names
    for name, row in found.items():
        assert list(row) == [1, 2, 3, 4, 5]
        for severity, share in row.items():
            logits = digits_cnn(corrupt(name, severity, few.pixels(slice(0, 60)), few.index, 4))
            assert share == int((logits.argmax(1) == few.labels).sum()) / 60
    assert 0.3 < found["contrast"][5] < found["contrast"][1], "some are read and some are not"
    assert accuracies(digits_cnn, few, names, seed=4, batch=7) == found
    assert accuracies(digits_cnn, few, "all", seed=4, batch=60).keys() == set(NAMES) - {"zoom-blur"}


def test_what_is_not_finite_is_wrong(few: Examples):
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = torch.nn.functional.one_hot(few.labels, 10).float()
            logits[:20] = torch.nan
            logits[20:30, 9] = -torch.inf
            return logits

    assert accuracies(Broken(), few, ["fog"], 0, 60)["fog"] == dict.fromkeys(SEVERITIES, 0.5)


def test_memory_that_runs_out_changes_nothing_but_the_batch(digits_cnn: nn.Module, few: Examples):
    digits_cnn.eval()
    said: list[tuple[str, int, int, str]] = []

    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 20:
                raise torch.OutOfMemoryError
            return digits_cnn(x)

    found = accuracies(Small(), few, ["snow", "fog"], 0, 60, tell=lambda *news: said.append(news))
    assert found == accuracies(digits_cnn, few, ["snow", "fog"], 0, 60)
    shrunk = [(0, f"out of device memory: going on with {n} examples at a time") for n in (30, 15)]
    assert said == [("evaluate", done, 2, words) for done, words in [(0, "snow"), *shrunk, (1, "fog")]]


def test_what_was_interrupted_goes_on_with_the_next_corruption(digits_cnn: nn.Module, few: Examples, tmp_path: Path):
    digits_cnn.eval()
    names, journal = ["contrast", "snow", "fog"], tmp_path / "journal" / "corruptions.json"
    whole = accuracies(digits_cnn, few, names, 0, 60)
    asked: list[int] = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            if len(asked) == 8:
                raise KeyboardInterrupt
            return digits_cnn(x)

    with pytest.raises(KeyboardInterrupt):
        accuracies(Counted(), few, names, 0, 60, journal, "weights")
    assert accuracies(Counted(), few, names, 0, 60, journal, "weights") == whole
    assert len(asked) == 8 + 10, "five of the first were done; the second was begun again"
    assert accuracies(Counted(), few, names[::-1], 0, 60, journal, "weights") == whole
    assert len(asked) == 18
    # Other weights and another seed are nothing to go on from.
    for key, seed in (("others", 0), ("others", 1)):
        before = len(asked)
        accuracies(Counted(), few, names, seed, 60, journal, key)
        assert len(asked) == before + 15
    # What other votes had decided is decided again; a single one is what is meant where nobody says.
    before = len(asked)
    accuracies(Counted(), few, names, 1, 60, journal, "others", votes=1)
    assert len(asked) == before
    accuracies(Counted(), few, names, 1, 60, journal, "others", votes=3)
    assert len(asked) > before


@pytest.mark.parametrize("damage", [lambda content: content[:40], lambda content: content.replace(b"0.", b"0.0", 1)])
def test_a_damaged_journal_is_found_and_the_one_before_it_gone_on_from(digits_cnn, few, tmp_path: Path, damage):
    digits_cnn.eval()
    names, journal = ["contrast", "snow", "fog"], tmp_path / "journal" / "corruptions.json"
    whole = accuracies(digits_cnn, few, names, 0, 60, journal)
    assert damage(journal.read_bytes()) != journal.read_bytes()
    journal.write_bytes(damage(journal.read_bytes()))
    said: list[tuple[str, int, int, str]] = []

    assert accuracies(digits_cnn, few, names, 0, 60, journal, tell=lambda *news: said.append(news)) == whole
    damaged = "journal/corruptions.json was damaged: going on from the one before it"
    assert said == [("note", 0, 0, damaged), ("evaluate", 2, 3, "fog")]
