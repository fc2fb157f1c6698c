"""A record's job run again: equal where that is promised, compared where not, refused where it cannot be the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from own_defense import defense_file

from advbench import machine
from advbench import reproduce as again
from advbench.plan import Item, Job
from advbench.record import Record, load
from advbench.reproduce import compare, reproduce
from advbench.spec import BadInput, validate

MINE = defense_file()
PATH = Path("results/records/t/mine-s0")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny, command) -> Path:
    """A folder in which one job with a defense file of its own has run."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.py").write_text(MINE, encoding="utf-8")
    task = tiny(folder, "t", ('name = "standard"', 'file = "mine.py"'))
    task.rename(folder / "tasks" / "t.toml")
    ran = command(folder, "run", "tasks/t.toml")
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.slow
def test_a_rerun_on_the_same_machine_is_equal(done, command, tmp_path):
    told = command(done, "reproduce", PATH, "--task-folder", "tasks", "--results", tmp_path / "again")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-2:] == ["EQUAL", f"rerun: {tmp_path / 'again' / 'records' / 't' / 'mine-s0'}"]
    again = command(done, "reproduce", PATH, "--task-folder", "tasks", "--results", tmp_path / "again")
    assert again.returncode == 2
    assert "holds t/mine-s0 already" in again.stderr


def test_a_rerun_is_held_to_the_limits_that_it_is_given(done, tmp_path, capsys):
    asked = (done / PATH, done / "tasks", tmp_path, done / "data", "cpu")
    code = reproduce(*asked, as_json=False, memory_gib=0.25)  # less than torch takes

    assert code == 1
    assert "took more than 0.25 GiB of memory; raise" in (
        load(tmp_path / PATH.relative_to("results") / "record.json").error or ""
    )
    assert "\nFAILED" in capsys.readouterr().out


SHARED = MINE.replace(
    """    def passes""",
    """    processes: int = 2

    def workers(self):
        return self.processes

    def passes""",
)


@pytest.mark.slow
def test_a_shared_record_is_made_again_by_as_many_processes(command, tiny, tmp_path):
    (tmp_path / "mine.py").write_text(SHARED, encoding="utf-8")
    task = tiny(tmp_path, "t", ('name = "standard"', 'file = "mine.py"'))
    ran = command(tmp_path, "run", task, "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    told = command(tmp_path, "reproduce", PATH, "--results", "again")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-2] == "EQUAL"
    assert load(tmp_path / "again" / "records" / "t" / "mine-s0" / "record.json").history[0].extra["processes"] == 2


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_a_shared_record_needs_a_device_for_each_process(done, monkeypatch, device):
    record = changed(load(done / PATH / "record.json"), provenance={"device": "Card"})
    item = Item(task="t", label="l", seed=0, base=done, job=validate(Job, record.job), processes=2)
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0", "cuda:1", "cuda:2"])
    monkeypatch.setattr(machine, "device_name", lambda one: "Chip" if one == "cuda:1" else "Card")

    if device == "cuda:1":
        with pytest.raises(BadInput, match="each on a device of its own, and there are 1: cuda:1"):
            again._devices(device, record, item)
    else:
        wanted = ["cuda:0", "cuda:2"] if device == "auto" else ["cuda:0", "cuda:1"]
        assert again._devices(device, record, item) == wanted


@pytest.mark.slow
def test_json_says_where_a_record_is_not_what_its_job_gives(done, command, tmp_path):
    shutil.copytree(done / PATH, tmp_path / "forged")
    file = tmp_path / "forged" / "record.json"
    raw = json.loads(file.read_text())
    raw["scores"]["robust"]["accuracy"] += 0.01
    file.write_text(json.dumps(raw))
    told = command(done, "reproduce", file, "--task-folder", "tasks", "--json")
    found = json.loads(told.stdout)

    assert told.returncode == 1
    assert found["verdict"] == "DIFFERENT"
    assert [one["field"] for one in found["differences"]] == ["scores.robust.accuracy"]
    assert found["scores"]["record"]["robust"]["accuracy"] == pytest.approx(
        found["scores"]["rerun"]["robust"]["accuracy"] + 0.01
    )
    # Without --results the rerun is kept where it is said to be.
    assert load(Path(found["rerun"]) / "record.json").status == "ok"
    shutil.rmtree(Path(found["rerun"]).parents[2])


def changed(record: Record, **tables: Any) -> Record:
    raw = record.plain()
    for name, values in tables.items():
        raw[name] = {**raw[name], **values} if isinstance(values, dict) else values
    return Record.model_validate(raw)


def accuracy(value: float) -> dict[str, Any]:
    return {"accuracy": value, "low": value - 0.05, "high": value + 0.05, "n": 100}


def test_what_varies_between_reruns_or_is_no_result_makes_no_difference(done):
    record = load(done / PATH / "record.json")
    other = changed(
        record,
        cost={"train_seconds": 99.0},
        provenance={"date": "x", "host": "y", "git": "z", "numpy": "9", "python": "4"},
        id="another",
        job={"title": "renamed"},
    )

    assert compare(record, other).verdict == "EQUAL"
    assert compare(record, changed(record, cost={"forward": 3})).verdict == "DIFFERENT"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"torch": "1.0"}, "torch 1.0 there, "),
        ({"device": "cpu: another"}, "device cpu: another there, "),
        ({"threads": 7}, "threads 7 there, 1 here"),
        ({"deterministic": False}, "accelerators sum in any order"),
    ],
)
def test_on_another_build_or_machine_only_intervals_are_compared(done, change, why):
    rerun = changed(load(done / PATH / "record.json"), scores={"clean": accuracy(0.9), "robust": accuracy(0.5)})
    near = changed(rerun, provenance=change, scores={"robust": accuracy(0.57)})
    far = changed(rerun, provenance=change, scores={"robust": accuracy(0.65)})

    assert compare(near, rerun).verdict == "CONSISTENT"
    assert compare(far, rerun).verdict == "INCONSISTENT"
    assert any(line.startswith(why) for line in compare(near, rerun).why_not_promised)


