"""What a person reads of an evaluation, and what each of its processes is asked to do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from advbench import assess
from advbench.assess import Where
from advbench.outside import Asked
from advbench.spec import BadInput
from advbench.until import Until

ASKED = Asked("nets.py:Net")
TASK = Path("tiny.toml")
WHERE = Where(Path("results"), Path("data"), "cpu")
NETS = """\
import torch
from torch import nn
def Net():
    head = nn.Linear(16, 4, bias=False)
    head.weight.data = torch.eye(4).repeat_interleave(4, 1)
    return nn.Sequential(nn.Flatten(), head)
"""


def accuracy(share: float, n: int = 1000, protocol: str = "") -> Any:
    return SimpleNamespace(accuracy=share, low=share - 0.02, high=share + 0.01, n=n, protocol=protocol)


def record(rejected: Any = None, robust: Any = None, until: Any = None, flags: Any = ()) -> Any:
    scores = SimpleNamespace(clean=accuracy(0.9), rejected=rejected, robust=robust)
    provenance = {"until": until} if until else {}
    return SimpleNamespace(task="t" * 50, label="l" * 50, scores=scores, provenance=provenance, flags=flags)


def said(found: Any, *, cached: bool) -> list[str]:
    out = StringIO()
    folder = Path("results" * 10) / "records" / "t" / "l-s0"
    assess._tell(Console(file=out, width=70), found, folder / "record.json", cached=cached)
    return out.getvalue().splitlines()


HEAD = f"{'t' * 50}/{'l' * 50}"
ENDS = [f"record: {'results' * 10}/records/t/l-s0/record.json", f"board: {'results' * 10}/index.html"]


def test_the_outcome_is_a_line_each_however_wide_the_terminal() -> None:
    assert said(record(), cached=False) == [HEAD, "clean  90.0% (88.0% to 91.0%)", *ENDS]
    until = {
        "examples": 1024,
        "of": 10000,
        "stopped": "the interval of robust accuracy is as narrow as was asked for",
        "robust": [0.4123, 0.4567],
        "difference": [-0.012, 0.025],
    }
    flag = SimpleNamespace(name="zero-gradient", message="the loss has an input gradient of exactly zero on 4 of 9")
    full = record(accuracy(0.05), accuracy(0.435, 1024, "fgsm + pgd + autoattack"), until, [flag])

    assert said(full, cached=True) == [
        f"{HEAD}: evaluated before",
        "clean  90.0% (88.0% to 91.0%)",
        "refused 5.0% (3.0% to 6.0%) of the untouched examples",
        "robust 43.5% (41.5% to 44.5%), fgsm + pgd + autoattack on 1,024 test examples",
        "stopped after 1,024 of 10,000: the interval of robust accuracy is as narrow as was asked for",
        "robust on all of them: 41.23 to 45.67 points, with 95 % confidence",
        "difference on all of them: -1.20 to 2.50 points, with 95 % confidence",
        "zero-gradient: the loss has an input gradient of exactly zero on 4 of 9",
        *ENDS,
    ]
    only = said(record(until={k: v for k, v in until.items() if k != "robust"}), cached=False)
    assert [line.split()[0] for line in only] == [HEAD, "clean", "stopped", "difference", "record:", "board:"]


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("0a" * 32, "0a0a0a0a0a0a"),
        ("0a" * 31, ("0a" * 31)[:60]),
        ("word", "word"),
        ({"a": "b" * 99}, '{"a": "' + "b" * 53),
        (None, "null"),
    ],
)
def test_what_tells_two_models_apart_is_told_short(value: Any, short: str) -> None:
    assert assess._short(value) == short


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `judged` was asked, whose console says a line of every kind."""
    calls: list[Any] = []

    def stands_in(*args: Any, **how: Any) -> Any:
        calls.append((args[:6], args[7], how))
        sys.stdout.write("a stranger's file\n")
        args[6].print("[b]x[/b] :smile: 12 " + "word " * 40)
        found = record()
        found.plain = lambda: {"id": "5f0c"}
        return found, Path("r/records/t/l/record.json"), True

    monkeypatch.setattr(assess, "judged", stands_in)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return calls


LINE = "[b]x[/b] :smile: 12 " + "word " * 40


