"""What the driver and its nodes have to have in common, and what they name."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import advbench
from advbench.execute.wire import Done, Errand, Found, Over, Told, data_key, differing, versions
from advbench.plan import Item


def test_python_advbench_and_torch_are_the_same_on_all_nodes():
    ours = {"Python": platform.python_version(), "advbench": advbench.__version__, "torch": version("torch")}
    assert versions() == ours
    assert differing(ours, ours) == ""
    assert differing(ours | {"more": "1"}, ours) == ""
    others = {"Python": ours["Python"], "torch": "9"}
    assert differing(others, {"Python": ours["Python"], "advbench": "1", "torch": "2"}) == (
        "advbench missing where the driver has 1, torch 9 where the driver has 2"
    )


def test_jobs_of_the_same_data_have_the_same_key(make_job):
    def item(**data: object) -> Item:
        return Item(task="t", label="d", seed=0, base=Path(), job=make_job(data=data) if data else None)

    one, same, other = (data_key(item(name=name)) for name in ("digits", "digits", "mnist"))
    assert one == same != other
    job = item(name="digits").job
    assert job is not None
    assert job.data is not None
    assert json.loads(one) == json.loads(job.data.model_dump_json(by_alias=True))
    assert data_key(item()) == ""


def test_what_is_not_said_is_that_there_is_nothing_of_it():
    assert Over() == ("", False, False)
    assert (Found({}).sees, Found({}).lacking) == (True, {})
    assert Found({}).lacking is not Found({}).lacking
    told = Told(Path(), Path(), "cpu", Path(), b"", {}, {})
    assert told.stop == ()
    errand = Errand(Item(task="t", label="d", seed=0, base=Path()), {})
    assert (errand.kept, errand.place, errand.meet) == ((), None, None)
    assert Done("ok", "", b"", None).beside is None
