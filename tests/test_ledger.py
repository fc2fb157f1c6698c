"""The ledger: what it accepts, what it shares out, and what of it survives on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.threat import Threat

LINF = Threat("Linf", 0.1)
ROWS = torch.arange(4)


class Brightness(nn.Module):
    """Class 1 above a mean of one half; logits as `spoil` makes them."""

    def __init__(self, spoil: float = 0.0) -> None:
        super().__init__()
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([torch.full_like(mean, 0.5) + self.spoil, mean], 1)


def ledger(values: tuple[float, ...] = (0.45, 0.55, 0.45, 0.55)) -> Ledger:
    """Four grey images, of which the last two are labelled wrongly."""
    x = torch.tensor(values).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
    return Ledger.open(x, torch.tensor([0, 1, 1, 0]), torch.tensor([10, 11, 12, 13]))


def test_clean_examples_are_right_by_class_and_by_finite_logits():
    found = ledger()
    found.clean(Brightness(), ROWS)

    assert found.predicted.tolist() == [0, 1, 0, 1]
    assert found.broken_by.tolist() == [STANDING, STANDING, CLEAN, CLEAN]
    torch.testing.assert_close(found.margin, torch.tensor([0.05, 0.05, -0.05, -0.05]))
    assert found.correct.tolist() == found.standing.tolist() == [0, 1]

    found.clean(Brightness(torch.nan), ROWS)
    assert found.broken_by.tolist() == [CLEAN] * 4
    found.clean(Brightness(), ROWS)
    assert found.broken_by.tolist() == [STANDING, STANDING, CLEAN, CLEAN], "the last answer counts"


def test_what_a_detector_says_of_clean_examples_is_written_down():
    model, found = Brightness(), ledger()
    model.reject = lambda x: 0.5 - x.flatten(1).mean(1)  # type: ignore[assignment]
    found.clean(model, ROWS)

    assert found.detector
    assert found.refused.tolist() == [True, False, True, False]
    assert found.broken_by.tolist() == [CLEAN, STANDING, CLEAN, CLEAN]
    found.clean(Brightness(), ROWS)
    assert not found.detector
    assert not found.refused.any()


def test_a_ledger_moves_with_all_that_it_holds():
    moved = filled().to("meta")

    assert {getattr(moved, name).device.type for name in Ledger.columns()} == {"meta"}
    assert [column.device.type for column in moved.withstood.values()] == ["meta"]
    assert (moved.done, len(moved)) == (filled().done, 4)


@pytest.mark.parametrize(
    ("shift", "breaks"),
    [
        (0.08, [True, False]),  # over the edge for the dark one, the wrong way for the bright one
        (-0.08, [False, True]),
        (0.04, [False, False]),
        (0.12, [False, False]),  # out of the ball
        (torch.nan, [False, False]),
    ],
)
def test_a_candidate_breaks_what_it_is_allowed_to_and_what_the_model_gets_wrong(shift, breaks):
    found = ledger()
    rows = torch.tensor([0, 1])

    assert found.judge(Brightness(), LINF, rows, found.x[rows] + shift).tolist() == breaks
    # In another number format, and with a graph on it, it is the same candidate.
    other = (found.x[rows].double() + shift).requires_grad_()
    assert found.judge(Brightness(), LINF, rows, other).tolist() == breaks


def test_the_distance_is_that_of_the_nearest_candidate_that_broke_it():
    found, rows = ledger(), torch.tensor([1, 0])
    for shift in (0.07, 0.09, 0.06, 0.04):  # the last one is not over the edge
        found.judge(Brightness(), LINF, rows, found.x[rows] + shift)

    assert found.distance.tolist() == [pytest.approx(0.06, abs=1e-6), torch.inf, torch.inf, torch.inf]
    assert found.distance.dtype == torch.float64


def test_a_fresh_ledger_has_cost_nothing():
    found = ledger()

    assert (found.forward.tolist(), found.backward.tolist(), found.seconds) == ([0] * 4, [0] * 4, 0)
    assert (found.votes, found.detector, found.done, found.withstood) == (1, False, [], {})
    assert len(found) == 4
    assert {getattr(found, name).dtype for name in ("predicted", "broken_by", "forward", "backward")} == {torch.int64}
    assert {found.flat.dtype, found.refused.dtype} == {torch.bool}
    assert not (found.flat | found.refused).any()


def test_a_model_that_answers_with_nan_is_wrong_there_as_it_is_on_clean_examples():
    found = ledger()

    assert found.judge(Brightness(torch.nan), LINF, ROWS, found.x).tolist() == [True] * 4
    assert found.judge(Brightness(torch.inf), LINF, ROWS, found.x).tolist() == [True] * 4


def test_the_first_rung_that_breaks_an_example_has_it():
    found = ledger()
    found.clean(Brightness(), ROWS)
    first, second = found.x + 0.01, found.x + 0.02

    found.enter(0, torch.tensor([0, 2]), torch.tensor([True, True]), first[[0, 2]])
    found.enter(1, torch.tensor([1, 0]), torch.tensor([True, True]), second[[1, 0]])

    assert found.broken_by.tolist() == [0, 1, CLEAN, CLEAN]
    assert torch.equal(found.adversarial[0], first[0])
    assert torch.equal(found.adversarial[1], second[1])
    assert torch.equal(found.adversarial[2:], found.x[2:])
    assert found.standing.tolist() == []
    assert found.correct.tolist() == [0, 1]


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 7, 300])
def test_passes_are_shared_exactly_and_evenly(passes):
    found = ledger()
    rows = torch.tensor([3, 0, 2])

    found.spend(rows, passes, 2 * passes)

    assert int(found.forward.sum()) == passes
    assert int(found.backward.sum()) == 2 * passes
    assert found.forward[1] == 0
    assert int(found.forward[rows].max() - found.forward[rows].min()) <= 1


def test_an_attack_alone_met_everyone_or_those_it_was_given():
    found = ledger()
    found.clean(Brightness(), ROWS)

    found.note_alone("everyone", torch.tensor([0, 1]), torch.tensor([True, False]))
    found.note_alone("some", torch.tensor([1]), torch.tensor([False]), everywhere=False)

    assert found.withstood["everyone"].tolist() == [0, 1, 0, 0]
    assert found.withstood["some"].tolist() == [-1, 1, -1, -1]
    assert {column.dtype for column in found.withstood.values()} == {torch.int8}


def filled() -> Ledger:
    found = ledger()
    found.clean(Brightness(), ROWS)
    found.enter(3, torch.tensor([1]), torch.tensor([True]), found.x[[1]] + 0.02)
    found.spend(ROWS, 10, 9)
    found.flat[2] = True
    found.note_alone("pgd", torch.tensor([0, 1]), torch.tensor([False, True]))
    found.done = ["clean", "curve 1/20", 'a "quoted" name']
    return found


def test_what_is_written_is_read(tmp_path: Path):
    kept, fresh = filled(), ledger()
    kept.seconds, kept.detector = 2.5, True
    kept.write(tmp_path / "j" / "0.safetensors", "key")

    assert fresh.read(tmp_path / "j" / "0.safetensors", "key")
    for name in ("labels", "index", "predicted", "margin", "flat", "broken_by", "adversarial", "forward", "backward"):
        one, other = getattr(kept, name), getattr(fresh, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name
    assert fresh.done == kept.done
    assert fresh.withstood.keys() == kept.withstood.keys()
    assert torch.equal(fresh.withstood["pgd"], kept.withstood["pgd"])
    assert (fresh.seconds, fresh.detector) == (2.5, True)
    filled().write(tmp_path / "k.safetensors", "key")
    assert fresh.read(tmp_path / "k.safetensors", "key")
    assert fresh.detector is False


def untouched(found: Ledger) -> bool:
    return found.done == [] and found.withstood == {} and found.broken_by.tolist() == [STANDING] * 4


def test_a_journal_that_is_absent_or_for_another_key_leaves_the_ledger_as_it_is(tmp_path: Path):
    path, fresh = tmp_path / "0.safetensors", ledger()
    assert not fresh.read(path, "key")
    filled().write(path, "key")

    assert not fresh.read(path, "other")
    assert not fresh.read(tmp_path, "key")
    assert untouched(fresh)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_damaged_journal_leaves_the_ledger_as_it_is(tmp_path: Path, share):
    path, fresh = tmp_path / "0.safetensors", ledger()
    filled().write(path, "key")
    content = path.read_bytes()

    path.write_bytes(content[: int(share * len(content))])
    assert not fresh.read(path, "key")
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not fresh.read(path, "key")
    path.write_bytes(b"\xff" * len(content))
    assert not fresh.read(path, "key")
    assert untouched(fresh)
