"""`advbench evaluate`: an outside checkpoint in one command, judged exactly as the task's own, and never twice."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import paged
import pyarrow.parquet as pq
import pytest
import torch
from outside_net import nets
from printed import block
from safetensors import safe_open
from torch import nn

from advbench import board
from advbench.assess import Where, assess
from advbench.data.base import DataSet
from advbench.data.subsets import choose
from advbench.outside import Asked
from advbench.record import Record
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.spec import BadInput
from advbench.task import Data

NETS = nets(
    'if Path("stop").exists() and list(Path("results").rglob("journal/*/1.safetensors")):',
    "    raise KeyboardInterrupt",
    'if Path("fail").exists() and len(x) > 2:',
    '    raise ValueError("no more than two")',
)
LADDER = ('attacks = ["fgsm"]', 'attacks = ["fgsm", "pgd"]\nblock = 16\ncurve = ["1/20"]')


def examples(folder: Path) -> dict[str, list[Any]]:
    return pq.read_table(folder / "examples.parquet").to_pydict()  # pyright: ignore[reportUnknownMemberType]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Path:
    """A folder to stand in, with the tiny task, another code base and its checkpoint."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, "tiny", LADDER)
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    torch.manual_seed(1)
    torch.save({"head.weight": torch.randn(4, 16), "head.bias": torch.zeros(4)}, "w.pth")
    return tmp_path


def judged(word: str = "nets.py:Net", weights: str | None = "w.pth", **rest: Any) -> None:
    options: dict[str, Any] = {"only": None, "label": None, "examples": None, "results": "results"} | rest
    assess(
        Asked(word, Path(weights) if weights else None),
        Path(options.get("task", "tiny.toml")),
        options["only"],
        options["label"],
        options["examples"],
        Where(Path(options["results"]), Path("data"), "cpu"),
        as_json=options.get("as_json", False),
    )


def train() -> list[Record]:
    """The tiny task's own jobs, done."""
    items = resolve(Path("tiny.toml"), Path("data"), {}).items
    return [run_job(item, Path("results"), Path("data"), torch.device("cpu"), lambda *_: None) for item in items]


def refused(*arguments: Any, **rest: Any) -> str:
    with pytest.raises(BadInput) as caught:
        judged(*arguments, **rest)
    [line] = caught.value.lines
    return line


def record(path: str = "tiny/nets-Net-w-s0", results: str = "results") -> dict[str, Any]:
    return json.loads((Path(results) / "records" / path / "record.json").read_text("utf-8"))


