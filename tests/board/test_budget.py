"""Equal budgets, on histories whose sums a person can check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from advbench.board.budget import Budget, Kind, at, budgets, climbed
from advbench.board.rows import Group
from advbench.board.table import sections
from advbench.record import Record

Trained = Callable[..., Record]


def groups(*records: Record) -> tuple[Group, ...]:
    (section,) = sections(records)
    return tuple(sorted(section.groups, key=lambda group: group.label))


def reached(groups: tuple[Group, ...], kind: Kind, amount: float) -> Budget:
    return at(groups, kind, amount, climbed(groups, kind))


def table(found: Any) -> dict[str, tuple[int | None, float | None, list[tuple[float | None, int]]]]:
    return {
        place.group.label: (place.rank, place.pgd, [(seed.pgd, seed.epochs) for seed in place.seeds])
        for place in found.places
    }


def test_the_checkpoint_kept_so_far_is_what_counts(trained: Trained) -> None:
    seeds = [trained("a", [0.1, 0.4, 0.3, 0.5], 0), trained("a", [0.2, 0.1, 0.6, 0.1], 1)]
    for epochs, values in [(1, (0.1, 0.2)), (2, (0.4, 0.2)), (3, (0.4, 0.6)), (4, (0.5, 0.6)), (9, (0.5, 0.6))]:
        found = table(reached(groups(*seeds), "epochs", epochs))
        assert found["a"][2] == [(value, min(epochs, 4)) for value in values]
        assert found["a"][1] == pytest.approx(sum(values) / 2)


def test_passes_are_forward_and_backward_and_count_replays(trained: Trained) -> None:
    replays = trained("free", [0.3, 0.5], forward=80, backward=80)  # each batch eight times
    fast = trained("fast", [0.1, 0.2, 0.3], forward=20, backward=15)
    # 159 passes are less than one epoch of 80 + 80, and four of 20 + 15.
    for passes, free, quick in [(34, None, None), (35, None, 0.1), (159, None, 0.3), (160, 0.3, 0.3), (320, 0.5, 0.3)]:
        found = table(reached(groups(replays, fast), "passes", passes))
        assert (found["free"][1], found["fast"][1]) == (free, quick)


def test_the_budget_is_the_least_that_anybody_spent_but_standard_training(trained: Trained) -> None:
    records = [
        trained("standard", [0.1, 0.1, 0.1], forward=1, backward=1, seconds=0.1),
        trained("slow", [0.2, 0.4], 0, forward=11, backward=11, seconds=2.0),
        trained("slow", [0.2, 0.4], 1, forward=11, backward=11, seconds=1.25),
        trained("fast", [0.1, 0.2, 0.3], forward=2, backward=2, seconds=1.0),
    ]
    found = {budget.kind: budget for budget in budgets(groups(*records))}
    assert {kind: budget.amount for kind, budget in found.items()} == {"epochs": 2, "passes": 12, "seconds": 2.5}
    assert table(found["epochs"])["fast"] == (2, 0.2, [(0.2, 2)])
    # Three epochs of four passes; an epoch of 22 does not fit, and no number is not a bad number.
    assert table(found["passes"])["slow"] == (None, None, [(None, 0), (None, 0)])
    assert table(found["passes"])["fast"] == (1, 0.3, [(0.3, 3)])
    assert table(found["passes"])["standard"] == (2, 0.1, [(0.1, 3)])
    # 2.5 s: one epoch of 2 s, two of 1.25 s, two of 1 s.
    slow = next(place for place in found["seconds"].places if place.group.label == "slow")
    assert table(found["seconds"])["slow"] == (1, pytest.approx(0.3), [(0.2, 1), (0.4, 2)])
    assert slow.epochs == (1, 2)
    assert not slow.marked


def test_the_seconds_of_a_shared_training_are_those_of_each_process(trained: Trained) -> None:
    alone, shared = trained("alone", [0.3, 0.5], seconds=2.0), trained("shared", [0.2, 0.4], seconds=1.5)
    epochs = tuple(epoch.model_copy(update={"extra": {"processes": 2}}) for epoch in shared.history)
    shared = shared.model_copy(update={"history": epochs})

    found = {budget.kind: budget for budget in budgets(groups(alone, shared))}
    assert {kind: budget.amount for kind, budget in found.items()} == {"epochs": 2, "passes": 40, "seconds": 4.0}
    # Two epochs of 2 s, and one of 1.5 s on two processes.
    assert table(found["seconds"]) == {"alone": (1, 0.5, [(0.5, 2)]), "shared": (2, 0.2, [(0.2, 1)])}


def test_what_never_met_an_attack_keeps_checkpoints_by_clean_accuracy(trained: Trained) -> None:
    clean, pgd = [0.5, 0.9, 0.8], [0.4, 0.1, 0.3]
    names = ("standard", "input-gradient-regularisation", "pgd-at")
    found = table(reached(groups(*(trained(name, pgd, clean=clean) for name in names)), "epochs", 3))
    assert [found[name][1] for name in names] == [0.1, 0.1, 0.4]


def test_no_defense_that_attacks_nothing_sets_a_budget(trained: Trained) -> None:
    cheap = trained("input-gradient-regularisation", [0.1, 0.1], forward=1, backward=2, seconds=0.1)
    found = budgets(groups(cheap, trained("pgd-at", [0.2, 0.3, 0.4])))
    assert [budget.amount for budget in found] == [3, 60, 3]


def test_equal_means_share_a_rank_and_the_next_one_is_skipped(trained: Trained) -> None:
    # (0.1 + 0.2) / 2 and 0.15 differ in floats, and are the same number of right answers.
    records = [
        trained("a", [0.1], 0),
        trained("a", [0.2], 1),
        trained("b", [0.15], 0),
        trained("b", [0.15], 1),
        trained("c", [0.14]),
        trained("d", [0.16]),
    ]
    found = table(reached(groups(*records), "epochs", 1))
    assert {label: rank for label, (rank, *_) in found.items()} == {"a": 2, "b": 2, "c": 4, "d": 1}


def test_a_failed_seed_has_no_number_and_marks_the_mean(trained: Trained) -> None:
    records = [
        trained("a", [0.4], 0),
        trained("a", [0.9], 1, error="Diverged: the training loss is nan"),
        trained("b", [0.3, 0.6]),
    ]
    found = budgets(groups(*records))
    # The failed job's history sets no budget and counts nowhere.
    assert [budget.amount for budget in found] == [1, 20, 1]
    for budget in found:
        assert table(budget)["a"] == (1, 0.4, [(0.4, 1), (None, 0)])
        assert [place.marked for place in budget.places] == [True, False]
        assert budget.places[0].epochs == (1, 1)


def test_of_seeds_that_all_failed_no_epoch_fits(trained: Trained) -> None:
    (place,) = reached(groups(trained("a", [0.4], error="x")), "epochs", 1).places
    assert (place.pgd, place.rank, place.epochs, place.marked) == (None, None, (0, 0), True)


def test_a_seed_whose_first_epoch_does_not_fit_marks_the_mean_of_the_others(trained: Trained) -> None:
    quick, slow = trained("a", [0.4], 0, seconds=1.0), trained("a", [0.6], 1, seconds=3.0)
    (place,) = reached(groups(quick, slow), "seconds", 2.0).places
    assert (place.pgd, place.epochs, place.marked) == (0.4, (0, 1), True)
    (place,) = reached(groups(quick, slow), "seconds", 3.0).places
    assert (place.pgd, place.epochs, place.marked) == (0.5, (1, 1), False)


def test_without_a_history_there_is_no_rank_and_alone_there_is_no_table(trained: Trained, make: Any) -> None:
    elsewhere = make("elsewhere", robust=0.9)
    assert budgets(groups(trained("a", [0.4]), elsewhere)) == ()
    found = table(budgets(groups(trained("a", [0.4]), trained("b", [0.5]), elsewhere))[0])
    assert found == {"a": (2, 0.4, [(0.4, 1)]), "b": (1, 0.5, [(0.5, 1)]), "elsewhere": (None, None, [(None, 0)])}


def test_seconds_that_nobody_measured_are_no_budget(trained: Trained) -> None:
    records = [trained("a", [0.4], seconds=0), trained("b", [0.5]), trained("c", [0.6])]
    seconds = budgets(groups(*records))[2]
    assert (seconds.kind, seconds.amount) == ("seconds", 1)
    assert table(seconds)["a"] == (None, None, [(None, 0)])


def test_where_nobody_attacks_all_set_the_budget(trained: Trained) -> None:
    plain = trained("standard", [0.1, 0.2])
    longer = trained("longer", [0.1, 0.2, 0.3]).model_copy(update={"defense": "standard"})
    assert [budget.amount for budget in budgets(groups(plain, longer))] == [2, 40, 2]
