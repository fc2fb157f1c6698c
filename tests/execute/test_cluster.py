"""What a Ray cluster has, as the driver is told."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from advbench.execute.cluster import nodes
from advbench.spec import BadInput


def test_a_cluster_without_cpus_is_one_line(monkeypatch: pytest.MonkeyPatch):
    head = {"Alive": True, "Resources": {"memory": 1.0}}
    lost, able = head | {"Alive": False, "Resources": {"CPU": 8.0}}, head | {"Resources": {"CPU": 0.5}}
    has = [head, lost, able]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: has))

    assert nodes() == [able]
    has.remove(able)
    with pytest.raises(BadInput, match="--executor ray: no node of the cluster has CPUs for jobs; add one"):
        nodes()