def test_an_outside_checkpoint_is_evaluated_in_one_command(
    repo: Path, tmp_path: Path, command, digits: DataSet
) -> None:
    page = repo / "docs" / "outside.md"
    (tmp_path / "nets.py").write_text(block(page, "outside-model"), "utf-8")
    scope: dict[str, Any] = {}
    exec(block(page, "outside-model"), scope)  # noqa: S102  # the page's own lines, as the other code base has them
    torch.manual_seed(0)
    model = nn.DataParallel(scope["small"](10))
    data = choose(digits, Data(name="digits"), "cpu")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for rows in torch.arange(len(data.train)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.pixels(rows)), data.train.labels[rows]).backward()
        optimizer.step()
    torch.save(
        {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, tmp_path / "small.pth"
    )
    (tmp_path / "tasks").mkdir()
    text = (repo / "tasks" / "digits-linf.toml").read_text("utf-8")
    text = re.sub(r"attacks = .*\ncurve = .*", 'attacks = ["fgsm", "pgd"]', text)
    (tmp_path / "tasks" / "digits-linf.toml").write_text(text, "utf-8")

    advbench, *words = shlex.split(block(page, "outside-command"))
    done = command(tmp_path, *words, "--json")

    assert (advbench, done.returncode) == ("advbench", 0), done.stderr
    told = json.loads(done.stdout)
    right = int((model.eval()(data.test.pixels(slice(None))).argmax(1) == data.test.labels).sum())
    assert right > 250, "it has learned something"
    assert (told["scores"]["clean"]["n"], told["scores"]["clean"]["accuracy"]) == (360, right / 360)
    assert told["scores"]["robust"]["accuracy"] < told["scores"]["clean"]["accuracy"]
    assert (told["status"], told["defense"], told["cached"]) == ("ok", "external", False)
    assert "every name began with 'module.'" in done.stderr
    assert {k: v for k, v in told.items() if k not in ("path", "cached")} == json.loads(
        (tmp_path / told["path"]).read_text("utf-8")
    )


@pytest.mark.usefixtures("here")
def test_a_job_of_ours_has_the_verdicts_of_its_own_record(tiny: Any) -> None:
    [trained] = train()
    judged("results/records/tiny/standard-s0", None)
    judged("results/runs/tiny/standard-s0", None, label="again")

    mine = examples(Path("results/records/tiny/standard-s0"))
    assert {None, "clean", "fgsm"} <= set(mine["broken_by"]), "the ladder has something to tell"
    for label in ("standard-s0", "again"):
        assert examples(Path(f"results/records/tiny/{label}-s0")) == mine
        found = record(f"tiny/{label}-s0")
        assert found["scores"] == trained.plain()["scores"]
        assert found["provenance"]["weights_sha256"] == {"external": trained.provenance["weights_sha256"]["best"]}

    [row] = [row for row in Path("results/README.md").read_text("utf-8").splitlines() if "| standard-s0 |" in row]
    assert "trained elsewhere: results/records/tiny/standard-s0" in row
    assert "other settings" not in row
    other = Path("results/runs/tiny/standard-s0/best.safetensors")
    other.write_bytes(other.read_bytes()[:-1] + b"\x01")
    assert "not the weights of the record: sha256" in refused("results/records/tiny/standard-s0", None)


@pytest.mark.usefixtures("here")
def test_what_is_done_is_not_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    judged()
    before = Path("results/records/tiny/nets-Net-w-s0/record.json").stat().st_mtime_ns
    said = capsys.readouterr().out
    assert "evaluated before" not in said
    assert f"record: {Path('results/records/tiny/nets-Net-w-s0/record.json')}\n" in said
    assert f"board: {Path('results/index.html')}\n" in said
    judged()
    assert "tiny/nets-Net-w: evaluated before" in capsys.readouterr().out
    assert Path("results/records/tiny/nets-Net-w-s0/record.json").stat().st_mtime_ns == before
    # Another ladder is another evaluation of the same model, and takes the old one's place.
    Path("tiny.toml").write_text(Path("tiny.toml").read_text("utf-8").replace('"fgsm", "pgd"', '"pgd"'), "utf-8")
    judged()
    assert record()["scores"]["attacks"].keys() == {"pgd"}


@pytest.mark.usefixtures("here")
def test_a_stopped_evaluation_goes_on_where_it_stopped() -> None:
    Path("stop").touch()
    with pytest.raises(KeyboardInterrupt):
        judged()
    [first] = Path("results").rglob("journal/*/0.safetensors")
    kept = journalled(first)
    assert not Path("results/records").exists()

    Path("stop").unlink()
    judged()
    judged(results="whole")
    now = journalled(first)
    assert now[: len(kept)] == kept
    assert len(now) > len(kept) > 0
    assert examples(Path("results/records/tiny/nets-Net-w-s0")) == examples(Path("whole/records/tiny/nets-Net-w-s0"))
    assert record()["scores"] == record(results="whole")["scores"]
    assert record()["id"] == record(results="whole")["id"]


def journalled(path: Path) -> list[str]:
    """The stages that a journal's entry has done."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["done"])


@pytest.mark.usefixtures("here")
def test_the_first_examples_are_those_of_the_whole_and_the_record_says_how_many() -> None:
    judged()
    judged(label="few", examples=16)
    judged(label="all", examples=32)
    few, whole = examples(Path("results/records/tiny/few-s0")), examples(Path("results/records/tiny/nets-Net-w-s0"))
    assert few == {name: values[:16] for name, values in whole.items()}
    assert record("tiny/few-s0")["job"]["examples"] == 16
    assert record("tiny/few-s0")["scores"]["clean"]["n"] == 16
    assert record("tiny/all-s0")["id"] == record()["id"], "all there are is no fewer"
    assert refused(examples=33) == "--examples 33: the task has 32 test examples"


@pytest.mark.usefixtures("here")
def test_the_record_of_another_model_is_not_written_over() -> None:
    judged(label="theirs")
    torch.save({"head.weight": torch.ones(4, 16), "head.bias": torch.zeros(4)}, "w.pth")
    assert "is the record of another model (weights_sha256 " in refused(label="theirs")
    assert refused(label="standard").startswith("--label standard: is a defense of tiny.toml")
    train()
    Path("results/records/tiny/standard-s0").rename("results/records/tiny/plain-s0")
    assert "is the record of a training; give the model another --label" in refused(label="plain")


@pytest.mark.usefixtures("here")
def test_a_sweep_s_task_is_chosen_by_name(tiny: Any) -> None:
    tiny(Path(), "swept", ('"1/10"', '["1/20", "1/10"]'))
    names = "swept@eps=1-20, swept@eps=1-10"
    assert refused(task="swept.toml") == f"swept.toml: means 2 tasks; choose one with --only: {names}"
    assert f"matches 0 of its tasks; choose one with --only: {names}" in refused(task="swept.toml", only="x")
    judged(task="swept.toml", only="*1-20")
    assert record("swept@eps=1-20/nets-Net-w-s0")["job"]["threat"]["eps"] == "1/20"


@pytest.mark.usefixtures("here")
def test_the_task_s_training_and_defenses_are_not_looked_at(tiny: Any) -> None:
    tiny(Path(), "odd", ('name = "standard"', 'file = "absent.py"'), ("epochs = 1", "epochs = -1"))
    judged(task="odd.toml")
    assert not {"training", "defense"} & record("odd/nets-Net-w-s0")["job"].keys()


@pytest.mark.usefixtures("here")
def test_mistakes_are_a_line_each_and_nothing_is_written(tiny: Any) -> None:
    tiny(Path(), "wrong", ('"fgsm"', '"fsgm"'))
    tiny(Path(), "needy", (LADDER[0], f"{LADDER[0]}\n[resources]\naccelerator = true"))
    assert refused(task="wrong.toml") == "wrong.toml: evaluation.attacks[0]: no attack 'fsgm'; did you mean 'fgsm'?"
    assert refused(task="absent.toml") == "absent.toml: no such file or folder"
    assert refused(task=".").startswith("--task .: is a folder; give one of its task files")
    assert refused(label="a/b").startswith("--label 'a/b': names folders")
    Path("data/tiny.npz").rename("data/away.npz")
    assert refused().startswith("tiny.toml: ")
    assert not Path("results").exists()


@pytest.mark.usefixtures("here")
def test_a_model_that_fails_later_is_a_line_too() -> None:
    Path("fail").touch()
    assert refused() == (
        "nets.py:Net: stopped in the evaluation: ValueError: no more than two; what was done is kept, --debug shows "
        "where it was"
    )
    assert not Path("results/records").exists()


@pytest.mark.usefixtures("here")
def test_the_board_shows_it_beside_the_task_s_own_and_leaves_it_out_at_equal_budgets(tiny: Any) -> None:
    tiny(Path(), "tiny", LADDER, more='[[defense]]\nname = "fast-at"\n')
    train()
    board.build(Path("results"))
    before = json.loads(Path("results/board.json").read_text("utf-8"))["tasks"][0]
    judged()
    after = json.loads(Path("results/board.json").read_text("utf-8"))["tasks"][0]

    assert [group["label"] for group in after["groups"]].count("nets-Net-w") == 1
    [group] = [group for group in after["groups"] if group["label"] == "nets-Net-w"]
    assert group["notes"] == ["trained elsewhere: nets.py:Net"]
    assert (group["train_seconds"], group["train_passes"]) == (None, None)
    assert before["budgets"], "there is something to leave it out of"
    assert {k: v for k, v in after.items() if k != "groups"} == {k: v for k, v in before.items() if k != "groups"}
    # A rank is among all of the task's rows, and one more can take any of them further down.
    others = [{k: v for k, v in g.items() if k != "rank"} for g in after["groups"] if g is not group]
    assert others == [{k: v for k, v in g.items() if k != "rank"} for g in before["groups"]]
    again = "advbench evaluate nets.py:Net --weights w.pth --task tiny.toml --label nets-Net-w"
    assert again in json.dumps(paged.parts(Path("results/index.html").read_text("utf-8")))
