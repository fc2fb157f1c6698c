"""The watch on whole runs: it tells published and simulated collapses, early, and leaves healthy runs alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench import watch
from advbench.record import Epoch

EPS = 8 / 255
TENTH = 0.1
"""The most frequent label's share on CIFAR-10."""

Point = tuple[float, float, float]
"""Clean, FGSM and PGD accuracy of an epoch."""


def history(curve: Iterable[Point], eps: float = EPS, **changes: Any) -> list[Epoch]:
    values: dict[str, Any] = {"loss": 1.0, "lr": 0.1, "seconds": 1.0, "forward": 1, "backward": 1, "top_class": 0.2}
    values |= {"eps": eps, **changes}
    return [Epoch(epoch=i, clean=c, fgsm=f, pgd=p, **values) for i, (c, f, p) in enumerate(curve, 1)]


def numbers(epochs: Sequence[Epoch]) -> list[int]:
    return [epoch.epoch for epoch in epochs]


def first_heard(epochs: list[Epoch], largest: float = 0) -> int:
    """The epoch after which `collapsed_now` first speaks, as training goes on; 1000: never."""
    return next((len(p) for p in prefixes(epochs) if watch.collapsed_now(p, EPS, largest)), 1000)


def prefixes(epochs: list[Epoch]) -> list[list[Epoch]]:
    return [epochs[:k] for k in range(1, len(epochs) + 1)]


# Published runs ------------------------------------------------------------------------------------------------------

BEGINS = {"elle": (78, 60, 53), "fgsm_at": (27, 25, 24), "fgsm_rs": (73, 46, 54), "zero_grad": (53, 61, 69)}
"""Methods of the FastAT Benchmark whose CIFAR-10 runs collapse, and the first such epoch in each seed, read from the
curves: PGD accuracy falls from above .37 to below .1 in that one epoch. It does so nowhere else."""


@pytest.fixture(scope="module")
def published(shared_data: Callable[[str], Path]) -> dict[tuple[str, int], list[Epoch]]:
    methods = json.loads(shared_data("co_traces_cifar10.json").read_text())["methods"]
    return {
        (method, int(seed)): history(zip(run["clean"], run["fgsm"], run["pgd"], strict=True))
        for method, runs in methods.items()
        for seed, run in runs.items()
    }


def test_of_63_published_runs_the_12_that_collapse_are_told_and_no_other(published):
    told = {run for run, epochs in published.items() if watch.collapsed(epochs, EPS, TENTH)}
    hits = {(method, seed) for method in BEGINS for seed in range(3)}

    assert len(published) == 63
    assert (len(told & hits), sorted(told - hits)) == (12, [])


def test_a_published_collapse_is_told_in_its_first_epoch(published):
    late = {run: first_heard(e, TENTH) - BEGINS[run[0]][run[1]] for run, e in published.items() if run[0] in BEGINS}

    assert late == dict.fromkeys(late, 0)
    assert len(late) == 12
    assert [run for run, e in published.items() if run[0] not in BEGINS and first_heard(e, TENTH) < 1000] == []


def test_before_a_published_collapse_the_weights_to_go_back_to_are_those_of_the_epoch_before(published):
    for (method, seed), epochs in published.items():
        if method in BEGINS:
            begin = BEGINS[method][seed]
            healthy = watch.last_healthy(epochs[:begin], EPS)
            assert healthy is epochs[begin - 2]


def test_of_the_published_runs_only_free_at_overfits_robustly(published):
    fell = {run for run, epochs in published.items() if watch.overfitted(epochs, EPS, TENTH)}

    assert fell == {("free_at", seed) for seed in range(3)}


# Simulated runs ------------------------------------------------------------------------------------------------------


def healthy(epochs: int, top: float, ratio: float, overfit: float = 0) -> list[Point]:
    """PGD accuracy rises to `top` and loses the share `overfit` in the second half; `ratio` is PGD to FGSM."""
    share = np.arange(1, epochs + 1) / epochs
    rise = 1 - np.exp(-6 * share)
    pgd = top * rise * (1 - overfit * np.clip(2 * share - 1, 0, None))
    clean = min(0.95, 2 * top) * (0.4 + 0.6 * rise)
    return [(c, min(c, p / ratio), p) for c, p in zip(clean.tolist(), pgd.tolist(), strict=True)]


def measured(curve: Iterable[Point], n: int, seed: int) -> list[Epoch]:
    """What validation says on `n` examples, drawn anew each time; a run that asks the same ones is less noisy."""
    rng = np.random.default_rng(seed)
    return history(tuple((rng.binomial(n, accuracies) / n).tolist()) for accuracies in curve)


def test_of_1000_simulated_healthy_runs_three_at_most_are_called_collapsed():
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(1000):
        epochs, n = int(rng.integers(30, 101)), int(rng.choice([140, 200, 500, 1000]))
        curve = healthy(epochs, rng.uniform(0.2, 0.6), rng.uniform(0.75, 0.95), rng.uniform(0, 0.3))
        alarms += bool(watch.collapsed(measured(curve, n, seed), EPS))

    assert alarms <= 3


