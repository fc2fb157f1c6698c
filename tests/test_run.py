"""One job from end to end: what its record holds, and the golden scores that pin the engine's results."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from advbench import find
from advbench.data.subsets import choose
from advbench.energy import Meter
from advbench.models.base import Model
from advbench.plan import EVALUATION_PROTOCOL, PROTOCOL, Item, Job, finished, record_folder, run_folder
from advbench.record import Record, load, whole
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.stable import stable
from advbench.threat import Threat

CPU = torch.device("cpu")

GOLDEN = """\
version = 1
title = "Golden"
[data]
name = "digits"
train = 400
validation = 100
test = 60
[model]
name = "mlp"
hidden = [32]
[threat]
norm = "Linf"
eps = "3/20"
[training]
epochs = 5
batch = 32
lr = 0.2
eps_ramp = 1
seeds = [0]
precision = "fp32"
[evaluation]
attacks = ["fgsm", { name = "pgd", steps = 10, restarts = 2 }]
curve = ["1/20", "1/5"]
block = 40
[[defense]]
name = "pgd-at"
steps = 3
step_size = 0.5
"""


def quiet(*news: object) -> None:
    """Tells nobody."""


def planned(path: Path) -> tuple[Item, Job]:
    [item] = resolve(path, path.parent / "data", {}).items
    assert isinstance(item.job, Job)
    return item, item.job


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """(its record, the results folder) of a job of a second."""
    folder = tmp_path_factory.mktemp("golden")
    path = folder / "golden.toml"
    path.write_text(GOLDEN, encoding="utf-8")
    return run_job(planned(path)[0], folder / "results", folder, CPU, quiet), folder / "results"


def test_golden(golden):
    """If this fails, the engine's results changed: raise `advbench.plan.PROTOCOL` and write the new numbers here.

    Where no number was meant to change, a bug came in. The job is chosen so that rounding decides nothing: its
    counts are the same at learning rates that differ in the sixth digit.
    """
    record, _ = golden
    scores = record.scores

    assert (PROTOCOL, EVALUATION_PROTOCOL) == (2, 3)
    assert scores is not None
    assert scores.robust is not None
    found = {
        "clean": round(60 * scores.clean.accuracy),
        "robust": round(60 * scores.robust.accuracy),
        "attacks": {name: round(60 * share) for name, share in scores.attacks.items()},
        "alone": {name: round(60 * share) for name, share in scores.alone.items()},
        "curve": {name: round(60 * share) for name, share in scores.curve.items()},
        "best": record.best_epoch,
        "validation": [(round(100 * e.clean), round(100 * e.fgsm), round(100 * e.pgd)) for e in record.history],
        "last": round(60 * record.checkpoints["last"].attacks["pgd-20"]),
    }
    assert found == {
        "clean": 51,
        "robust": 29,
        "attacks": {"fgsm": 30, "pgd": 29},
        "alone": {"fgsm": 30, "pgd": 29},
        "curve": {"1/20": 48, "1/5": 17},
        "best": 5,
        "validation": [(37, 7, 6), (55, 25, 29), (63, 21, 21), (79, 41, 42), (85, 49, 45)],
        "last": 30,
    }
    assert (record.cost.train_forward, record.cost.forward, record.cost.backward) == (8000, 6115, 5631)
    # Sums may differ in the last place from one processor to another, a recipe differs by far more.
    assert [e.loss for e in record.history] == pytest.approx(
        [2.335558, 2.259488, 1.985726, 1.674992, 1.359358], rel=1e-4
    )


def test_a_record_holds_what_was_done(golden):
    record, results = golden
    item, job = planned(results.parent / "golden.toml")

    assert (record.status, record.task, record.defense, record.label, record.seed) == (
        "ok",
        "golden",
        "pgd-at",
        "pgd-at",
        0,
    )
    assert record.error is None
    assert record.flags == ()
    assert record.id == job.id
    assert record.job == job.plain()
    assert record.job["defense"]["steps"] == 3
    assert set(record.checkpoints) == {"best", "last"}
    assert record.checkpoints["best"] == record.scores
    # The checkpoint that is not asked for gets clean and PGD-20.
    assert set(record.checkpoints["last"].attacks) == {"pgd-20"}
    assert record.checkpoints["last"].curve == {}
    for accuracy in (record.scores.clean, record.scores.robust):
        assert 0 <= accuracy.low < accuracy.accuracy < accuracy.high <= 1
        assert accuracy.n == 60
    assert record.scores.robust.protocol == "pgd"
    assert record.scores.alone_n == {"fgsm": 60, "pgd": 60}
    assert [epoch.epoch for epoch in record.history] == [1, 2, 3, 4, 5]
    # 400 = 12 batches of 32 and one of 16; four passes an example.
    assert record.cost.train_forward == record.cost.train_backward == 5 * 400 * 4
    assert record.cost.train_seconds == round(sum(epoch.seconds for epoch in record.history), 3) > 0
    assert record.cost.eval_seconds == round(record.cost.eval_seconds, 3) > 0
    assert record.cost.peak_memory_bytes > 50e6
    assert load(record_folder(results, "golden/pgd-at-s0") / "record.json") == record
    assert whole(record, record_folder(results, "golden/pgd-at-s0"))
    assert finished(item, results).cached


def test_provenance_says_where_a_record_comes_from(golden):
    record, results = golden
    found = record.provenance

    assert found["torch"] == torch.__version__
    assert (found["dtype"], found["stored"], found["threads"], found["deterministic"]) == ("float32", "uint8", 1, True)
    assert found["device"].startswith("cpu: ")
    assert {"advbench", "python", "machine", "git", "host", "date"} <= set(found)
    assert "processes" not in found, "it had one"
    assert record.job["protocol"] == PROTOCOL
    for name in ("best", "last"):
        content = (run_folder(results, "golden/pgd-at-s0") / f"{name}.safetensors").read_bytes()
        assert found["weights_sha256"][name] == hashlib.sha256(content).hexdigest()


def test_the_table_of_examples_is_the_scores_row_by_row(golden, digits):
    record, results = golden
    table = pq.read_table(record_folder(results, "golden/pgd-at-s0") / "examples.parquet")
    rows = table.to_pydict()

    assert table.column_names == [
        *("index", "label", "predicted", "margin", "distance", "broken_by", "forward", "backward")
    ]
    assert table.num_rows == 60
    assert digits.test.labels[rows["index"]].tolist() == rows["label"]
    clean = [who != "clean" for who in rows["broken_by"]]
    assert sum(clean) / 60 == record.scores.clean.accuracy
    assert [p == label for p, label in zip(rows["predicted"], rows["label"], strict=True)] == clean
    assert [margin > 0 for margin in rows["margin"]] == clean
    assert rows["broken_by"].count(None) / 60 == record.scores.robust.accuracy
    assert set(rows["broken_by"]) == {None, "clean", "fgsm", "pgd"}
    # Beside the table's own passes the cost holds those of the other checkpoint.
    assert 0 < sum(rows["forward"]) < record.cost.forward
    assert 0 < sum(rows["backward"]) < record.cost.backward


def test_the_kept_images_break_the_kept_weights(golden, digits):
    record, results = golden
    folder = record_folder(results, "golden/pgd-at-s0")
    kept = load_file(folder / "adversarial.safetensors")
    rows = pq.read_table(folder / "examples.parquet").to_pydict()
    model = find.named(Model, record.job["model"]).build(digits.shape, 10)
    model.load_state_dict(load_file(run_folder(results, "golden/pgd-at-s0") / "best.safetensors"))

    broken = [i for i, who in zip(rows["index"], rows["broken_by"], strict=True) if who in ("fgsm", "pgd")]
    assert kept["index"].tolist() == broken
    images, places = kept["images"], kept["index"]
    x = torch.from_numpy(digits.test.images[places.numpy()]).float() / 16
    labels = torch.from_numpy(digits.test.labels[places.numpy()])
    assert images.dtype == torch.float32
    assert torch.equal(kept["clean"], x)
    assert Threat("Linf", 0.15).contains(images, x).all()
    assert (model(images).argmax(1) != labels).all()
    assert (model(x).argmax(1) == labels).all()


def test_a_rerun_elsewhere_is_equal_in_all_but_what_is_volatile(golden, tmp_path: Path):
    record, results = golden
    path = tmp_path / "golden.toml"
    path.write_text(GOLDEN, encoding="utf-8")
    torch.manual_seed(123)

    again = run_job(planned(path)[0], tmp_path / "other", tmp_path, CPU, quiet)

    assert stable(again) == stable(record)
    for name in ("examples.parquet", "adversarial.safetensors"):
        one, other = (record_folder(r, "golden/pgd-at-s0") / name for r in (results, tmp_path / "other"))
        assert one.read_bytes() == other.read_bytes()


def test_a_finished_job_s_weights_serve_another_evaluation(golden, tmp_path: Path):
    """Asked for more attacks, the next run trains nothing again."""
    _, results = golden
    path = tmp_path / "golden.toml"
    path.write_text(GOLDEN.replace('attacks = ["fgsm", ', "both = true\nattacks = ["))
    item, _ = planned(path)
    assert not finished(item, results).cached
    told: list[str] = []

    again = run_job(item, results, tmp_path, CPU, lambda stage, _done, _total, words: told.append(f"{stage} {words}"))

    assert [line for line in told if line.startswith("train")] == ["train resumed"]
    assert again.checkpoints["last"].curve.keys() == {"1/20", "1/5"}


def test_at_most_64_images_are_kept(tmp_path: Path, digits):
    text = GOLDEN.replace("test = 60", "test = 200").replace("epochs = 5", "epochs = 3")
    (tmp_path / "many.toml").write_text(text, encoding="utf-8")
    item, job = planned(tmp_path / "many.toml")

    run_job(item, tmp_path / "r", tmp_path, CPU, quiet)

    kept = load_file(record_folder(tmp_path / "r", item.path) / "adversarial.safetensors")
    assert len(kept["index"]) == 64
    assert kept["images"].shape == (64, 1, 8, 8)
    assert set(kept["index"].tolist()) <= set(choose(digits, job.data, "cpu").test.index.tolist())


def test_joules_are_of_a_job_that_was_done_in_one_go(tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Meter, "joules", lambda _: 12.5)
    task = tiny(tmp_path, "t")

    def joules(results: str) -> float | None:
        (item,) = resolve(task, tmp_path / "data", {}).items
        return run_job(item, tmp_path / results, tmp_path / "data", CPU, quiet).cost.joules

    assert joules("one") == 12.5
    # Its record was lost: what it trained and judged is there, and what that took is not.
    for lost in ("nothing", "journal", "checkpoint*"):
        shutil.rmtree(tmp_path / "one" / "records")
        for path in (tmp_path / "one" / "runs" / "t" / "standard-s0").glob(lost):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert joules("one") is None


def test_a_job_in_l1_goes_from_end_to_end(tmp_path: Path, tiny):
    ladder = ('["fgsm"]', '["fgsm", "pgd"]\ncurve = [1, 2, 4]')
    path = tiny(tmp_path, "l1", ('"Linf"', '"L1"'), ('"1/10"', "2"), ('"standard"', '"pgd-at"'), ladder)
    [item] = resolve(path, tmp_path / "data", {}).items

    record = run_job(item, tmp_path / "results", tmp_path / "data", CPU, quiet)

    assert record.status == "ok"
    assert record.job["threat"] == {"norm": "L1", "eps": "2"}
    assert record.scores
    # Radii above 1 are what the ball's name says: pixel changes in sum.
    clean, curve = record.scores.clean.accuracy, list(record.scores.curve.values())
    assert clean >= curve[0] >= curve[1] >= curve[2]
    assert clean > curve[2]
