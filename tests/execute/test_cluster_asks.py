"""How a Ray is joined or started, and what its nodes are asked, on a Ray that only takes notes."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advbench import machine
from advbench.execute import cluster
from advbench.execute.wire import Found, Told, data_key
from advbench.plan import Item
from advbench.spec import BadInput

QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
OURS = {"torch": "2"}


class RayError(Exception):
    pass


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A Ray in whose cluster there are nodes `here` and `there`; `done` is what was asked of it."""
    told = SimpleNamespace(done=[], answers={}, late=[], lost=[])

    def shutdown() -> None:
        told.done.append(("shutdown", {n: v for n, v in os.environ.items() if n.startswith("RAY_AUTH")}))

    class Asking:
        def __init__(self, what: Any) -> None:
            self.what = what

        def options(self, *, scheduling_strategy: Any) -> SimpleNamespace:
            name, soft = scheduling_strategy

            def remote(*asked: Any) -> str:
                told.done.append(("ask", self.what, name, soft, *asked))
                return f"answer of {name}"

            return SimpleNamespace(remote=remote)

    def remote(**how: Any) -> Callable[[Any], Asking]:
        told.done.append(("remote", how))
        return Asking

    def wait(refs: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        told.done.append(("wait", num_returns, timeout))
        return [ref for ref in refs if ref not in told.late], [ref for ref in refs if ref in told.late]

    def get(ref: str) -> Any:
        if isinstance(found := told.answers[ref], Exception):
            raise found
        return found

    names = ["here", "there", "yonder"]
    fake: Any = SimpleNamespace(
        init=lambda *where, **how: told.done.append(("init", where, how)),
        shutdown=shutdown,
        cluster_resources=lambda: {"CPU": 12.0, "GPU": 3.0},
        nodes=lambda: [
            {"NodeID": n, "NodeName": n.upper(), "Alive": n not in told.lost, "Resources": {"CPU": 1.0}} for n in names
        ],
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
        remote=remote,
        wait=wait,
        get=get,
    )
    affinity = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, soft: (name, soft))
    modules = {"ray": fake, "ray.util": SimpleNamespace(), "ray.util.scheduling_strategies": affinity}
    for name, module in (modules | {"ray.exceptions": SimpleNamespace(RayError=RayError)}).items():
        monkeypatch.setitem(sys.modules, name, module)
    told.fake = fake
    return told


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment of one's own, and a folder for what is temporary."""
    found = {"TMPDIR": str(tmp_path)}
    monkeypatch.setattr(os, "environ", found)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0", "cuda:1"])
    return found


MEANS = machine.Means(("cuda:0", "cuda:1", "cuda:2"), 12)


def test_where_there_is_none_one_is_started_with_a_token_of_its_own_and_leaves_nothing(
    ray: SimpleNamespace, environment: dict[str, str], tmp_path: Path
):
    with cluster.joined(None) as means:
        assert means == MEANS
        [folder] = tmp_path.iterdir()
        assert folder.name.startswith("abr-")
        (folder / "session").mkdir()
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert "RAY_py_gcs_connect_timeout_s" not in environment  # nobody has to wait for it
    room = {"object_store_memory": 100_000_000, "_temp_dir": str(folder), "include_dashboard": False}
    started, (_, token) = ray.done
    assert started == ("init", ("local",), {"num_cpus": 6, "num_gpus": 2, **room, **QUIET})
    assert token["RAY_AUTH_MODE"] == "token"
    assert len(bytes.fromhex(token["RAY_AUTH_TOKEN"])) == 32
    assert not [name for name in environment if name.startswith("RAY_AUTH")]
    assert list(tmp_path.iterdir()) == []


def test_a_user_s_own_settings_stay(ray: SimpleNamespace, environment: dict[str, str]):
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "1"}
    ray.fake.cluster_resources = dict
    with cluster.joined(None) as means:
        assert means == machine.Means((), 0)
    assert ray.done[-1] == ("shutdown", {"RAY_AUTH_MODE": "disabled"})
    assert (environment["RAY_AUTH_MODE"], environment["RAY_USAGE_STATS_ENABLED"]) == ("disabled", "1")


def test_a_folder_that_something_still_writes_to_hides_no_error(
    ray: SimpleNamespace, environment: dict[str, str], tmp_path: Path
):
    def fails() -> None:
        [folder] = tmp_path.iterdir()
        folder.rmdir()
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"), cluster.joined(None):
        fails()


@pytest.mark.parametrize("said", ["option", "environment"])
def test_an_address_is_connected_to_with_its_own_token_and_patience(
    ray: SimpleNamespace, environment: dict[str, str], tmp_path: Path, said: str
):
    if said == "environment":
        environment["RAY_ADDRESS"] = "auto"
    with cluster.joined("auto" if said == "option" else None) as means:
        assert means == MEANS
        assert environment["RAY_py_gcs_connect_timeout_s"] == "6"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray.done == [("init", ("auto",), QUIET), ("shutdown", {})]
    assert list(tmp_path.iterdir()) == []


def test_under_torchrun_there_is_no_ray(ray: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "place", lambda: "rank 0")
    with pytest.raises(BadInput, match="--executor ray: torchrun has started this process"), cluster.joined(None):
        pass
    assert ray.done == []


ASKS = "asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what its head node has"