def test_words_are_shown_as_they_are(judged: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assess.assess(ASKED, TASK, None, None, None, WHERE, as_json=False)

    out, err = capsys.readouterr()
    stranger, line, *rest = out.splitlines()
    assert (stranger, line.rstrip(), err) == ("a stranger's file", LINE.rstrip(), "")
    assert rest[0] == f"{HEAD}: evaluated before"
    told = {"stop": True, "jobs": None, "held": True}
    assert judged == [((ASKED, TASK, None, None, None, WHERE), None, told)]


def test_json_stands_alone_and_all_that_was_asked_is_passed_on(
    judged: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    until = Until.of("decided", None, None, 5)
    assess.assess(ASKED, TASK, "o", "l", 3, WHERE, as_json=True, until=until, stop=False, jobs=2)

    out, err = capsys.readouterr()
    assert out == '{\n "path": "r/records/t/l/record.json",\n "cached": true,\n "id": "5f0c"\n}\n'
    assert err.startswith("a stranger's file\n[b]x[/b] :smile: 12 word")
    assert judged == [((ASKED, TASK, "o", "l", 3, WHERE), until, {"stop": False, "jobs": 2, "held": True})]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Callable[..., Any]:
    """A function: how `judged` is asked... -> what it returns, and its lines, of a model that lies here."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, "tiny", more="[resources]\nminutes = 7\nmemory_gib = 3.5\n")
    Path("nets.py").write_text(NETS, "utf-8")

    def ask(**how: Any) -> tuple[Any, str]:
        out = StringIO()
        console = Console(file=out, width=300)
        return assess.judged(ASKED, TASK, None, None, None, WHERE, console, **how), out.getvalue()

    return ask


def test_a_person_is_held_to_the_task_s_limits_and_a_notebook_is_not(
    here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    held: list[Any] = []
    looks: list[int] = []
    monkeypatch.setattr(assess, "_hands", lambda ready, where, jobs: asked.append(jobs) or [])
    monkeypatch.setattr(assess, "Guard", lambda item: held.append(item) or contextlib.nullcontext())
    monkeypatch.setattr(assess.Hands, "look", lambda self: looks.append(len(self.devices)))
    Path("results").mkdir()
    left = Path("results/.board.json.4194305.tmp")  # of a process that cannot be
    left.touch()

    (found, file, cached), out = here()
    assert (cached, file) == (False, Path("results/records/tiny/nets-Net-s0/record.json"))
    assert (asked, held) == ([1], [])
    assert len(looks) >= 2, "now and then, whether it has turned out long"
    assert not left.exists()
    assert {path.name for path in file.parent.iterdir()} == {
        "record.json",
        "examples.parquet",
        "adversarial.safetensors",
    }
    clean, robust = found.scores.clean.accuracy, found.scores.robust.accuracy
    assert out.startswith("nets.py:Net: loading\n")
    assert f"clean {clean:.1%}, robust {robust:.1%}" in out
    assert found.cost.forward > found.cost.backward > 0
    assert found.cost.eval_seconds > 0
    assert found.cost.peak_memory_bytes > 0
    assert (found.cost.train_seconds, found.cost.train_forward) == (0, 0)
    assert here()[0] == (found, file, True)

    file.unlink()
    here(held=True, jobs=None)
    assert asked == [1, None]
    [item] = held
    assert (item.task, item.label, item.minutes, item.memory_gib) == ("tiny", "nets-Net", 7, 3.5)


def test_what_could_not_be_written_or_read_later_is_told_before_the_work(here: Callable[..., Any]) -> None:
    page, broken = Path("results/README.md"), Path("results/records/tiny/other-s0/record.json")
    for file in (page, broken):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine", "utf-8")
    with pytest.raises(BadInput, match="not written by `advbench board`"):
        here()
    page.unlink()
    with pytest.raises(BadInput, match="other-s0"):
        here()
    assert not Path("results/runs").exists()


def test_who_helps_takes_blocks_on_its_own_device_of_the_same_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    job = SimpleNamespace(path="t/l-s0", journal_id="abc")
    ready = SimpleNamespace(job=job)
    asked: list[Any] = []
    monkeypatch.setattr(assess, "ready_for", lambda *args, **how: asked.append((args, how)) or ready)
    monkeypatch.setattr(assess, "_climbed", lambda *args, **how: asked.append((args, how)))
    assess._help("cuda:1", ASKED, TASK, "o", "l", 3, WHERE, False)

    first, (args, how) = asked
    there = Where(WHERE.results, WHERE.root, "cuda:1")
    assert first == ((ASKED, TASK, "o", "l", 3, there, None), {"stop": False})
    assert args[:3] == (ready, Path("data"), Path("results/runs/t/l-s0/journal/abc"))
    assert how == {"helps": True}


def test_the_ladder_is_climbed_as_the_task_says(monkeypatch: pytest.MonkeyPatch) -> None:
    job: Any = SimpleNamespace(evaluation="how", journal_id="abc", model={"name": "net"})
    ready: Any = SimpleNamespace(
        job=job, test="test", classes=4, base=Path("b"), model=SimpleNamespace(network="net"), rule=None
    )
    climbs: list[Any] = []
    monkeypatch.setattr(assess, "ladder", lambda *args: [*args])
    monkeypatch.setattr(assess, "climb", lambda *args, **how: climbs.append((args, how)))
    for helps in (True, False):
        assess._climbed(ready, Path("d"), Path("j"), print, helps=helps)

    ladder = ["how", Path("d"), "test", 4, Path("b")]
    args = (job, "net", "abc", "test", ladder, "how", 4, Path("j"), print)
    assert climbs == [(args, {"helps": True}), (args, {"helps": False})]

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("a\n  b" + "c" * 999)

    monkeypatch.setattr(assess, "_climbed", breaks)
    with pytest.raises(BadInput) as caught:
        assess._attacked(ready, Path("d"), Path("j"), print)
    words = ("RuntimeError: a b" + "c" * 999)[:300]
    assert caught.value.lines == (
        f"net: stopped in the evaluation: {words}; what was done is kept, --debug shows where it was",
    )
