"""`advbench collect`: what it prints and writes to the letter, and what it keeps of what was there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from outside_net import NETS

from advbench import observe as observing
from advbench.along import ALONG
from advbench.files import write_bytes
from advbench.judging import Where
from advbench.measures import Found
from advbench.observe import _chosen, observe
from advbench.outside import Asked
from advbench.record import MEASURES, Measure, Record, load, save
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.spec import BadInput
from advbench.task import check, read

OWN = """\
from advbench.collectors.base import Collector, Measures, measure

class Own(Collector):
    name = "own"
    paper = about = "a test"
    def collect(self, scene):
        return Measures({"mean": measure(1.0, "1", "a mean")}, notes=("%d examples" % len(scene.x),))
"""
WHERE = Where(Path("results"), Path("data"), "cpu")
ASKED = Asked("nets.py:Net", Path("w.pth"))
BESIDE = Path("results/measures/tiny/nets-Net-w/measures.json")
TRAINED = Path("results/records/tiny/standard-s0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Path:
    """A folder to stand in, with a tiny task that collects by two names, and a model of another code base."""
    monkeypatch.chdir(tmp_path)
    more = '\n[collect]\nfosc = { steps = 3 }\nmine = { file = "own.py", examples = 9 }\n'
    tiny(tmp_path, "tiny", more=more)
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    (tmp_path / "own.py").write_text(OWN.replace('"own"', '"mine"'), "utf-8")
    (tmp_path / "theirs.py").write_text(OWN, "utf-8")
    torch.manual_seed(1)
    state = {"head.weight": torch.randn(4, 16), "head.bias": torch.zeros(4)}
    torch.save({"net": state}, "w.pth")
    return tmp_path


def observed(*names: str, asked: Asked = ASKED, label: str | None = None, **more: Any) -> None:
    told: dict[str, Any] = {"as_json": False, **more}
    observe(asked, Path("tiny.toml"), None, label, names, WHERE, **told)


def found(*names: str) -> dict[str, Found]:
    one = Measure(value=0.123456, unit="nats", meaning="a mean")
    none = Measure(value=None, unit="1", meaning="a share")
    return {name: Found({"mean": one, "share": none}, ("first", "second"), {}, 1.0) for name in names}


@pytest.mark.usefixtures("here")
def test_what_is_printed_to_the_letter(monkeypatch, capsys):
    monkeypatch.setattr(
        observing.measures,
        "found",
        lambda *told: (told[-1]("collect", 0, 1, "m"), told[-1]("collect", 1, 1, ""), found("m"))[-1],
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "26")
    label = "x" * 60
    observed("fosc", label=label)

    place = f"results/measures/tiny/{label}/measures.json"
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()] == [
        "nets.py:Net: loading",
        "w.pth: the state dict under 'net'",
        "  ...  0/1 m",
        "┏━━━━━━━┳━━━━━━━━┳━━━━━━┓",
        "┃ m     ┃  value ┃ unit ┃",
        "┡━━━━━━━╇━━━━━━━━╇━━━━━━┩",
        "│ mean  │ 0.1235 │ nats │",
        "│ share │   none │ 1    │",
        "└───────┴────────┴──────┘",
        "m: first; second",
        f"measures, with the meaning of each: {place}",
    ]
    observed("fosc", label=label, as_json=True)
    done = capsys.readouterr()
    told = json.loads(done.out)
    assert done.out == json.dumps(told, indent=1) + "\n"
    values = {
        "mean": {"value": 0.123456, "unit": "nats", "meaning": "a mean"},
        "share": {"value": None, "unit": "1", "meaning": "a share"},
    }
    said = {"measures": {"m": values}, "measure_notes": {"m": ["first", "second"]}}
    assert told == {"path": place, "task": "tiny", "figures": [], **said}
    assert done.err.splitlines()[0] == "nets.py:Net: loading"
    kept = json.loads(Path(place).read_text("utf-8"))
    assert kept.keys() == {"task", "data", "data_sha256", "threat", "label", "model", "files", *said}
    assert (kept["task"], kept["label"], kept["files"]) == ("tiny", label, {})
    assert {name: kept[name] for name in said} == said


@pytest.mark.usefixtures("here")
def test_collectors_of_the_task_of_one_s_own_and_of_the_suite_stand_together():
    observed("mine", "theirs.py", "fosc", "mine")
    kept = json.loads(BESIDE.read_text("utf-8"))
    assert list(kept["measures"]) == ["mine", "own", "fosc"]
    notes = {name: one[0] for name, one in kept["measure_notes"].items()}
    assert notes == {"mine": "9 examples", "own": "32 examples", "fosc": "32 examples, 3 steps from the clean image"}
    arrays = BESIDE.with_name(MEASURES)
    assert kept["files"] == {MEASURES: hashlib.sha256(arrays.read_bytes()).hexdigest()}
    observed("mine")
    assert not arrays.exists(), "they would be another collector's"
    with pytest.raises(BadInput, match=r"^--collector: no collector 'yours'"):
        observed("yours")
    with pytest.raises(BadInput, match=r"absent\.toml: cannot be read|absent\.toml: no such file"):
        observe(ASKED, Path("absent.toml"), None, None, ["fosc"], WHERE, as_json=False)


def test_what_only_watches_a_training_is_left_out_unless_it_is_named(here: Path, tiny: Any):
    said, _ = check(read(tiny(here, "t", more="\n[collect]\nfosc = {}\nupdates = {}\n")))
    assert said is not None
    assert [one.name for one in _chosen(said, [], here)] == ["fosc"]
    with pytest.raises(BadInput, match="--collector: 'updates' watches the steps of a training"):
        _chosen(said, ["fosc", "updates"], here)
    [fosc] = _chosen(said.model_copy(update={"collect": None}), ["fosc"], here)
    assert fosc.examples == 256


@pytest.mark.usefixtures("here")
def test_figures_are_asked_for_before_any_work(monkeypatch):
    def none() -> None:
        raise BadInput("no matplotlib")

    monkeypatch.setattr(observing.drawings, "ready", none)
    with pytest.raises(BadInput, match="no matplotlib"):
        observed("mine", figures="svg")
    assert not Path("results").exists()
    observed("mine")

    monkeypatch.setattr(observing.drawings, "draw", lambda name, *_: b"<svg" if name == "mine" else None)
    drawn = observing._drawn(found("mine", "other"), Path("r"), "t/x", "svg")
    assert drawn == [Path("r/measures/t/x/mine.svg")]
    assert drawn[0].read_bytes() == b"<svg"


@pytest.mark.usefixtures("here")
def test_what_cannot_be_written_or_read_later_is_told_before_the_work():
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    scrap = Path(f"results/records/t/a-s0/.record.json.{int(dead.stdout)}.tmp")
    write_bytes(scrap, b"")
    mine = Path("results/README.md")
    mine.write_text("my project", "utf-8")
    with pytest.raises(BadInput, match=r"README\.md: not written by `advbench board`"):
        observed("mine")
    mine.unlink()
    broken = Path("results/records/t/a-s0/record.json")
    broken.write_text("{", "utf-8")
    with pytest.raises(BadInput, match="not a record"):
        observed("mine")
    assert not BESIDE.exists()
    broken.unlink()
    observed("mine")
    assert not scrap.exists(), "of a process that has gone"
    assert not list(scrap.parent.iterdir())


@pytest.mark.usefixtures("here")
def test_a_crash_leaves_no_measures_that_are_not_those_of_the_arrays(monkeypatch):
    observed("fosc")
    monkeypatch.setattr(observing, "write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        observed("fosc")
    assert not BESIDE.exists()


def trained(path: str = "tiny.toml") -> Record:
    [item] = resolve(Path(path), Path("data"), {}).items
    return run_job(item, Path("results"), Path("data"), torch.device("cpu"), lambda *_: None)


@pytest.mark.usefixtures("here")
def test_a_record_keeps_what_its_training_showed_and_what_others_found():
    record = trained()
    notes = {"fosc": ("before", f"{ALONG}: after epoch 2"), "kept": ("as it was",)}
    more = {"kept": record.measures["mine"]}
    beside = {name: (TRAINED / name).read_bytes() for name in record.files}
    save(record.model_copy(update={"measure_notes": notes, "measures": record.measures | more}), TRAINED, beside)
    observed("fosc", asked=Asked(str(TRAINED)))

    later = load(TRAINED / "record.json")
    fosc = "32 examples, 3 steps from the clean image"
    assert later.measure_notes == {"fosc": (fosc, f"{ALONG}: after epoch 2"), "kept": ("as it was",)}
    assert later.measures == record.measures | more
    assert later.files == record.files


@pytest.mark.usefixtures("here")
def test_a_record_of_other_data_or_threat_or_of_another_folder_is_not_filled(tiny: Any):
    before = trained()
    shutil.copytree("results", "other")
    observed("mine", asked=Asked("other/records/tiny/standard-s0"))
    assert Path("results/measures/tiny/standard-s0/measures.json").is_file()
    shutil.rmtree("results/measures")
    for old, new in (('path = "tiny.npz"', 'path = "tiny.npz"\ntest = 16'), ('"1/10"', '"1/5"')):
        tiny(Path(), "tiny", (old, new), more="\n[collect]\nfosc = { steps = 3 }\n")
        observed("fosc", asked=Asked(str(TRAINED)))
        assert load(TRAINED / "record.json") == before
        shutil.rmtree("results/measures")
    tiny(Path())
    table = TRAINED / "examples.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    observed("fosc", asked=Asked(str(TRAINED)))
    assert load(TRAINED / "record.json") == before, "it is not whole"
