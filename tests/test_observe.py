"""`advbench collect`: what collectors find on any model, in its record where there is one."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from outside_net import NETS
from safetensors.torch import load_file

from advbench import find
from advbench.assess import Where, assess
from advbench.collect import collect
from advbench.collectors.base import Collector
from advbench.collectors.fosc import Fosc
from advbench.data.subsets import choose
from advbench.observe import CHEAP, EXAMPLES, _chosen, observe
from advbench.outside import Asked
from advbench.plan import finished, record_folder
from advbench.record import MEASURES, Record, load, whole
from advbench.reproduce import compare
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.seal import sealed
from advbench.spec import BadInput
from advbench.task import Data, check, read
from advbench.threat import Threat

COLLECT = "\n[collect]\nfosc = { steps = 3 }\n"
OUTSIDE = Path("results/records/tiny/nets-Net-w-s0")
TRAINED = Path("results/records/tiny/standard-s0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Path:
    """A folder to stand in, with a tiny task that collects, and a model of another code base."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, "tiny", more=COLLECT)
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    torch.manual_seed(1)
    torch.save({"head.weight": torch.randn(4, 16), "head.bias": torch.zeros(4)}, "w.pth")
    return tmp_path


WHERE = Where(Path("results"), Path("data"), "cpu")
ASKED = Asked("nets.py:Net", Path("w.pth"))


def observed(*names: str, word: str = "nets.py:Net", weights: str | None = "w.pth", label: str | None = None) -> None:
    observe(
        Asked(word, Path(weights) if weights else None), Path("tiny.toml"), None, label, names, WHERE, as_json=False
    )


def evaluated() -> None:
    assess(Asked("nets.py:Net", Path("w.pth")), Path("tiny.toml"), None, None, None, WHERE, as_json=False)


def kept(folder: Path) -> Record:
    record = load(folder / "record.json")
    assert whole(record, folder)
    return record


def test_an_outside_model_in_one_command(here: Path, command):
    line = ("collect", "nets.py:Net", "--weights", "w.pth", "--task", "tiny.toml", "--json")
    done = command(here, *line)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["path"] == "results/measures/tiny/nets-Net-w/measures.json"
    model = runpy.run_path("nets.py")["Net"]()
    model.load_state_dict(torch.load("w.pth"))
    data = Data(name="npz", path="tiny.npz")
    test = choose(find.read_data(data, Path("data")), data, "cpu").test
    direct = collect(model, test, Threat("Linf", 0.1), [Fosc(steps=3)])["fosc"]
    assert {name: value["value"] for name, value in told["measures"]["fosc"].items()} == {
        name: value.value for name, value in direct.values.items()
    }
    assert told["measure_notes"] == {"fosc": ["32 examples, 3 steps from the clean image"]}
    file = json.loads((here / told["path"]).read_text("utf-8"))
    assert {key: file[key] for key in ("measures", "measure_notes")} == {
        key: told[key] for key in ("measures", "measure_notes")
    }
    assert torch.equal(
        load_file(here / told["path"].replace("json", "safetensors"))["fosc/fosc"], direct.arrays["fosc"]
    )
    assert not (here / "results" / "records").exists()

    wrong = command(here, *line, "--collector", "fsoc")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "advbench: --collector: no collector 'fsoc'; did you mean 'fosc'?\n"


@pytest.mark.usefixtures("here")
def test_they_go_into_the_record_of_that_very_model(capsys: pytest.CaptureFixture[str]):
    evaluated()
    before = kept(OUTSIDE)
    observed("margins", "sparsity")
    first = kept(OUTSIDE)
    observed("fosc", "sparsity")
    last = kept(OUTSIDE)

    assert sorted(last.measures) == ["fosc", "margins", "sparsity"]
    assert last.measures["margins"] == first.measures["margins"]
    assert {name.partition("/")[0] for name in load_file(OUTSIDE / MEASURES)} >= {"fosc", "margins"}
    same = {"measures": {}, "measure_notes": {}, "files": before.files, "sha256": before.sha256}
    assert last.model_copy(update=same) == before
    assert not Path("results/measures").exists()
    [line] = csv.DictReader(Path("results/board.csv").read_text("utf-8").splitlines())
    assert float(line["measure.fosc.fosc_mean"]) == last.measures["fosc"]["fosc_mean"].value
    assert "fosc_mean" in capsys.readouterr().out
    # Another model under that label has no such record.
    torch.save({"head.weight": torch.ones(4, 16), "head.bias": torch.zeros(4)}, "v.pth")
    observed("margins", weights="v.pth", label="nets-Net-w")
    assert kept(OUTSIDE) == last
    assert Path("results/measures/tiny/nets-Net-w/measures.json").is_file()
    torch.save({"head.weight": torch.zeros(4, 16), "head.bias": torch.zeros(4)}, "u.pth")
    with pytest.raises(
        BadInput, match=r"measures\.json: holds another model's measures; give this one another --label"
    ):
        observed("margins", weights="u.pth", label="nets-Net-w")


