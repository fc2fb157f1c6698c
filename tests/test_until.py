"""An evaluation that stops when enough is known: it saves examples, errs no more than it says, and tells why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from outside_net import nets
from typer.testing import CliRunner

from advbench import cli
from advbench.external import drawn
from advbench.spec import BadInput
from advbench.until import Rule, Until, Watch

N = 1000
NETS = nets(
    'if Path("stop").exists() and list(Path("results").rglob("journal/*/1/0.safetensors")):',
    "    raise KeyboardInterrupt",
)
LADDER = 'attacks = ["fgsm"]', 'attacks = ["fgsm"]\nblock = 40'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    """A folder with a task of 1,000 test images and three sets of weights: good, as good, bad."""
    folder = tmp_path_factory.mktemp("until")
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 64), ("test", N)):
        labels = np.arange(n) % 4
        images = rng.integers(0, 130, (n, 4, 4), dtype=np.uint8)
        images[np.arange(n), labels] += 60
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    (folder / "data").mkdir()
    np.savez(folder / "data" / "tiny.npz", **arrays)
    tiny(folder, "tiny", LADDER, ('"1/10"', '"1/40"'))
    (folder / "nets.py").write_text(NETS, "utf-8")
    rows = torch.eye(4).repeat_interleave(4, 1)
    noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    for name, weight in (("good", rows), ("same", rows + 0.01 * noise), ("bad", rows + 0.4 * noise)):
        torch.save({"head.weight": weight, "head.bias": torch.zeros(4)}, folder / f"{name}.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("good", "same", "bad"):
            assert evaluated(name, results="whole")["stopped"] is None
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data", "whole", "nets.py", "tiny.toml", "good.pth", "same.pth", "bad.pth"):
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)


def evaluated(name: str, *options: str, results: str = "results", label: str = "") -> dict[str, Any]:
    """What the record says of how it came about."""
    words = ["evaluate", "nets.py:Net", "--weights", f"{name}.pth", "--task", "tiny.toml", "--label", label or name]
    done = CliRunner().invoke(cli.app, [*words, "--results", results, "--device", "cpu", *options])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    record = json.loads(Path(f"{results}/records/tiny/{label or name}-s0/record.json").read_text("utf-8"))
    return {"stopped": None, "robust_n": record["scores"]["robust"]["n"], **record["provenance"].get("until", {})}


def robust(folder: str) -> dict[int, bool]:
    table = pq.read_table(Path(folder) / "examples.parquet").to_pydict()
    return dict(zip(table["index"], [by is None for by in table["broken_by"]], strict=True))


DECIDED = "--until", "decided", "--against", "whole/records/tiny/good-s0", "--margin", "5"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("name", "why"), [("same", "above -margin"), ("bad", "below -margin")])
def test_it_stops_when_the_difference_is_clear_and_the_interval_holds_the_truth(name: str, why: str) -> None:
    found = evaluated(name, *DECIDED)
    theirs, ours = robust("whole/records/tiny/good-s0"), robust(f"whole/records/tiny/{name}-s0")
    truth = np.mean([ours[i] - theirs[i] for i in ours])

    assert (truth < -0.05) == (name == "bad")
    assert (found["stopped"], found["of"]) == (why, N)
    assert found["against"] == "whole/records/tiny/good-s0", "for whoever does it again"
    assert found["examples"] == found["robust_n"] < N / 2, "that is what it is for"
    assert found["examples"] % 40 == 0
    assert found["difference"][0] <= truth <= found["difference"][1]
    assert found["robust"][0] <= np.mean(list(ours.values())) <= found["robust"][1]
    # FGSM draws no random numbers: each verdict is that of the whole evaluation, of the first examples drawn.
    taken = robust(f"results/records/tiny/{name}-s0")
    assert taken == {i: ours[i] for i in taken}
    order = drawn(N, 0)
    assert len(np.unique(order)) == N
    index = list(ours)  # in the order of the test set
    assert list(taken) == [index[place] for place in order[: len(taken)]]


@pytest.mark.usefixtures("here")
def test_where_nothing_is_clear_it_takes_all() -> None:
    truth = np.mean(list(robust("whole/records/tiny/bad-s0").values()))
    truth -= np.mean(list(robust("whole/records/tiny/good-s0").values()))
    found = evaluated("bad", *DECIDED[:-1], repr(-100 * float(truth)))

    assert (found["examples"], found["robust_n"]) == (N, N)
    assert found["difference"] == pytest.approx([truth, truth])


@pytest.mark.usefixtures("here")
def test_it_stops_when_its_own_interval_is_narrow_enough() -> None:
    wide = evaluated("good", "--until", "decided", "--width", "20", label="wide")
    narrow = evaluated("good", "--until", "decided", "--width", "8", label="narrow")

    assert wide["stopped"] == narrow["stopped"] == "narrow enough"
    assert wide["examples"] < narrow["examples"] < N
    truth = np.mean(list(robust("whole/records/tiny/good-s0").values()))
    for found, width in ((wide, 0.2), (narrow, 0.08)):
        assert found["robust"][1] - found["robust"][0] <= width
        assert found["robust"][0] <= truth <= found["robust"][1]


@pytest.mark.usefixtures("here")
def test_a_stopped_one_goes_on_and_a_finished_one_is_not_done_again() -> None:
    Path("stop").touch()
    done = CliRunner().invoke(
        cli.app,
        ["evaluate", "nets.py:Net", "--weights", "bad.pth", "--task", "tiny.toml", "--label", "bad", *DECIDED],
    )
    assert done.exit_code == 130
    [first] = Path("results").rglob("journal/*/0/0.safetensors")
    stamp = first.stat().st_mtime_ns
    Path("stop").unlink()

    found = evaluated("bad", *DECIDED)
    assert first.stat().st_mtime_ns == stamp
    assert found == evaluated("bad", *DECIDED, results="again")
    written = Path("results/records/tiny/bad-s0/record.json").stat().st_mtime_ns
    evaluated("bad", *DECIDED)
    assert Path("results/records/tiny/bad-s0/record.json").stat().st_mtime_ns == written


@pytest.mark.usefixtures("here")
def test_an_audit_knows_which_examples_were_drawn() -> None:
    evaluated("bad", *DECIDED)
    words = ["audit", "results/records/tiny/bad-s0", "nets.py:Net", "--weights", "bad.pth", "--device", "cpu"]
    done = CliRunner().invoke(cli.app, [*words, "--seed", "1", "--examples", "60"])

    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("here")
def test_another_question_is_refused(tiny: Any) -> None:
    few = evaluated("good", "--examples", "400", label="few")
    assert few["robust_n"] == 400
    with pytest.raises(BadInput, match="is of other test examples, 400 and not 1000"):
        evaluated("bad", *DECIDED[:3], "results/records/tiny/few-s0", *DECIDED[4:])
    text = Path("tiny.toml").read_text("utf-8")
    with pytest.raises(BadInput, match="give one record; a difference of verdicts is that of two checkpoints"):
        evaluated("bad", *DECIDED[:3], "whole/records", *DECIDED[4:])
    Path("tiny.toml").unlink()
    Path("tiny.toml").write_text(text.replace("1/40", "1/20"), "utf-8")
    with pytest.raises(BadInput, match=r"cannot be compared; they differ in: threat.eps 1/40 there, 1/20 here"):
        evaluated("bad", *DECIDED)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((None, Path("x"), 1.0, None), "add --until decided"),
        (("decided", None, None, None), "needs --against RECORD with --margin POINTS, or --width"),
        (("decided", Path("x"), None, None), "needs --against RECORD with --margin POINTS"),
        (("decided", None, 1.0, 2.0), "needs --against RECORD with --margin POINTS"),
        (("decided", Path("x"), -1.0, None), "--margin: points of accuracy between 0 and 100, not -1.0"),
        (("decided", None, None, float("nan")), "--width: points of accuracy between 0.01 and 100, not nan"),
        (("decided", None, None, 0.009), "--width: points of accuracy between 0.01 and 100, not 0.009"),
        (("decided", Path("x"), 100.1, None), "--margin: points of accuracy between 0 and 100, not 100.1"),
        ((None, None, None, 1.0), "add --until decided"),
    ],
)
def test_options_that_say_too_little_or_too_much(asked: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Until.of(*asked)


@pytest.mark.slow
def test_all_intervals_of_an_own_accuracy_hold_it_as_often_as_promised() -> None:
    """Looked at after each of 20 parts; a 95 % interval of a fixed size, peeked at as often, fails in a quarter."""
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(150):
        truth = np.arange(400) < 240
        watch = Watch(Rule(Until(width=0.1), None, {}), 400)
        for rows in rng.permutation(400).reshape(20, 20):
            watch.add(rows, truth[rows])
            low, high = watch.plain()["robust"]
            if not low - 1e-12 <= 0.6 <= high + 1e-12:
                failed += 1
                break
    assert failed / 150 <= 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5
