"""Where `advbench run` has its jobs done: here, on a Ray, or by the processes of a launcher."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from advbench import suite
from advbench.execute import local, torchrun
from advbench.execute.torchrun import Place
from advbench.spec import BadInput
from advbench.suite import Cluster

ASKED: Any = ([], [], Path("results"), Path("data"), "cpu", None)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be planned and run, and by whom."""
    calls: list[Any] = []

    def plan(*asked: Any, **how: Any) -> int:
        calls.append((asked[-1], how))
        return 7

    monkeypatch.setattr(suite, "_run", plan)
    return calls


def test_alone_jobs_run_on_this_machine(planned: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "place", lambda: None)

    assert suite.run(*ASKED, dry_run=False, download=True) == 7
    assert suite.run(*ASKED, dry_run=False) == 7
    assert planned == [(local.run, {"dry_run": False, "download": flag}) for flag in (True, False)]


def test_under_a_launcher_the_first_process_plans_and_the_others_follow(
    planned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, led = [Place(1, 2, 1)], list[Any]()

    @contextmanager
    def lead(place: Place, device: str) -> Generator[str]:
        led.append((place, device))
        yield "the launcher's"

    monkeypatch.setattr(torchrun, "place", lambda: here[0])
    monkeypatch.setattr(torchrun, "follow", lambda *asked: asked)
    monkeypatch.setattr(torchrun, "lead", lead)

    assert suite.run(*ASKED, dry_run=False) == (Place(1, 2, 1), "cpu", Path("data"))
    assert planned == led == []
    # A plan alone is anybody's.
    assert suite.run(*ASKED, dry_run=True) == 7
    assert planned == [(local.run, {"dry_run": True, "download": False})]
    here[0] = Place(0, 2, 0)
    assert suite.run(*ASKED, dry_run=False, download=True) == 7
    assert planned[1:] == [("the launcher's", {"dry_run": False, "download": True})]
    assert led == [(Place(0, 2, 0), "cpu")]


def test_a_ray_says_itself_which_devices_a_job_has() -> None:
    assert Cluster().address is None
    for device in ("auto", "cpu", "cuda"):
        Cluster.check(device, None)
    with pytest.raises(BadInput, match="--device cuda:1: Ray says which device"):
        Cluster.check("cuda:1", None)
    with pytest.raises(BadInput, match="--per-device: Ray gives a job a whole device"):
        Cluster.check("auto", 2)
