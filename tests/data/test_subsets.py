from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from advbench.data.base import DataSet, Examples, Split
from advbench.data.subsets import Subsets, choose, stratified
from advbench.spec import BadInput
from advbench.task import Data


def split(n: int, seed: int) -> Split:
    """n examples of three classes, about 1 : 2 : 7, whose first two pixels spell their position."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) // 256, np.arange(n) % 256
    return Split(images, rng.choice(3, n, p=[0.1, 0.2, 0.7]))


WHOLE = DataSet(split(1_000, 1), split(400, 2), classes=3, peak=200)


def chosen(**fields: object) -> Subsets:
    return choose(WHOLE, Data.model_validate({"name": "x", **fields}), "cpu")


def counts(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels, minlength=3).tolist()


def test_shares_are_exact_to_a_rounding() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, rng.integers(1, 12), rng.integers(1, 200))
        count = int(rng.integers(0, len(labels) + 1))
        drawn = stratified(labels, count, np.random.default_rng(seed))
        assert len(drawn) == count
        assert (np.diff(drawn) > 0).all()
        for label in np.unique(labels):
            share = Fraction(count * int((labels == label).sum()), len(labels))
            got = int((labels[drawn] == label).sum())
            assert abs(got - share) < 1
            assert share.denominator > 1 or got == share


def test_the_largest_remainders_get_what_rounding_leaves() -> None:
    # 10 of 17: shares 10/17, 50/17, 110/17 = 0.59, 2.94, 6.47, so the first two classes are rounded up.
    labels = np.repeat([0, 1, 2], [1, 5, 11])
    drawn = stratified(labels, 10, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [1, 3, 6]


def test_the_lower_class_wins_a_tie() -> None:
    assert stratified(np.array([2, 1, 0]), 2, np.random.default_rng(0)).tolist() == [1, 2]


def test_so_it_does_among_many() -> None:
    labels = np.random.default_rng(0).permutation(1_000)
    drawn = stratified(labels, 300, np.random.default_rng(0))
    assert sorted(labels[drawn]) == list(range(300))


def test_all_is_all() -> None:
    assert stratified(WHOLE.test.labels, 400, np.random.default_rng(0)).tolist() == list(range(400))


def test_every_example_has_the_same_chance() -> None:
    labels = np.repeat([0, 1], [10, 30])
    hits = np.zeros(40)
    for seed in range(2_000):
        hits[stratified(labels, 20, np.random.default_rng(seed))] += 1
    # Each example is drawn in half of 2,000 trials; 4.5 standard deviations are 100.
    assert abs(hits - 1_000).max() < 100


def agrees(part: Examples, source: Split) -> None:
    at = part.index.numpy()
    np.testing.assert_array_equal(part.stored.numpy(), source.images[at])
    np.testing.assert_array_equal(part.labels.numpy(), source.labels[at])
    assert (np.diff(at) > 0).all()
    assert (part.stored.dtype, part.labels.dtype, part.index.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert part.peak == 200


@pytest.mark.parametrize("order", ["stratified", "first"])
def test_index_leads_back_to_the_official_split(order: str) -> None:
    subsets = chosen(order=order, train=300, validation=50, test=70)
    assert [len(part) for part in (subsets.train, subsets.validation, subsets.test)] == [300, 50, 70]
    agrees(subsets.train, WHOLE.train)
    agrees(subsets.validation, WHOLE.train)
    agrees(subsets.test, WHOLE.test)


@pytest.mark.parametrize("order", ["stratified", "first"])
def test_by_default_everything_is_used_once(order: str) -> None:
    subsets = chosen(order=order)
    train, validation = subsets.train.index.tolist(), subsets.validation.index.tolist()
    assert len(validation) == 100
    assert sorted(train + validation) == list(range(1_000))
    assert subsets.test.index.tolist() == list(range(400))


def test_default_validation_is_a_tenth_up_to_a_thousand() -> None:
    def size(n: int) -> int:
        return len(choose(DataSet(split(n, 0), WHOLE.test, 3), Data(name="x"), "cpu").validation)

    assert [size(n) for n in (2, 19, 20, 9_999, 10_000, 12_000)] == [1, 1, 2, 999, 1_000, 1_000]


def test_stratified_subsets_keep_the_proportions() -> None:
    subsets = chosen(train=300, validation=50, test=70)
    for part, whole in ((subsets.train, WHOLE.train), (subsets.validation, WHOLE.train), (subsets.test, WHOLE.test)):
        expected = np.bincount(whole.labels) * len(part) / len(whole.labels)
        # Training is drawn from what validation leaves, whose own proportions are a rounding away.
        assert abs(counts(part.labels) - expected).max() < 1.5


def test_first_takes_the_file_from_both_ends() -> None:
    subsets = chosen(order="first", train=300, validation=50, test=70)
    assert subsets.train.index.tolist() == list(range(300))
    assert subsets.validation.index.tolist() == list(range(950, 1_000))
    assert subsets.test.index.tolist() == list(range(70))


def indices(subsets: Subsets) -> list[list[int]]:
    return [part.index.tolist() for part in (subsets.train, subsets.validation, subsets.test)]


@pytest.mark.parametrize("reseed", [torch.manual_seed, np.random.seed, random.seed])
def test_global_seeds_neither_matter_nor_move(reseed: Callable[[int], object]) -> None:
    reseed(1)
    one = indices(chosen(train=300, test=70))
    reseed(2)
    state = torch.get_rng_state()
    assert indices(chosen(train=300, test=70)) == one
    assert torch.equal(torch.get_rng_state(), state)


def test_the_tasks_seed_moves_every_subset() -> None:
    one, other = indices(chosen(train=300, test=70)), indices(chosen(train=300, test=70, seed=1))
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_each_subset_has_a_stream_of_its_own() -> None:
    # Records are comparable only on the same examples: another stream would be other data under the same name.
    def stream(subset: int) -> np.random.Generator:
        return np.random.default_rng((5, subset))

    subsets = chosen(seed=5, train=300, validation=50, test=70, unlabelled={"count": 40})
    held_out = stratified(WHOLE.train.labels, 50, stream(0))
    rest = np.setdiff1d(np.arange(1_000), held_out)
    kept = rest[stratified(WHOLE.train.labels[rest], 300, stream(1))]
    unused = stream(3).permutation(np.setdiff1d(rest, kept))
    assert subsets.unlabelled is not None
    assert [*indices(subsets), subsets.unlabelled.index.tolist()] == [
        kept.tolist(),
        held_out.tolist(),
        stratified(WHOLE.test.labels, 70, stream(2)).tolist(),
        sorted(unused[:40].tolist()),
    ]


def test_the_tasks_seed_does_not_move_file_order() -> None:
    assert indices(chosen(order="first", train=300)) == indices(chosen(order="first", train=300, seed=1))


def test_one_size_does_not_move_the_others() -> None:
    one, fewer = chosen(train=300, validation=50, test=70), chosen(train=200, validation=50, test=70)
    assert torch.equal(one.validation.index, fewer.validation.index)
    assert torch.equal(one.test.index, fewer.test.index)
    assert torch.equal(one.test.index, chosen(validation=9, test=70).test.index)


def test_floats_stay_floats() -> None:
    def unit(part: Split) -> Split:
        images: NDArray[np.float32] = part.images.astype(np.float32) / np.float32(255)
        return Split(images, part.labels)

    subsets = choose(DataSet(unit(WHOLE.train), unit(WHOLE.test), 3), Data(name="x", train=10), "cpu")
    assert subsets.train.stored.dtype == torch.float32
    assert torch.equal(subsets.train.pixels(slice(None)), subsets.train.stored)


@pytest.mark.parametrize("order", ["stratified", "first"])
@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"test": 401}, r"data\.test: 401 is more than the 400 examples of the test split"),
        (
            {"train": 901},
            r"data\.train: 901 is more than the 900 .*: the training split has 1,000 and validation takes 100$",
        ),
        ({"train": 951, "validation": 50}, r"data\.train: 951 is more than the 950 .*validation takes 50"),
        ({"validation": 1_000}, r"data\.validation: 1,000 leaves nothing to train on; .* has 1,000 examples"),
    ],
)
def test_asking_for_more_than_there_is_names_how_many_there_are(order: str, fields: dict[str, int], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        chosen(order=order, **fields)


def test_asking_for_exactly_what_there_is_works() -> None:
    subsets = chosen(train=950, validation=50, test=400)
    assert [len(part) for part in (subsets.train, subsets.validation, subsets.test)] == [950, 50, 400]


@pytest.mark.parametrize("order", ["stratified", "first"])
@pytest.mark.parametrize("fields", [{}, {"train": 300}])
def test_unlabelled_examples_are_further_ones_without_labels(order: str, fields: dict[str, int]) -> None:
    subsets = chosen(order=order, validation=50, unlabelled={"count": 200}, **fields)
    assert subsets.unlabelled is not None
    unlabelled = subsets.unlabelled.index
    others = torch.cat([subsets.train.index, subsets.validation.index])
    assert len(unlabelled) == len(unlabelled.unique()) == 200
    assert not torch.isin(unlabelled, others).any()
    assert len(subsets.train) == fields.get("train", 750)
    assert (subsets.unlabelled.labels == -1).all()
    np.testing.assert_array_equal(subsets.unlabelled.stored.numpy(), WHOLE.train.images[unlabelled.numpy()])


def test_unlabelled_examples_move_no_other_subset() -> None:
    one, other = chosen(train=300), chosen(train=300, unlabelled={"count": 600})
    assert indices(one) == indices(other)
    assert one.unlabelled is None


def test_a_pool_is_drawn_from_and_nothing_else_is() -> None:
    pool = np.random.default_rng(3).integers(0, 256, (500, 1, 2, 2), dtype=np.uint8)
    for order in ("stratified", "first"):
        fields = {"name": "x", "order": order, "unlabelled": {"count": 40, "path": "pool.npz"}}
        subsets = choose(replace(WHOLE, pool=pool), Data.model_validate(fields), "cpu")
        assert subsets.unlabelled is not None
        at = subsets.unlabelled.index.numpy()
        np.testing.assert_array_equal(subsets.unlabelled.stored.numpy(), pool[at])
        assert (np.diff(at) > 0).all()
        assert (at.tolist() == list(range(40))) == (order == "first")
        assert (subsets.unlabelled.labels == -1).all()
        assert len(subsets.train) == 900


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"train": 300, "unlabelled": {"count": 601}}, "train: 300 is more than the 299 .* 100, unlabelled 601"),
        ({"unlabelled": {"count": 900}}, r"unlabelled\.count: 900 leaves nothing to train on: .*validation takes 100"),
    ],
)
def test_asking_for_more_unlabelled_ones_than_there_are(fields: dict[str, object], line: str) -> None:
    with pytest.raises(BadInput, match=rf"data\.{line}"):
        chosen(**fields)


def test_asking_for_more_than_the_pool_has() -> None:
    fields = {"name": "x", "unlabelled": {"count": 5, "path": "pool.npz"}}
    with pytest.raises(BadInput, match=r"data\.unlabelled\.count: 5 is more than the 4 images of the pool"):
        choose(replace(WHOLE, pool=WHOLE.train.images[:4]), Data.model_validate(fields), "cpu")
    whole = choose(replace(WHOLE, pool=WHOLE.train.images[:5]), Data.model_validate(fields), "cpu").unlabelled
    assert whole is not None
    assert len(whole) == 5
