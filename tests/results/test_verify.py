"""Whatever changed since it was written is named in a line, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from advbench.experiment import Experiment
from advbench.record import Record, load, save
from advbench.results.verify import verify
from advbench.spec import BadInput, validate


def test_what_is_as_it_was_written_is_counted(tmp_path: Path, lay):
    lay(tmp_path, "a")
    lay(tmp_path, "b")

    found = verify(tmp_path)

    assert found.broken == []
    assert found.files == 2 * (1 + 1 + 2 + 1 + 2)  # record, table, weights, checkpoint, journal
    assert found.unsealed == 2  # these checkpoints are made by hand
    assert found.size == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("records/t/a-s0/examples.parquet", "is not what was written; the next run of its task makes it again"),
        ("runs/t/a-s0/best.safetensors", "and the next run makes both again"),
        ("runs/t/a-s0/last.safetensors", "is not what was written; remove "),
        ("runs/t/a-s0/journal/best/0.safetensors", "is damaged; the next run goes on from what was written before it"),
        ("runs/t/a-s0/checkpoint.pt", "is damaged; the next run goes on"),
    ],
)
@pytest.mark.parametrize("place", [0, -1])
def test_a_flipped_bit_is_named(tmp_path: Path, lay, name, then, place):
    lay(tmp_path, "a")
    content = bytearray((tmp_path / name).read_bytes())
    content[place] ^= 1
    (tmp_path / name).write_bytes(content)

    [line] = verify(tmp_path).broken
    assert line.startswith(f"{tmp_path / name}: ")
    assert then in line


def test_a_number_that_was_changed_in_a_record_is_found(tmp_path: Path, lay):
    file = lay(tmp_path, "a") / "record.json"
    raw = json.loads(file.read_bytes())
    file.write_text(json.dumps(raw), "utf-8")
    assert verify(tmp_path).broken == []  # laid out anew, it says the same

    raw["scores"]["clean"]["accuracy"] = 0.99
    file.write_text(json.dumps(raw), "utf-8")
    [line] = verify(tmp_path).broken
    assert line == f"{file}: is not what was written; the next run of its task makes it again"


def test_a_record_in_another_place_and_one_of_another_job_are_found(tmp_path: Path, make_job):
    job = make_job(label="a", task="t")
    fields = {"schema": 1, "task": "t", "defense": "standard", "label": "a", "seed": 0, "status": "failed"}
    record = Record.model_validate(fields | {"id": job.id, "job": job.plain()})
    save(record, tmp_path / "records" / "t" / "a-s0")
    assert verify(tmp_path).broken == []

    save(record, tmp_path / "records" / "t" / "b-s0")
    save(record.model_copy(update={"id": "0" * 16}), tmp_path / "records" / "t" / "a-s0")
    one, other = verify(tmp_path).broken
    assert f"a-s0/record.json: its id {'0' * 16} is not that of its job, {job.id}; " in one
    assert other.endswith("b-s0/record.json: says that it is t/a-s0; put it there")


def test_what_is_missing_or_no_record_is_named(tmp_path: Path, lay):
    (lay(tmp_path, "a") / "examples.parquet").unlink()
    file = lay(tmp_path, "b") / "record.json"
    file.write_bytes(file.read_bytes()[:200])

    one, other = verify(tmp_path).broken
    assert one.endswith("examples.parquet: is missing")
    assert other.startswith(f"{file}: not a record: ")


def test_a_record_of_an_earlier_version_has_no_seal_and_is_not_called_broken(tmp_path: Path, lay):
    file = lay(tmp_path, "a") / "record.json"
    raw = json.loads(file.read_bytes())
    del raw["sha256"]
    file.write_text(json.dumps(raw), "utf-8")

    assert load(file).sha256 is None
    found = verify(tmp_path)
    assert (found.broken, found.unsealed) == ([], 2)


def test_weights_that_are_elsewhere_are_nobody_s_fault(tmp_path: Path, lay):
    lay(tmp_path, "a")
    (tmp_path / "runs" / "t" / "a-s0" / "best.safetensors").unlink()

    assert verify(tmp_path).broken == []


def test_a_folder_without_results_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="no records and no runs; give a results folder"):
        verify(tmp_path)


def test_the_command_prints_a_line_each_and_says_so_with_its_code(tmp_path: Path, lay, command):
    lay(tmp_path / "results", "a")
    (tmp_path / "results" / "records" / "t" / "a-s0" / "examples.parquet").write_bytes(b"")

    done = command(tmp_path, "results", "verify")
    assert (done.returncode, done.stderr) == (1, "")
    broken, summary = done.stdout.splitlines()
    assert broken.startswith("results/records/t/a-s0/examples.parquet: ")
    assert summary.startswith("results: 7 files, ")
    assert summary.endswith(": 1 broken")


def test_measures_and_what_is_behind_them_are_held_to_their_digests(tmp_path: Path):
    folder = tmp_path / "measures" / "t" / "m"
    folder.mkdir(parents=True)
    (folder / "measures.safetensors").write_bytes(b"arrays")
    digest = hashlib.sha256(b"arrays").hexdigest()
    (folder / "measures.json").write_text(json.dumps({"files": {"measures.safetensors": digest}}), "utf-8")
    found = verify(tmp_path)
    assert (found.broken, found.files) == ([], 2)

    (folder / "measures.safetensors").write_bytes(b"others")
    [line] = verify(tmp_path).broken
    assert line == f"{folder / 'measures.safetensors'}: is not what was written; collect again"
    for content in (b"[]", b"{"):
        (folder / "measures.json").write_bytes(content)
        assert verify(tmp_path).broken == [f"{folder / 'measures.json'}: is no JSON object; collect again"]
    (folder / "measures.json").unlink()
    (folder / "measures.json").mkdir()
    with pytest.raises(BadInput, match="no records and no runs"):
        verify(tmp_path)


def test_what_cannot_be_read_is_named_with_the_reason_and_what_is_temporary_is_not(tmp_path: Path, lay):
    lay(tmp_path, "a")
    runs = tmp_path / "runs" / "t" / "a-s0"
    (runs / "journal" / "best" / ".1.json.7.tmp").write_bytes(b"half")
    (runs / "journal" / ".hidden.json").write_bytes(b"half")
    (runs / "checkpoint.pt").unlink()
    (runs / "checkpoint.pt").mkdir()

    assert verify(tmp_path).broken == [f"{runs / 'checkpoint.pt'}: Is a directory"]


def test_a_study_s_record_is_held_to_the_id_of_its_experiment(tmp_path: Path):
    study = {"name": "gan-gda", "file": None, "sha256": "0"}
    job = validate(Experiment, {"task": "t", "title": "T", "label": "a", "seed": 0, "study": study, "threads": 1})
    fields = {"schema": 1, "task": "t", "defense": "gan-gda", "label": "a", "seed": 0, "status": "failed"}
    record = Record.model_validate(fields | {"id": job.id, "job": job.plain()})
    save(record, tmp_path / "records" / "t" / "a-s0")
    assert verify(tmp_path).broken == []
    save(record.model_copy(update={"id": "0" * 16}), tmp_path / "records" / "t" / "a-s0")
    [line] = verify(tmp_path).broken
    assert f"its id {'0' * 16} is not that of its job, {job.id}" in line
