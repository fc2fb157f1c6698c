"""A worker as its driver sees it: what it may have left behind in its process, and whom its end takes along."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from advbench.execute import limits
from advbench.execute.worker import Worker, context
from advbench.files import started
from advbench.plan import Item
from advbench.resolve import resolve


@pytest.fixture
def gone(tmp_path: Path) -> Iterator[Worker]:
    """A worker whose process has ended."""
    serve = print  # what another process can import
    worker = Worker(multiprocessing.get_context("spawn"), tmp_path, tmp_path, "cpu", serve)
    worker.process.join()
    yield worker
    worker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker is no fork")
def test_workers_are_forks_of_one_process_with_the_environment_of_now_and_luck_of_their_own(
    repo: Path, command_env: dict[str, str]
):
    words = [sys.executable, str(repo / "tests" / "found.py")]
    told = subprocess.run(words, env=command_env, capture_output=True, text=True, check=True).stdout
    driver, one, two = json.loads(told)

    assert (one[0], one[1], two[1]) == (two[0], "one", "two"), "a server that ends at SIGTERM takes its workers along"
    assert driver != one[0]
    for mine, other in zip(one[2:], two[2:], strict=True):
        assert mine != other


def test_where_a_socket_would_have_too_long_a_name_a_worker_is_a_new_interpreter(monkeypatch: pytest.MonkeyPatch):
    for length, method in ((70, "forkserver"), (71, "spawn")):
        monkeypatch.setattr(tempfile, "tempdir", "x" * length)
        assert context().get_start_method() == (method if sys.platform == "linux" else "spawn")


ATTACK = """\
from advbench.attacks.fgsm import FGSM

class Mine(FGSM):
    name = "mine"
"""
COLLECTOR = """\
from advbench.collectors.base import Collector, Measures

class Mine(Collector):
    name = "mine"
    about = "Nothing."
    paper = "none"

    def collect(self, scene):
        return Measures({})
"""
OWN = {
    "nothing": ("", ('"fgsm"', '"fgsm"'), ""),
    "an attack": (ATTACK, ('"fgsm"', '{ file = "mine.py" }'), ""),
    "a collector": (COLLECTOR, ('"fgsm"', '"fgsm"'), '[collect]\nmine = { file = "mine.py" }\n'),
    "of one defense": (COLLECTOR, ('"fgsm"', '"fgsm"'), 'collect.mine = { file = "mine.py" }\n'),
}


@pytest.mark.parametrize("own", list(OWN))
def test_any_file_of_one_s_own_that_a_job_runs_spoils_its_worker(tmp_path: Path, tiny, gone: Worker, own: str):
    text, change, more = OWN[own]
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    [item] = resolve(tiny(tmp_path, "t", change, more=more), tmp_path / "data", {}).items

    gone.take(item, [])

    assert item.own_files == (["mine.py"] if text else [])
    assert gone.spoilt == bool(text)


@pytest.mark.parametrize("end", ["warn", "kill", "stop"])
def test_who_has_the_number_of_a_worker_that_has_ended_is_left_alone(
    gone: Worker, monkeypatch: pytest.MonkeyPatch, end: str
):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        monkeypatch.setattr(limits, "family", lambda _: {stranger.pid: started(stranger.pid)})
        gone.item = Item(task="t", label="d", seed=0, base=Path())
        getattr(gone, end)()
        gone.why = "took too long"
        gone.end()

        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.5)
        stranger.kill()
