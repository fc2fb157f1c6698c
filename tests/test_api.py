"""The commands as functions: the same records, the same words."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from printed import block
from torch import nn
from typer.testing import CliRunner

from advbench import cli
from advbench.api import BadInput, collect, compare, evaluate, records, run


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


@pytest.mark.usefixtures("here")
def test_a_run_and_a_module_stand_in_one_table() -> None:
    frame = run("tiny.toml", device="cpu", jobs=1)
    assert frame[["task", "label", "seed", "status"]].values.tolist() == [["tiny", "standard", 0, "ok"]]
    evaluate(Net(), "tiny.toml", label="mine", device="cpu")
    table: Any = records("results").set_index("label")

    for label, row in table.iterrows():
        said = json.loads((Path(row["path"]) / "record.json").read_text("utf-8"))
        scores, cost = said["scores"], said["cost"]
        assert (row["clean"], row["robust"], row["robust_low"]) == (
            scores["clean"]["accuracy"],
            scores["robust"]["accuracy"],
            scores["robust"]["low"],
        )
        assert (row["after/pgd"], row["curve/1/20"]) == (scores["attacks"]["pgd"], scores["curve"]["1/20"])
        assert row["passes"] == cost["forward"] + cost["backward"], label
    assert table.loc["standard", "train_passes"] > 0
    assert math.isnan(table.loc["mine", "train_passes"])
    assert records("results/records").equals(records("results"))
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
