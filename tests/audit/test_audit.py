"""An honest record is confirmed, whatever the seed; one that was tampered with is refuted, and the line says why."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load as tensors
from safetensors.torch import save as safetensors
from typer.testing import CliRunner

from advbench import cli
from advbench.assess import Where, assess
from advbench.audit.show import Audit, audit
from advbench.outside import Asked
from advbench.record import load, save
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.spec import BadInput

N = 120
LADDER = 'attacks = ["fgsm"]', 'attacks = ["fgsm", { name = "pgd", steps = 3 }]\nblock = 50'
LUCKY = 'attacks = ["fgsm"]', 'attacks = [{ name = "pgd", steps = 1, step_size = 0.5 }]\nblock = 50'
RECORD, RUN = "results/records/tiny/standard-s0", "results/runs/tiny/standard-s0"

Row = dict[str, Any]


def trained(folder: Path, tiny: Any, name: str, ladder: tuple[str, str]) -> None:
    """Two seeds of a task whose test images are partly robust, partly not."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 64), ("test", N)):
        labels = np.arange(n) % 4
        images = rng.integers(0, 130, (n, 4, 4), dtype=np.uint8)
        images[np.arange(n), labels] += 60  # class c: a bright row c, not always the brightest
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    (folder / "data").mkdir(exist_ok=True)
    np.savez(folder / "data" / "tiny.npz", **arrays)
    task = tiny(folder, name, ladder, ("epochs = 1", "epochs = 8"), ("seeds = [0]", "seeds = [0, 1]"))
    for item in resolve(task, folder / "data", {}).items:
        run_job(item, folder / "results", folder / "data", torch.device("cpu"), lambda *_: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    trained(folder, tiny, "tiny", LADDER)
    return folder


@dataclass
class Bench:
    """A copy of the honest results, for tampering."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / RECORD

    def rows(self) -> list[Row]:
        return pq.read_table(self.record / "examples.parquet").to_pylist()

    def sample(self) -> dict[str, torch.Tensor]:
        return tensors((self.record / "adversarial.safetensors").read_bytes())

    def rewrite(self, *, rows: list[Row] | None = None, sample: Any = None, **fields: Any) -> None:
        """The record with other parts, and with digests and scores to match, as a careful forger writes it."""
        record = load(self.record / "record.json")
        beside = {name: (self.record / name).read_bytes() for name in record.files}
        if sample is not None:
            beside["adversarial.safetensors"] = safetensors(sample)
        if rows is not None:
            table = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(self.record / "examples.parquet")), table)
            beside["examples.parquet"] = table.getvalue()
            scores = record.scores
            assert scores
            assert scores.robust
            counts = {
                name: accuracy.model_copy(update={"accuracy": sum(map(of, rows)) / len(rows), "n": len(rows)})
                for name, accuracy, of in (
                    ("clean", scores.clean, lambda row: row["broken_by"] != "clean"),
                    ("robust", scores.robust, lambda row: row["broken_by"] is None),
                )
            }
            fields |= {"scores": scores.model_copy(update=counts)}
        save(record.model_copy(update=fields), self.record, beside)

    def audit(self, word: str = RUN, seed: int = 7, examples: int | None = N, **asked: Any) -> Audit:
        quiet = Console(file=io.StringIO())
        model = Asked(str(self.folder / word) if "/" in word else word, **asked)
        return audit(self.record, model, examples, seed, self.folder / "data", "cpu", quiet)

    def refuted(self, **options: Any) -> dict[str, str]:
        """What refutes it, and in which words."""
        found = self.audit(**options)
        assert found.verdict == "REFUTED"
        return {finding.name: finding.said for finding in found.findings if finding.verdict == "REFUTED"}


@pytest.fixture
def bench(made: Path, tmp_path: Path) -> Bench:
    shutil.copytree(made, tmp_path / "copy")
    return Bench(tmp_path / "copy")


def test_an_honest_record_is_confirmed_whatever_the_seed(bench: Bench) -> None:
    kinds = {row["broken_by"] for row in bench.rows()}
    assert {None, "clean", "fgsm"} <= kinds, "there is something to audit of each kind"
    names = ["files", "id", "scores", "data", "weights", "examples", "clean", "sample", "attack"]
    for seed in range(1, 6):
        found = bench.audit(seed=seed, examples=100).findings
        assert [(finding.name, finding.verdict) for finding in found] == [(name, "CONFIRMED") for name in names], found


def test_a_model_that_was_trained_elsewhere_is_audited_too(bench: Bench) -> None:
    (bench.folder / "nets.py").write_text(
        "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))\n",
        "utf-8",
    )
    word = str(bench.folder / "nets.py:net")
    torch.manual_seed(0)
    weights = {"1.weight": 3 * torch.eye(4).repeat_interleave(4, 1) + torch.randn(4, 16), "1.bias": torch.zeros(4)}
    for name, tensors_ in (("w", weights), ("other", weights | {"1.bias": torch.ones(4)})):
        torch.save(tensors_, bench.folder / f"{name}.pth")
    where = Where(bench.folder / "results", bench.folder / "data", "cpu")
    asked = Asked(word, bench.folder / "w.pth")
    assess(asked, bench.folder / "tiny.toml", None, "theirs", 100, where, as_json=False)
    shutil.rmtree(bench.record)
    shutil.copytree(bench.folder / "results/records/tiny/theirs-s0", bench.record)

    assert bench.audit(word, examples=100, weights=bench.folder / "w.pth").verdict == "CONFIRMED"
    assert "weights" in bench.refuted(word=word, examples=100, weights=bench.folder / "other.pth")


def test_an_attack_that_lives_by_luck_refutes_no_honest_record(tmp_path: Path, tiny: Any) -> None:
    trained(tmp_path, tiny, "tiny", LUCKY)
    found = [bench.audit(seed=seed).findings[-1] for bench in [Bench(tmp_path)] for seed in range(1, 9)]

    assert sum(f.numbers["fell"] for f in found) >= 8, "luck decides of some examples"
    verdicts = [finding.verdict for finding in found]
    assert "REFUTED" not in verdicts
    assert verdicts.count("CONFIRMED") >= 7


def test_edited_verdicts_fall_to_the_second_attack(bench: Bench) -> None:
    rows, stored = bench.rows(), set(bench.sample()["index"].tolist())
    broken = [row for row in rows if row["broken_by"] in ("fgsm", "pgd")]
    for row in broken[:10]:
        row["broken_by"] = None
    kept = {"index": torch.tensor([i for i in stored if i not in {row["index"] for row in broken[:10]}])}
    where = {int(i): place for place, i in enumerate(bench.sample()["index"])}
    kept["images"] = bench.sample()["images"][[where[int(i)] for i in kept["index"]]]
    bench.rewrite(rows=rows, sample=kept)

    assert "10 of" in (said := bench.refuted()["attack"])
    assert "that it calls robust fell to fresh randomness, 0 that it calls broken stood" in said


def test_edited_verdicts_contradict_the_stored_sample(bench: Bench) -> None:
    rows = bench.rows()
    first = int(bench.sample()["index"][0])
    next(row for row in rows if row["index"] == first)["broken_by"] = None
    bench.rewrite(rows=rows)

    assert bench.refuted().keys() == {"sample"}


def test_robust_examples_that_are_called_broken_stand(bench: Bench) -> None:
    rows = bench.rows()
    for row in [row for row in rows if row["broken_by"] is None][:10]:
        row["broken_by"] = "pgd"
    bench.rewrite(rows=rows)

    assert "10 that it calls broken stood" in bench.refuted()["attack"]


def test_edited_scores_are_not_those_of_the_table(bench: Bench) -> None:
    file = bench.record / "record.json"
    raw = json.loads(file.read_text("utf-8"))
    raw["scores"]["robust"]["accuracy"] += 0.05
    file.write_text(json.dumps(raw), "utf-8")

    assert bench.refuted().keys() == {"scores"}


def test_an_exchanged_table_is_not_the_one_of_the_record(bench: Bench) -> None:
    other = bench.folder / "results/records/tiny/standard-s1/examples.parquet"
    (bench.record / "examples.parquet").write_bytes(other.read_bytes())

    assert bench.refuted()["files"] == "examples.parquet: not as the record was written"


def test_another_model_is_told_by_its_weights_and_if_these_are_forged_by_its_answers(bench: Bench) -> None:
    other = "results/runs/tiny/standard-s1"
    assert bench.refuted(word=other)["weights"].startswith("sha256 ")

    theirs = load(bench.folder / "results/records/tiny/standard-s1/record.json").provenance["weights_sha256"]
    bench.rewrite(provenance={"weights_sha256": theirs})
    assert bench.refuted(word=other).keys() >= {"clean", "sample"}


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda kept, x: kept["images"][0].add_(0.02), "1 lie outside"),
        (lambda kept, x: kept["images"][0].copy_(x[int(kept["index"][0])]), "1 do not fool it"),
        (lambda kept, x: kept["images"][0].fill_(torch.nan), "1 lie outside"),
        (lambda kept, x: kept["index"].copy_(kept["index"].roll(1)), "lie outside"),
        (lambda kept, x: kept["index"][0].fill_(N + 1), "that the record does not call broken"),
        (lambda kept, x: kept.update(images=kept["images"].double()), "cannot be what it should"),
        (lambda kept, x: kept.update(index=kept["index"][:-1]), "cannot be what it should"),
    ],
    ids=["outside", "untouched", "nan", "swapped", "stranger", "double", "short"],
)
def test_a_tampered_sample_is_refuted(bench: Bench, tamper: Callable[..., Any], said: str) -> None:
    kept = bench.sample()
    x = torch.from_numpy(np.load(bench.folder / "data" / "tiny.npz")["x_test"]).float().div(255)[:, None]
    tamper(kept, x)
    bench.rewrite(sample=kept)

    assert said in bench.refuted()["sample"]


def test_an_edited_job_is_not_the_one_of_its_id(bench: Bench) -> None:
    job = json.loads((bench.record / "record.json").read_text("utf-8"))["job"]
    bench.rewrite(job=job | {"threat": {"norm": "Linf", "eps": "1/5"}})
    assert "and its job has" in bench.refuted()["id"]


def test_hard_examples_that_were_left_out_are_missed(bench: Bench) -> None:
    bench.rewrite(rows=[row for row in bench.rows() if row["broken_by"] is None])
    assert f"of the task's {N} are missing, 0 are none of them" in bench.refuted(examples=None)["examples"]


def test_other_data_are_told_and_nothing_is_asked(bench: Bench) -> None:
    file = bench.folder / "data" / "tiny.npz"
    arrays = dict(np.load(file))
    arrays["x_test"][0, 0, 0] ^= 1
    np.savez(file, **arrays)
    found = bench.audit()
    assert [(f.name, f.verdict) for f in found.findings][3:] == [("data", "REFUTED")]


def test_the_command_prints_says_and_exits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.folder)

    def command(*more: str) -> Any:
        return CliRunner().invoke(cli.app, ["audit", RECORD, RUN, "--seed", "5", "--device", "cpu", *more])

    done = command("--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["verdict"], told["seed"]) == (0, "CONFIRMED", 5)
    assert told["findings"][-1]["numbers"]["examples"] == 100
    few = command("--examples", "4")
    assert few.exit_code == 3
    assert "too few to refute anything; --examples 16 says more" in few.stdout
    assert few.stdout.splitlines()[-1] == "INCONCLUSIVE, under the seed 5"
    rows = bench.rows()
    rows[0]["predicted"] = (rows[0]["predicted"] + 1) % 4
    bench.rewrite(rows=rows)
    assert command("--examples", str(N)).exit_code == 1


def test_what_cannot_be_audited_is_one_line(bench: Bench) -> None:
    def line(**options: Any) -> str:
        with pytest.raises(BadInput) as caught:
            bench.audit(**options)
        [said] = caught.value.lines
        return said

    assert line(examples=N + 1) == f"--examples {N + 1}: the record has {N}"
    assert line(seed=0) == "--seed 0: is the record's own; fresh randomness needs another"
    job = load(bench.record / "record.json").job
    bench.rewrite(job=job | {"evaluation_protocol": 2})
    assert "evaluated under protocol 2, this advbench attacks under 3" in line()
    bench.rewrite(job={name: value for name, value in job.items() if name != "data"})
    assert "not a job of this version of advbench: job.data is missing" in line()
    bench.rewrite(job=job, status="failed")
    assert "there is nothing to audit" in line()