def refused(done: Path, path: Path, folder: str = "tasks") -> str:
    with pytest.raises(BadInput) as caught:
        reproduce(path, done / folder, done / "never", done / "data", "cpu", as_json=False)
    assert not (done / "never").exists(), "nothing is written"
    [line] = caught.value.lines
    return line


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"status": "failed"}, "a FAILED job has no result to reproduce"),
        ({"job": {"protocol": 0}}, "made under protocols (0, 3) of training and evaluation, this advbench has"),
        ({"job": {"data_sha256": "0" * 64}}, "the data 'npz' are not those of the record: their sha256 is "),
        ({"job": {"data": {"name": "npz", "path": "absent.npz"}}}, "its data are missing: "),
        ({"job": {"task": "../../elsewhere"}}, "would name folders outside the results"),
        ({"job": {"label": ".."}}, "would name folders outside the results"),
        ({"job": {"seed": "x"}}, "not a job of this version of advbench: job.seed: should be"),
    ],
)
def test_what_cannot_be_the_same_is_refused_with_what_differs(done, tmp_path, change, line):
    record = changed(load(done / PATH / "record.json"), **change)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(record.plain()))

    assert line in refused(done, file)


def test_another_defense_under_the_same_name_is_refused(done):
    (done / "other").mkdir()
    (done / "other" / "mine.py").write_text(f"{MINE}\nEDITED = True\n", encoding="utf-8")

    assert "other/mine.py: not the defense of the record: its code has the digest " in refused(
        done, done / PATH, "other"
    )
    assert "--task-folder says where the task file lay" in refused(done, done / PATH, "nowhere")


@pytest.mark.parametrize("what", ["attack", "collector"])
def test_one_s_own_attack_or_collector_is_looked_at_before_anything_is_trained(done, tmp_path, what):
    table = {"name": "own", "file": f"own_{what}.py", "sha256": "0" * 64}
    job = load(done / PATH / "record.json").job
    evaluation = {**job["evaluation"], "attacks": [*job["evaluation"]["attacks"], table]}
    collect = {"own": {key: value for key, value in table.items() if key != "name"}}
    change = {"evaluation": evaluation} if what == "attack" else {"collect": collect}
    file = tmp_path / "record.json"
    file.write_text(json.dumps(changed(load(done / PATH / "record.json"), job=change).plain()))

    assert f"own_{what}.py: cannot be read: No such file or directory; --task-folder says" in refused(done, file)
    (done / "tasks" / f"own_{what}.py").write_text("", encoding="utf-8")
    assert f"own_{what}.py: not the {what} of the record: its code has the digest " in refused(done, file)


def test_a_part_that_is_not_here_is_told_before_anything_is_trained(done, tmp_path):
    job = load(done / PATH / "record.json").job
    evaluation = {**job["evaluation"], "attacks": [*job["evaluation"]["attacks"], {"name": "pdg"}]}
    file = tmp_path / "record.json"
    file.write_text(json.dumps(changed(load(done / PATH / "record.json"), job={"evaluation": evaluation}).plain()))

    assert "no attack 'pdg'; did you mean 'pgd'?" in refused(done, file)


def test_what_is_no_record_is_refused(done):
    assert "not a record" in refused(done, done / "tasks")
    assert "not a record" in refused(done, done / "tasks" / "t.toml")
