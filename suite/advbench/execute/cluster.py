"""A Ray cluster, from the driver's side: joined, or started on this machine alone, and asked what its nodes have."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from advbench import machine
from advbench.execute.node import probe
from advbench.execute.torchrun import place
from advbench.execute.wire import Found, Told, data_key, differing
from advbench.plan import Item
from advbench.spec import BadInput

ANSWER = 10.0
"""Seconds in which an address has to answer."""
PROBE = 120.0
"""Seconds in which a node has to say what it has: to start a process and load torch there may take a while."""
STORE = 10**8
"""Bytes of Ray's object store where it is started here: nothing large goes through it on one machine."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray's settings, where nobody has made them: no telemetry, and its newer treatment of CUDA_VISIBLE_DEVICES."""
PATIENT = {
    "RAY_gcs_server_port_wait_time_s": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_py_gcs_connect_timeout_s": "6",
}
"""Likewise, for an address: one try of ten seconds in all, not twenty of forty."""


@contextmanager
def joined(address: str | None) -> Generator[machine.Means]:
    """Inside, Ray is connected: to `address` or RAY_ADDRESS, else to one that is started here and ended again.

    Yields what it has. Raises BadInput where there is no Ray, or none that fits.
    """
    if place():
        raise BadInput("--executor ray: torchrun has started this process, and has its own; leave one of them out")
    address = address or os.environ.get("RAY_ADDRESS")
    for name, value in (QUIET | PATIENT if address else QUIET).items():
        os.environ.setdefault(name, value)
    # One that lives no longer than this run needs no token in the user's home, where Ray would write it.
    own_token = not address and "RAY_AUTH_MODE" not in os.environ
    if own_token:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError:
        raise BadInput("--executor ray: Ray is not installed; pip install 'advbench[cluster]'") from None
    folder = None if address else tempfile.mkdtemp(prefix="abr-")  # short: a socket's path has 107 characters
    try:
        _connect(ray, address, folder)
        has = ray.cluster_resources()
        yield machine.Means(tuple(f"cuda:{n}" for n in range(int(has.get("GPU", 0)))), int(has.get("CPU", 0)))
    finally:
        ray.shutdown()
        if own_token:
            del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, address: str | None, folder: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        has = {"num_cpus": machine.cores(), "num_gpus": len(machine.accelerators())}
        room = {"object_store_memory": STORE, "_temp_dir": folder, "include_dashboard": False}
        ray.init("local", **has, **room, **quiet)
        return
    if address.startswith("ray://"):
        raise BadInput(f"--address {address}: start advbench on a node of the cluster, with --address auto")
    _answers(address)
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        if "AuthToken" in f"{error.__cause__} {error}":
            why = "asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what its head node has"
        raise BadInput(f"--address {address}: {why} (waited about {ANSWER:g} s)") from None


def _answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # "auto", which Ray looks up
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, OverflowError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"--address {address}: {why} (waited at most {ANSWER:g} s); is Ray there? `ray start --head` starts it"
        ) from None


def at_home() -> Any:
    """The node of this process, for what has to live as long."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def nodes() -> list[dict[str, Any]]:
    """The nodes that can take jobs. Raises BadInput where there is none."""
    import ray

    found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    if not found:
        raise BadInput("--executor ray: no node of the cluster has CPUs for jobs; add one: `ray start --address HEAD`")
    return found


def look(told: Told, items: Sequence[Item]) -> tuple[bool, dict[str, list[str] | None]]:
    """Whether all nodes see the driver's results, and by `data_key` the ids of the nodes with the data; None for all.

    Raises BadInput for a node that does not answer or has other versions, and for data that no node has.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    data = {data_key(item): item.job.data for item in items if item.job and item.job.data}
    here, known = ray.get_runtime_context().get_node_id(), nodes()
    names = {node["NodeID"]: f"node {node['NodeName']}" for node in known}
    # The plan was made here, and so everything is here.
    found = {node["NodeID"]: Found(told.versions) for node in known if node["NodeID"] == here}
    asked: dict[Any, str] = {}
    # max_calls: the process ends afterwards, and torch's memory with it.
    asking: Any = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(probe)
    for name in names.keys() - found.keys():
        task = asking.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
        asked[task.remote(told, data)] = name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE) if asked else ([], [])
    for ref in late:
        raise BadInput(f"{names[asked[ref]]} has not said within {PROBE:g} s what it has; look there, or take it out")
    for ref in ready:
        try:
            found[asked[ref]] = ray.get(ref)
        except RayError as error:
            if asked[ref] not in {node["NodeID"] for node in nodes()}:
                continue  # it was lost while it was asked; what else there is takes the jobs
            why = str(error).strip().splitlines()[-1]
            raise BadInput(f"{names[asked[ref]]} cannot run advbench: {why}; install the same on every node") from None
    for name, one in found.items():
        if other := differing(one.versions, told.versions):
            raise BadInput(f"{names[name]} has {other}; install the same on every node")
    return all(one.sees for one in found.values()), {key: _having(key, found, names) for key in data}


def _having(key: str, found: Mapping[str, Found], names: Mapping[str, str]) -> list[str] | None:
    having = [name for name, one in found.items() if key not in one.lacking]
    if not having:
        name, one = next(iter(found.items()))
        raise BadInput(f"{names[name]}, like all of them: {one.lacking[key]}")
    return having if len(having) < len(found) else None


def own_files(item: Item) -> dict[str, bytes]:
    """What is in the job's own files, by their names."""
    return {name: (item.base / name).read_bytes() for name in item.own_files if (item.base / name).is_file()}