@pytest.mark.parametrize(
    ("error", "cause", "line"),
    [
        (RuntimeError("no\n  way"), None, "no way"),
        (ConnectionError("InvalidAuthToken"), None, ASKS),
        (ValueError("x"), RuntimeError("AuthToken is wrong"), ASKS),
    ],
)
def test_why_it_could_not_be_joined_is_one_line(
    ray: SimpleNamespace, environment: dict[str, str], error: Exception, cause: Exception | None, line: str
):
    def init(*_: Any, **__: Any) -> None:
        raise error from cause

    ray.fake.init = init
    with pytest.raises(BadInput) as caught, cluster.joined("auto"):
        pass
    assert caught.value.lines == (f"--address auto: {line} (waited about 10 s)",)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(110, "Connection timed out"), "no answer"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OverflowError("port must be 0-65535."), "port must be 0-65535."),
    ],
)
def test_an_address_that_does_not_answer_is_told_before_ray_is_asked(
    monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
):
    asked: list[Any] = []
    closed: list[bool] = []

    def connection(*told: Any) -> Any:
        asked.append(told)
        if len(asked) > 1:
            raise error
        return SimpleNamespace(close=lambda: closed.append(True))

    monkeypatch.setattr(socket, "create_connection", connection)
    cluster._answers("auto")
    cluster._answers("host:7")
    assert (asked, closed) == ([(("host", 7), 10.0)], [True])
    line = f"--address host:8: {why} (waited at most 10 s); is Ray there? `ray start --head` starts it"
    with pytest.raises(BadInput) as caught:
        cluster._answers("host:8")
    assert caught.value.lines == (line,)


def test_what_lives_as_long_as_the_driver_is_on_its_node(ray: SimpleNamespace):
    assert cluster.at_home() == ("here", False)


@pytest.fixture
def looked(ray: SimpleNamespace, make_job) -> Callable[..., Any]:
    """A function: answers of `there` and `yonder` -> what is found of two jobs of some data and one of none."""
    some = Item(task="t", label="a", seed=0, base=Path(), job=make_job(data={"name": "digits"}))
    other = Item(task="t", label="b", seed=0, base=Path(), job=make_job(data={"name": "mnist"}))
    told = Told(Path(), Path(), "cpu", Path(), b"", OURS, {})

    def look(**answers: Any) -> Any:
        ray.answers = {f"answer of {name}": answer for name, answer in answers.items()}
        return cluster.look(told, [some, other, Item(task="t", label="c", seed=0, base=Path())])

    look.keys, look.told = (data_key(some), data_key(other)), told  # type: ignore[attr-defined]
    return look


def test_all_nodes_but_one_s_own_are_asked_what_they_have(ray: SimpleNamespace, looked: Any):
    some, other = looked.keys
    assert looked(there=Found(OURS), yonder=Found(OURS, sees=False, lacking={some: "it is gone"})) == (
        False,
        {some: ["here", "there"], other: None},
    )
    how, *asked, waited = ray.done
    assert how == ("remote", {"num_cpus": 0, "max_calls": 1, "max_retries": 0})
    assert sorted(one[2] for one in asked) == ["there", "yonder"]
    for _, what, _, soft, told, data in asked:
        assert (what, soft, told) == (cluster.probe, False, looked.told)
        assert {key: one.name for key, one in data.items()} == {some: "digits", other: "mnist"}
    assert waited == ("wait", 2, 120.0)
    assert looked(there=Found(OURS), yonder=Found(OURS)) == (True, {some: None, other: None})


def test_a_node_that_is_late_broken_or_of_another_kind_is_one_line(ray: SimpleNamespace, looked: Any):
    good = Found(OURS)
    broken = RayError("trace\nModuleNotFoundError: advbench ")
    with pytest.raises(BadInput) as caught:
        looked(there=good, yonder=broken)
    line = "node YONDER cannot run advbench: ModuleNotFoundError: advbench; install the same on every node"
    assert caught.value.lines == (line,)
    with pytest.raises(BadInput, match="node THERE has torch 9 where the driver has 2; install the same on every node"):
        looked(there=Found({"torch": "9"}), yonder=good)
    ray.late = ["answer of yonder"]
    with pytest.raises(BadInput, match="node YONDER has not said within 120 s what it has; look there, or take it out"):
        looked(there=good)


def test_a_node_that_is_lost_while_it_is_asked_is_done_without(ray: SimpleNamespace, looked: Any):
    class Lost(RayError):
        def __str__(self) -> str:
            return "died"

    some, other = looked.keys
    ray.fake.get = lambda ref: (ray.lost.append("yonder"), Found(OURS))[1] if "there" in ref else lost()

    def lost() -> None:
        ray.lost.append("yonder")
        raise Lost

    assert looked() == (True, {some: None, other: None})


def test_one_node_alone_asks_nobody(ray: SimpleNamespace, looked: Any):
    ray.lost = ["there", "yonder"]
    assert looked() == (True, dict.fromkeys(looked.keys))
    assert [what for what, *_ in ray.done] == ["remote"]


def test_data_that_no_node_has_are_one_line():
    names = {"a": "node A", "b": "node B"}
    found = {"a": Found({}, lacking={"k": "it is gone"}), "b": Found({}, lacking={"k": "it went"})}
    with pytest.raises(BadInput) as caught:
        cluster._having("k", found, names)
    assert caught.value.lines == ("node A, like all of them: it is gone",)


def test_own_files_are_sent_by_their_names(tmp_path: Path, make_job):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_bytes(b"a")
    (tmp_path / "b.py").write_bytes(b"b")
    defense = {"name": "d", "file": "a.py", "sha256": "0", "more": [{"file": "../b.py"}, {"file": "gone.py"}]}
    item = Item(task="t", label="d", seed=0, base=tmp_path / "in", job=make_job(defense=defense))
    assert cluster.own_files(item) == {"a.py": b"a", "../b.py": b"b"}
