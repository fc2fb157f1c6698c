"""The watch: what each condition of its rules tells, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from advbench import watch
from advbench.record import Epoch

EPS = 8 / 255
Point = tuple[float, float, float]
"""Clean, FGSM and PGD accuracy of an epoch."""


def history(curve: Iterable[Point], eps: float = EPS, **changes: Any) -> list[Epoch]:
    values: dict[str, Any] = {"loss": 1.0, "lr": 0.1, "seconds": 1.0, "forward": 1, "backward": 1, "top_class": 0.2}
    values |= {"eps": eps, **changes}
    return [Epoch(epoch=i, clean=c, fgsm=f, pgd=p, **values) for i, (c, f, p) in enumerate(curve, 1)]


def told(*points: Point, **changes: Any) -> list[tuple[int, str]]:
    return [(s.epoch.epoch, s.arm) for s in watch.sightings(history(points, **changes), EPS)]


SOUND = (0.6, 0.3, 0.25)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([(0.6, 0.5, 0.12)], [(2, "gap")]),
        ([(0.6, 0.5, 0.13), SOUND], []),  # above half of the best
        ([(0.6, 0.5, 0.125), SOUND], []),  # half of it
        ([(0.6, 0.36, 0.12), SOUND], []),  # a gap of .24, once
        ([(0.6, 0.36, 0.12)] * 2, [(2, "low"), (3, "low")]),
        ([(0.6, 0.26, 0.12), (0.6, 0.26, 0.12)], []),  # a gap of .14
        ([(0.6, 0.1, 0.08), SOUND], []),  # once below a third
        ([(0.6, 0.1, 0.08)] * 2, [(2, "low"), (3, "low")]),
        ([(0.6, 0.1, 0.09)] * 9, []),  # above a third, and FGSM falls as well
        ([(0.6, 0.1, 0.08), SOUND, (0.6, 0.1, 0.08)], []),  # not in a row
        ([(0.39, 0.1, 0.01)] * 9, []),  # clean accuracy does not hold: the run diverged
        ([(0.41, 0.1, 0.01)] * 2, [(2, "low"), (3, "low")]),
        ([(0.3, 0.5, 0.05)], [(2, "gap")]),  # but what stands against one step has not diverged
        ([(0.1, 0.1, 0.1)] * 9, []),
        ([(0.6, 0.36, 0.1), (0.6, 0.6, 0.1)], [(2, "gap"), (3, "gap")]),  # from the start of its row
    ],
)
def test_each_condition_of_a_fall_counts(after, expected):
    assert told(SOUND, *after) == expected


def test_a_fall_lasts_until_pgd_accuracy_is_back_at_half_of_both():
    fall, tail, back = (0.6, 0.9, 0.02), (0.8, 0.9, 0.4), (0.8, 0.75, 0.4)

    assert [n for n, _ in told(SOUND, fall, tail, tail, back, SOUND)] == [2, 3, 4]
    assert [n for n, _ in told(SOUND, fall, (0.6, 0.2, 0.12), (0.6, 0.2, 0.13))] == [2, 3]
    assert [n for n, _ in told(SOUND, fall, (0.6, 0.5, 0.25), SOUND)] == [2], "half of both is enough"


def test_the_way_up_is_no_fall():
    mnist = [(0.92, 0.18, 0.0), (0.95, 0.71, 0.17), (0.97, 0.83, 0.34), (0.98, 0.85, 0.3), (0.98, 0.88, 0.8)]
    hard = [(0.58, 0.07, 0.02), (0.67, 0.06, 0.01), (0.75, 0.15, 0.02), (0.81, 0.13, 0.01), (0.82, 0.17, 0.04)]

    assert told(*mnist) == told(*hard, *hard) == []
    assert told(*mnist[:3]) == [], "though the last gap is wide: PGD accuracy is the highest so far"


@pytest.mark.parametrize(("best", "expected"), [(0.09, []), (0.1, [(2, "gap")]), (0.11, [(2, "gap")])])
def test_next_to_no_robust_accuracy_is_nothing_to_fall_from(best, expected):
    assert told((0.6, 0.15, best), (0.6, 0.5, 0.01), (0.6, 0.1, 0.1)) == expected


def test_a_run_that_never_was_robust_is_told_by_its_last_epoch_and_only_when_training_is_over():
    points = [(0.9, 0.6, 0.01), (0.95, 0.9, 0.0), (0.95, 0.9, 0.02)]

    assert told(*points) == [(3, "end")]
    assert told(*points, (0.95, 0.2, 0.0)) == []
    assert not watch.collapsed_now(history(points), EPS)
    assert watch.last_healthy(history(points), EPS) is None


def test_an_epoch_of_the_ramp_says_nothing():
    fall = (0.6, 0.9, 0.02)
    ramp = history([SOUND, fall, fall], eps=EPS / 2)

    assert watch.sightings(ramp, EPS) == []
    assert watch.sightings([*ramp, *history([fall, SOUND])], EPS) == []
    assert watch.last_healthy(ramp, EPS) is None
    # A radius that went through the ramp's arithmetic is the full one.
    assert told(SOUND, fall, eps=EPS * (1 - 1e-12)) == [(2, "gap")]


def test_a_constant_answer_is_nothing_to_fall_from():
    constant = history([(0.3, 0.3, 0.3)], top_class=1.0)
    rest = history([(0.5, 0.45, 0.1), (0.5, 0.3, 0.25)])

    assert watch.sightings([*constant, *rest], EPS) == []
    nearly = history([(0.3, 0.3, 0.3)], top_class=0.9)
    assert watch.sightings([*nearly, *rest], EPS, largest=0.3) == []
    assert watch.sightings([*nearly, *rest], EPS) != []
    # .05 above the most frequent label's share.
    for best, expected in ((0.34, []), (0.36, [2])):
        seen = watch.sightings(history([(0.5, 0.4, best), (0.5, 0.45, 0.1), SOUND]), EPS, largest=0.3)
        assert [s.epoch.epoch for s in seen] == expected
    assert watch.last_healthy(history([SOUND], top_class=0.99), EPS) is None


def test_a_slow_collapse_goes_back_to_before_it_began():
    run = history([SOUND, (0.6, 0.3, 0.19), (0.6, 0.3, 0.18), (0.6, 0.4, 0.13), (0.6, 0.5, 0.05)])

    assert [watch.collapsed_now(run[:k], EPS) for k in range(1, 6)] == [False] * 4 + [True]
    assert watch.last_healthy(run, EPS) is run[1]


def test_what_robust_overfitting_is_not():
    def fall(*points: Point) -> watch.Fall | None:
        return watch.overfitted(history(points), EPS)

    top, low = (0.8, 0.55, 0.5), (0.8, 0.5, 0.4)
    assert fall(*[top] * 5, *[low] * 5) == watch.Fall(best=0.5, best_epoch=3, last=0.4, drop=0.5 - 0.4)
    assert fall(*[top] * 4, *[low] * 5) is None, "too few epochs"
    assert fall(*[top] * 5, *[(0.8, 0.5, 0.455)] * 5) is None, "a small fall"
    assert fall(*[top] * 5, *[(0.8, 0.5, 0.445)] * 5) is not None
    assert fall(*[top] * 5, *[(0.5, 0.5, 0.4)] * 5) is None, "clean accuracy falls too: the run diverged"
    assert fall(*[top] * 5, *[low] * 5, *[top] * 5) is None, "it came back"
    assert fall(*[top] * 5, *[(0.8, 0.9, 0.02)] * 5) is None, "that is catastrophic"
    jumpy = [(0.8, 0.6, p) for p in (0.6, 0.4, 0.6, 0.4, 0.6)]
    assert fall(*jumpy, *[low] * 5) is None, "within the scatter of epochs"
    # Variances of .003 and 0, so a deviation of .0387: a fall of .08 is more than two of them, one of .075 is not.
    less = [(0.8, 0.6, p) for p in (0.55, 0.45, 0.55, 0.45, 0.5)]
    assert fall(*less, *[(0.8, 0.5, 0.42)] * 5) is not None
    assert fall(*less, *[(0.8, 0.5, 0.43)] * 5) is None
    assert fall(*[(0.75, 0.55, 0.5)] * 5, *[(0.5, 0.5, 0.4)] * 5) is not None, "two thirds of clean accuracy is enough"
    assert watch.overfitted(history([top] * 5, eps=EPS / 2) + history([low] * 5), EPS) is None, "the ramp"


@pytest.mark.parametrize(
    ("top", "largest", "expected"), [(0.98, 0, False), (0.99, 0, True), (0.99, 0.99, False), (0.996, 0.99, True)]
)
def test_a_model_of_one_class_is_dead_unless_the_labels_are_so_skewed(top, largest, expected):
    assert watch.dead(history([SOUND], top_class=top), largest) is expected
    assert not watch.dead([], largest)


def test_a_gap_of_just_a_quarter_is_not_wide_and_two_thirds_of_clean_accuracy_hold():
    best = (0.75, 0.6, 0.5)

    assert told(best, (0.75, 0.375, 0.125), best) == []
    assert told(best, (0.75, 0.4, 0.125), best) == [(2, "gap")]
    assert told(best, *[(0.5, 0.1, 0.01)] * 2) == [(2, "low"), (3, "low")]
    assert told((0.9, 0.3125, 0.0625)) == []
    assert told((0.9, 0.33, 0.0625)) == [(1, "end")]
    # On its way up: as high as ever, or high enough.
    assert told((0.9, 0.9, 0.05), (0.9, 0.9, 0.05)) == [(2, "end")]
    assert told((0.9, 0.9, 0.1)) == []


def test_a_sighting_says_what_was_fallen_from():
    def best(*points: Point) -> list[float]:
        return [s.best for s in watch.sightings(history(points), EPS)]

    assert best((0.6, 0.3, 0.2), SOUND, (0.6, 0.9, 0.02), (0.6, 0.9, 0.01)) == [0.25, 0.25]
    assert best((0.9, 0.08, 0.05), (0.9, 0.1, 0.06), (0.9, 0.9, 0.01)) == [0.06]
    assert best((0.9, 0.9, 0.05), (0.9, 0.9, 0.01)) == [0]
