"""Whatever changed since it was written is named in a line, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advbench.record import Record, load, save
from advbench.results.verify import verify
from advbench.spec import BadInput


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