SHAPES: dict[str, list[Point]] = {
    # What is left of clean and PGD accuracy in each epoch from the first bad one, and FGSM accuracy; then the last.
    "FGSM to .55": [(1, 0.35, 0.72), (1, 0.4, 0.36), (0.95, 0.5, 0.08), (1, 0.55, 0.08)],
    "FGSM to .35": [(1, 0.3, 0.72), (0.95, 0.33, 0.36), (1, 0.35, 0.08)],
    "FGSM to .9 at once": [(0.85, 0.7, 0.04), (0.95, 0.9, 0.04)],
    "FGSM falls as well": [(1, 0.22, 0.72), (1, 0.16, 0.36), (1, 0.12, 0.08), (1, 0.07, 0.04)],
    "clean dips": [(0.55, 0.45, 0.1), (0.8, 0.6, 0.05), (0.9, 0.7, 0.05)],
    "PGD comes half back": [(1, 0.35, 0.72), (1, 0.45, 0.1), (1, 0.7, 0.2), (1, 0.75, 0.35), (1, 0.8, 0.45)],
}


def collapsing(shape: list[Point], begin: int, epochs: int) -> list[Point]:
    """A healthy run at .25 that collapses in epoch `begin`."""
    curve = healthy(epochs, 0.25, 0.85)
    for i in range(begin - 1, epochs):
        clean, fgsm, pgd = shape[min(i - begin + 1, len(shape) - 1)]
        curve[i] = (clean * curve[i][0], fgsm, pgd * curve[i][2])
    return curve


@pytest.mark.parametrize("n", [200, 500, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_collapse_at_a_quarter_is_told_within_two_epochs_of_its_half(shape, n):
    half = next(i for i, (_, _, pgd) in enumerate(SHAPES[shape]) if pgd < 0.5)
    for seed in range(30):
        begin = 20 + seed
        run = measured(collapsing(SHAPES[shape], begin, 60), n, seed)
        heard = first_heard(run)
        assert begin <= heard <= begin + half + 2
        # The weights to go back to are from before it, or from its first steps.
        healthy_epoch = watch.last_healthy(run[:heard], EPS)
        assert healthy_epoch is not None
        assert begin - 8 <= healthy_epoch.epoch <= begin + half
        assert watch.overfitted(run, EPS) is None
        assert not watch.collapsed(measured(healthy(60, 0.25, 0.85), n, seed), EPS), "its healthy twin"


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_collapse_in_the_very_last_epochs_is_told(shape, n):
    begin = 61 - len(SHAPES[shape])
    told = [bool(watch.collapsed(measured(collapsing(SHAPES[shape], begin, 60), n, seed), EPS)) for seed in range(100)]

    # Where FGSM falls as well it takes two epochs in a row, and noise may spoil one with none left to come.
    assert sum(told) >= 99


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_said_while_training_goes_on_is_said_of_the_whole_training_too(shape):
    for seed in range(5):
        recovering = [*collapsing(SHAPES[shape], 20, 30), *healthy(60, 0.25, 0.85)[30:]]
        run = measured(recovering, 500, seed)
        on_the_way = [p[-1].epoch for p in prefixes(run) if watch.collapsed_now(p, EPS)]

        assert set(on_the_way) <= set(numbers(watch.collapsed(run, EPS)))
        assert 20 <= on_the_way[0] <= on_the_way[-1] <= 32
        # Whoever copies the weights whenever an epoch is the last healthy one has the right copy at every time.
        told = watch.collapsed(run, EPS)
        copies = [watch.last_healthy(p, EPS) for p in prefixes(run)]
        copied: Epoch | None = None
        for epoch, latest in zip(run, copies, strict=True):
            copied = epoch if latest is epoch else copied
            assert latest is copied
            assert latest not in told
        assert copied is not None
        assert copied.epoch > 30


# Robust overfitting ---------------------------------------------------------------------------------------------------


def falling(best: float, last: float, clean: float = 0.85, epochs: int = 200) -> list[Point]:
    """Rises to `best` in the middle, where the learning rate drops, and falls to `last`."""
    share = np.linspace(0, 1, epochs)
    pgd = np.interp(share, [0, 0.1, 0.49, 0.5, 0.75, 1], [best / 2, 0.8 * best, 0.85 * best, best, last, last])
    held = np.interp(share, [0, 0.1, 0.5, 1], [0.5, 0.8, 0.83, clean])
    return [(c, 1.2 * p, p) for c, p in zip(held.tolist(), pgd.tolist(), strict=True)]


RICE = {"CIFAR-10": (0.535, 0.456), "CIFAR-100": (0.2815, 0.2187)}
"""Best and last PGD accuracy of PGD-AT over 200 epochs: Rice et al. 2020 (arXiv 2002.11569)."""


@pytest.mark.parametrize(("data", "least"), [("CIFAR-10", 50), ("CIFAR-100", 40)])
def test_the_published_falls_of_rice_et_al_are_robust_overfitting_and_no_collapse(data, least):
    runs = [measured(falling(*RICE[data]), 1000, seed) for seed in range(50)]

    assert [watch.collapsed(run, EPS) for run in runs] == [[]] * 50
    assert sum(watch.overfitted(run, EPS) is not None for run in runs) >= least


@pytest.mark.parametrize("data", RICE)
def test_a_fall_is_told_with_its_numbers(data):
    best, last = RICE[data]
    fall = watch.overfitted(history(falling(best, last)), EPS)

    assert fall is not None
    assert (fall.best, fall.last) == (pytest.approx(best, abs=0.01), pytest.approx(last))
    assert fall.drop == fall.best - fall.last
    assert 98 <= fall.best_epoch <= 105


def test_the_best_of_many_noisy_epochs_is_no_robust_overfitting():
    alarms = dict.fromkeys((140, 200, 500, 1000), 0)
    for seed in range(800):
        n = list(alarms)[seed % 4]
        alarms[n] += watch.overfitted(measured(healthy(30 + seed % 71, 0.3, 0.85), n, seed), EPS) is not None

    # Of 200 runs each.
    assert max(alarms[140], alarms[200]) <= 10
    assert alarms[500] == alarms[1000] == 0