@pytest.mark.usefixtures("here")
def test_a_job_keeps_what_was_collected_later_and_stays_reproducible(monkeypatch: pytest.MonkeyPatch):
    [item] = resolve(Path("tiny.toml"), Path("data"), {}).items
    record = run_job(item, Path("results"), Path("data"), torch.device("cpu"), lambda *_: None)

    def boom(*_: Any) -> Any:
        raise AssertionError("the run has journalled it")

    monkeypatch.setattr(Fosc, "collect", boom)
    observed("fosc", "margins", word=str(TRAINED), weights=None)
    later = kept(TRAINED)

    assert later.measures["fosc"] == record.measures["fosc"]
    assert later.measures["margins"]
    assert later.files[MEASURES] != record.files[MEASURES]
    assert compare(later, record).verdict == "EQUAL"
    assert finished(item, Path("results")).cached


@pytest.mark.usefixtures("here")
def test_only_the_judged_weights_may_fill_the_record():
    [item] = resolve(Path("tiny.toml"), Path("data"), {}).items
    run_job(item, Path("results"), Path("data"), torch.device("cpu"), lambda *_: None)
    record = kept(TRAINED)
    digests = {**record.provenance["weights_sha256"], "best": "0" * 64}
    file = record_folder(Path("results"), item.path) / "record.json"
    other = record.model_copy(update={"provenance": {"weights_sha256": digests}}).plain()
    file.write_text(json.dumps(sealed(other)), "utf-8")
    said = Asked(str(TRAINED), checkpoint="last")
    observe(said, Path("tiny.toml"), None, None, ["margins"], WHERE, as_json=False)

    assert kept(TRAINED).measures == record.measures
    assert Path("results/measures/tiny/standard-s0-last/measures.json").is_file()


@pytest.mark.usefixtures("here")
def test_what_was_judged_on_a_part_of_the_examples_is_not_filled_with_measures_of_all():
    assess(Asked("nets.py:Net", Path("w.pth")), Path("tiny.toml"), None, None, 10, WHERE, as_json=False)
    observed("margins")

    assert Path("results/measures/tiny/nets-Net-w/measures.json").is_file()
    assert [load(file).measures for file in Path("results/records").rglob("record.json")] == [{}]


@pytest.mark.usefixtures("here")
def test_by_default_everything_but_what_moves_or_bends_the_weights_or_proves(tiny: Any):
    tiny(Path())  # without [collect]
    observed()
    found = json.loads(Path("results/measures/tiny/nets-Net-w/measures.json").read_text("utf-8"))

    dear = {"certified", "param-hessian", "sharpness", "smoothness", "updates"}
    assert set(found["measure_notes"]) == set(CHEAP) == set(find.names(find.PACKAGE / "collectors")) - dear
    assert all(notes[0].startswith("32 examples") for notes in found["measure_notes"].values())


def test_a_collector_that_the_task_does_not_set_takes_its_own_number_of_examples_and_never_all(
    tmp_path: Path, tiny: Any
):
    said, _ = check(read(tiny(tmp_path)))
    assert said is not None

    found = {one.name: one.examples for one in _chosen(said, ["smoothness", "fosc"], tmp_path)}

    assert find.part(Collector, "fosc")().examples is None  # all, where a task says no more
    assert found == {"smoothness": 128, "fosc": EXAMPLES}


@pytest.mark.usefixtures("here")
def test_figures_lie_beside_no_record_and_are_named(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="figures need matplotlib: advbench[plots]")
    assess(Asked("nets.py:Net", Path("w.pth")), Path("tiny.toml"), None, None, None, WHERE, as_json=False)
    before = sorted(path.name for path in OUTSIDE.iterdir())
    capsys.readouterr()
    observe(ASKED, Path("tiny.toml"), None, None, ["fosc"], WHERE, as_json=True, figures="svg")

    said = json.loads(capsys.readouterr().out)
    [figure] = said["figures"]
    assert Path(figure) == Path("results/measures/tiny/nets-Net-w-s0/fosc.svg")
    assert b"<svg" in Path(figure).read_bytes()
    assert sorted(path.name for path in OUTSIDE.iterdir()) == sorted([*before, MEASURES])
    observe(ASKED, Path("tiny.toml"), None, "other", ["fosc"], WHERE, as_json=True, figures="png")
    assert Path("results/measures/tiny/other/fosc.png").is_file()
