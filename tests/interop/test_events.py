"""Event files: TensorBoard's own reader finds the history of the record in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2

from advbench import interop
from advbench.interop.events import FILE, content, hyper_parameters, points
from advbench.record import load
from advbench.spec import BadInput

Lay = Callable[..., Path]


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def session(found: EventAccumulator) -> plugin_data_pb2.SessionStartInfo:
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info


def test_every_epoch_of_a_real_history_is_a_point(repo: Path, tmp_path: Path):
    folder = repo / "leaderboard" / "records" / "mnist-linf" / "dat-s0"
    interop.export("tensorboard", folder, tmp_path)

    found, record = read(tmp_path), load(folder / "record.json")
    tags = {"loss": "train/loss", "clean": "validation/clean", "fgsm": "validation/fgsm", "pgd": "validation/pgd"}
    tags |= {"lr": "schedule/lr", "eps": "schedule/eps"}
    assert len(record.history) > 1
    for name, tag in tags.items():
        points = found.Scalars(tag)
        assert [point.step for point in points] == [line.epoch for line in record.history]
        assert [point.value for point in points] == [float(np.float32(getattr(line, name))) for line in record.history]
    assert record.scores
    [clean] = found.Scalars("test/clean")
    assert (clean.step, clean.value) == (record.best_epoch, float(np.float32(record.scores.clean.accuracy)))


def test_times_are_the_record_s_and_what_is_not_finite_is_left_out(tmp_path: Path, lay: Lay):
    interop.export("tensorboard", lay(tmp_path), tmp_path / "out")

    found = read(tmp_path / "out")
    ended = datetime(2026, 11, 21, 13, 56, 34, tzinfo=UTC).timestamp()
    # Two epochs of 10.5 and 9.5 seconds.
    assert [point.wall_time for point in found.Scalars("validation/pgd")] == [ended - 9.5, ended]
    assert [point.step for point in found.Scalars("train/loss")] == [1]
    assert [(point.step, point.value) for point in found.Scalars("defense/steps")] == [(2, 7.0)]


@pytest.mark.parametrize(("checkpoint", "epoch"), [("best", 1), ("last", 2)])
def test_the_test_scores_stand_at_the_epoch_whose_weights_they_are_of(
    tmp_path: Path, lay: Lay, checkpoint: str, epoch: int
):
    interop.export("tensorboard", lay(tmp_path, job={"evaluation": {"checkpoint": checkpoint}}), tmp_path / "out")

    assert [point.step for point in read(tmp_path / "out").Scalars("test/robust")] == [epoch]


def test_the_hyper_parameters_are_the_job_s_and_seeds_are_a_group(tmp_path: Path, lay: Lay):
    for seed in (0, 1):
        lay(tmp_path, seed=seed)
    interop.export("tensorboard", tmp_path, tmp_path / "out")

    one, other = (session(read(tmp_path / "out" / "cifar10-linf" / f"pgd-at-s{seed}")) for seed in (0, 1))
    assert one.group_name == other.group_name == "cifar10-linf/pgd-at"
    numbers = {name: value.number_value for name, value in one.hparams.items() if value.HasField("number_value")}
    texts = {name: value.string_value for name, value in one.hparams.items() if value.HasField("string_value")}
    assert numbers == {"training.epochs": 2, "training.lr": 0.1, "defense.steps": 10}
    assert texts["training.optimizer"] == "sgd"
    assert texts["threat.eps"] == "8/255"


def test_a_second_export_takes_the_place_of_the_first(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path)
    for _ in range(2):
        interop.export("tensorboard", folder, tmp_path / "out")

    assert [file.name for file in (tmp_path / "out").iterdir()] == [FILE]


def test_without_tensorboard_a_line_names_the_extra(tmp_path: Path, lay: Lay, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.raises(BadInput, match=r"^tensorboard is not installed; pip install 'advbench\[tensorboard\]'$"):
        interop.export("tensorboard", lay(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_file_is_whole_and_begins_when_the_training_did(tmp_path: Path, lay: Lay):
    interop.export("tensorboard", lay(tmp_path), tmp_path / "out")

    ended = datetime(2026, 11, 21, 13, 56, 34, tzinfo=UTC).timestamp()
    events = [*EventFileLoader(str(tmp_path / "out" / FILE)).Load()]
    # A header, the hyper-parameters, two epochs of 10.5 and 9.5 seconds, and the test scores.
    assert [event.wall_time for event in events] == [ended - 20, ended - 20, ended - 9.5, ended, ended]
    assert events[0].file_version == "brain.Event:2"
    assert session(read(tmp_path / "out")).start_time_secs == ended - 20


def test_what_a_record_lacks_is_no_point(tmp_path: Path, lay: Lay):
    provenance = {"date": "some day"}
    record = load(lay(tmp_path, robust=None, best_epoch=None, provenance=provenance) / "record.json")
    none = load(lay(tmp_path, "none", history=(), provenance={}) / "record.json")

    shares = {"test/clean": 0.8357}
    assert [(seconds, epoch) for seconds, epoch, _ in points(record)] == [(10.5, 1), (20, 2), (20, 2)]
    assert [values for _, _, values in points(record)][2] == shares
    assert [*points(none)] == [(0, 1, shares | {"test/robust": 0.5024})]
    assert [*points(none.model_copy(update={"best_epoch": None}))] == [(0, 0, shares | {"test/robust": 0.5024})]
    (tmp_path / FILE).write_bytes(content(record))
    # It does not say when it ended, which then is the beginning of time.
    assert [point.wall_time for point in read(tmp_path).Scalars("validation/pgd")] == [-9.5, 0]


def test_hyper_parameters_are_what_one_cell_can_hold(tmp_path: Path, lay: Lay):
    record = load(lay(tmp_path, job={"training": {"nesterov": True}}) / "record.json")

    assert hyper_parameters(record) == {
        "defense": "pgd-at",
        "model.name": "preact-resnet18",
        "threat.norm": "Linf",
        "threat.eps": "8/255",
        "training.epochs": 2,
        "training.lr": 0.1,
        "training.optimizer": "sgd",
        "training.nesterov": True,
        "defense.name": "pgd-at",
        "defense.steps": 10,
        "defense.attack_bn": "train",
    }
