"""The commands as functions: the same records, the same words."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from printed import block
from torch import nn
from typer.testing import CliRunner

from advbench import cli, judging
from advbench.api import BadInput, collect, compare, evaluate, records, run
from advbench.outside import Asked
from advbench.until import Until

ENDS = ("", "_low", "_high", "_n")
TABLES = (("after", "attacks"), ("alone", "alone"), ("curve", "curve"))


class Net(nn.Module):
    """Sees a bright row."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x.mean(3)[:, 0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, "tiny", ('attacks = ["fgsm"]', 'attacks = ["fgsm", "pgd"]\ncurve = ["1/20"]'))


@pytest.mark.usefixtures("here")
def test_a_module_is_judged_as_its_file_is() -> None:
    module = Net().train()
    record = evaluate(module, "tiny.toml", label="mine", device="cpu")
    again = evaluate(Net(), "tiny.toml", label="mine", device="cpu")
    code = inspect.getsource(Net)
    Path("nets.py").write_text(
        f"from __future__ import annotations\nimport torch\nfrom torch import nn\n{code}", "utf-8"
    )
    theirs = evaluate("nets.py:Net", "tiny.toml", label="theirs", device="cpu")

    assert record.scores
    assert theirs.scores == record.scores
    assert again == record, "the same weights are not evaluated again"
    assert theirs.job["model"]["weights_sha256"] == record.job["model"]["weights_sha256"]
    few: Any = evaluate(module, "tiny.toml", label="few", examples=8, device="cpu").scores
    assert few.clean.n == 8
    other = Net()
    other.scale.data.fill_(3)
    with pytest.raises(BadInput, match="is the record of another model"):
        evaluate(other, "tiny.toml", label="mine", device="cpu")
    with pytest.raises(BadInput, match="a module has its weights"):
        evaluate(module, "tiny.toml", weights="w.pth")
    with pytest.raises(BadInput, match="Sequential: "):
        evaluate(nn.Sequential(nn.Flatten()), "tiny.toml", device="cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_run_and_a_module_stand_in_one_table_of_what_their_records_say() -> None:
    text = Path("tiny.toml").read_text("utf-8")
    Path("tiny.toml").write_text(text + "[collect]\nsparsity = {}\ncalibration = {}\n", "utf-8")
    frame = run("tiny.toml", only="tiny/standard*", device="cpu", jobs=1)
    evaluate(Net(), "tiny.toml", label="mine", examples=16, device="cpu")
    table: Any = records("results")

    assert frame[["task", "label", "seed", "status"]].values.tolist() == [["tiny", "standard", 0, "ok"]]
    for _, row in table.iterrows():
        said = json.loads((Path(row["path"]) / "record.json").read_text("utf-8"))
        scores, cost = said["scores"], said["cost"]
        passes = cost["train_forward"] + cost["train_backward"]
        expected: dict[str, Any] = {
            **{name: said[name] for name in ("task", "label", "defense", "seed", "status", "id")},
            "best_epoch": said.get("best_epoch"),
            "norm": "Linf",
            "eps": "1/10",
            **{f"{kind}{end}": scores[kind][end[1:] or "accuracy"] for kind in ("clean", "robust") for end in ENDS},
            "protocol": scores["robust"]["protocol"],
            **{f"{of}/{key}": value for of, name in TABLES for key, value in scores[name].items()},
            "distance": scores.get("distance"),
            "train_passes": passes or None,
            "train_seconds": cost["train_seconds"] or None,
            "passes": cost["forward"] + cost["backward"],
            "seconds": cost["eval_seconds"],
            "flags": ", ".join(sorted({flag["name"] for flag in said["flags"]})),
            **{f"measure/{of}/{n}": v["value"] for of, one in said["measures"].items() for n, v in one.items()},
        }
        found = {name: None if pd.isna(value) else value for name, value in row.items() if name != "path"}
        assert {name: value for name, value in found.items() if value is not None} == {
            name: value for name, value in expected.items() if value is not None
        }
        mine = said["label"] == "mine"
        assert (passes == 0) == (cost["train_seconds"] == 0) == (not said["measures"]) == mine
        assert any(name.startswith("measure/calibration/") for name in expected) != mine
    assert math.isnan(table.set_index("label").loc["mine", "train_passes"])
    assert records("results/records").equals(table)
    with pytest.raises(BadInput, match="holds no record"):
        records("data")


def test_a_comparison_is_the_command_s(repo: Path) -> None:
    board = repo / "leaderboard" / "records" / "digits-linf"
    one, other = board / "pgd-at", board / "fast-at"
    told: Any = json.loads(CliRunner().invoke(cli.app, ["compare", str(one), str(other), "--json"]).stdout)
    found = compare(one, other)
    change: Any = found.main.change

    assert told["comparisons"][0] == json.loads(json.dumps(found.plain() | {"p_together": change.p}))
    with pytest.raises(BadInput, match="24 defenses in common; name one on each side"):
        compare(board, board)


@pytest.mark.usefixtures("here")
def test_collectors_by_name_or_as_tables() -> None:
    found = collect(Net(), "tiny.toml", ["margins", {"name": "fosc"}], examples=16, device="cpu")

    assert found.keys() == {"margins", "fosc"}
    assert found["margins"].values
    assert {measures.notes[0].split(",")[0] for measures in found.values()} == {"16 examples"}
    with pytest.raises(BadInput, match="no collector 'marginz'; did you mean 'margins'"):
        collect(Net(), "tiny.toml", ["marginz"], device="cpu")
    # A default is no number that somebody asked for.
    assert collect(Net(), "tiny.toml", ["sparsity"], device="cpu")["sparsity"].notes[0].startswith("32 examples")
    with pytest.raises(BadInput, match="--examples 100: the task has 32"):
        collect(Net(), "tiny.toml", ["margins"], examples=100, device="cpu")


def test_the_page_s_notebook_runs(repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(repo)
    exec(block(repo / "docs" / "formats.md", "notebook"), {})  # noqa: S102  # the page's own lines

    assert "about these defenses, 5 seeds each" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_what_was_asked_reaches_the_command_s_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("advbench.suite.run", lambda *args, **how: asked.append((args, how)) or 2)
    paths, places = [Path("a"), Path("b")], [Path("results"), Path("data")]
    with pytest.raises(BadInput, match="nothing to run here; the plan says why"):
        run("a", Path("b"), only="x", jobs=3, device="cpu")
    with pytest.raises(BadInput, match="nothing to run here"):
        run(results="r", data_root="d")
    assert asked == [
        ((paths, ["x"], *places, "cpu", 3), {"dry_run": False}),
        (([], [], Path("r"), Path("d"), "auto", None), {"dry_run": False}),
    ]

    asked.clear()
    monkeypatch.setattr("advbench.assess.judged", lambda *args: asked.append(args) or ["the record"])
    for how in ({}, {"width": 3.0}, {"against": "r", "margin": 2.0}):
        more: dict[str, Any] = how
        assert evaluate("net", "tiny.toml", weights="w", checkpoint="last", **more) == "the record"
    assert [args[7] for args in asked] == [
        None,
        Until.of("decided", None, None, 3),
        Until.of("decided", Path("r"), 2, None),
    ]
    where = judging.Where(Path("results"), Path("data"), "auto")
    assert asked[0][:6] == (Asked("net", Path("w"), None, "last"), Path("tiny.toml"), None, None, None, where)


@pytest.mark.usefixtures("here")
def test_random_numbers_begin_at_0_unless_told_otherwise() -> None:
    tables: list[Any] = [{"name": "fosc", "steps": 2, "random_start": True}]
    seeds: list[Any] = [{}, {"seed": 0}, {"seed": 1}]
    found = [collect(Net(), "tiny.toml", tables, device="cpu", **how)["fosc"].values for how in seeds]

    assert found[0] == found[1] != found[2]


def test_a_side_that_failed_altogether_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advbench.compare.read.read", lambda path: [])
    some, none = SimpleNamespace(results=[1]), SimpleNamespace(results=[])
    for pair in ((some, none), (none, some)):
        monkeypatch.setattr("advbench.compare.match.pairs", lambda *_, pair=pair: [pair])
        with pytest.raises(BadInput, match="a and b: every job of one side FAILED: nothing to compare"):
            compare("a", "b")
