"""What processes of a group tell each other, and how they meet, each held to what torch is asked for."""

from __future__ import annotations

import contextlib
import datetime
import threading
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from advbench import parallel
from advbench.parallel import ALONE, PATIENCE, Group, SynchronisedBatchNorm2d, joined, lost
from advbench.spec import BadInput


def test_one_process_hears_itself():
    assert ALONE.heard("x") == ["x"]
    assert (ALONE.rank, ALONE.world) == (0, 1)
    assert [Group(rank, 2).first for rank in range(2)] == [True, False]


@pytest.mark.parametrize("late", [False, True])
def test_the_first_process_reads_why_another_one_failed_before_that_one_ends(monkeypatch, late: bool):
    monkeypatch.setattr(parallel, "WRECK", 20.0)
    store: Any = HashStore()
    failing = threading.Thread(target=Group(1, 2, store).fail, args=("out of paper",), daemon=True)
    timer = threading.Timer(0.2 if late else 0, failing.start)
    timer.start()
    if not late:
        timer.join()
        failing.join(0.2)
        assert failing.is_alive(), "it waits until somebody has read it"

    assert Group(0, 2, store).failure() == (1, "out of paper")
    timer.join()
    failing.join(10)
    assert not failing.is_alive()


def test_one_that_ended_without_a_word_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parallel, "WRECK", 0.1)
    assert Group(0, 2, HashStore()).failure() is None
    Group(1, 2, object()).fail("the store's host has gone")
    assert Group(0, 2, object()).failure() is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("[.../gloo/transport/tcp/pair.cc:534] Connection closed"), True),
        (RuntimeError("Connection reset by peer"), True),
        (dist.DistBackendError("NCCL error: ncclRemoteError: a call failed"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection reset by peer"), False),
    ],
)
def test_a_lost_connection_is_known_by_its_words(error: Exception, told: bool):
    assert lost(error) is told


@pytest.fixture
def torch_asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torch is asked for, which it does not do."""
    asked: list[Any] = []
    store = HashStore()

    def meet(*place: Any) -> Any:
        asked.append(place)
        yield store, 0, 0

    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(parallel, "rendezvous", meet)
    monkeypatch.setattr(dist, "init_process_group", lambda *told, store, **more: asked.append((*told, more)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("left"))
    return [asked, store]


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "cpu:gloo,cuda:nccl")])
def test_a_group_is_formed_for_its_device_and_left_after_an_error_too(torch_asked: list[Any], device, backend):
    asked, _ = torch_asked
    with contextlib.suppress(ZeroDivisionError), joined(1, 2, torch.device(device), "file:///x") as group:
        assert (group.rank, group.world) == (1, 2)
        raise ZeroDivisionError

    how = {"rank": 1, "world_size": 2, "timeout": PATIENCE}
    assert asked == [("file:///x", 1, 2), (backend, how), "left"]
    # An evaluation between two trainings may take hours, and no network is silent for a week.
    assert datetime.timedelta(days=7) == PATIENCE


@pytest.mark.parametrize(("count", "attempt"), [(None, 0), ("2", 2)])
def test_a_group_that_is_started_again_forgets_the_one_before(torch_asked: list[Any], monkeypatch, count, attempt):
    if count:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    with joined(0, 1, torch.device("cpu"), "file:///x") as group:
        group.store.set("key", "value")

    assert torch_asked[1].get(f"attempt/{attempt}/key") == b"value"


def test_a_port_in_use_is_a_line_and_another_trouble_is_not_hidden(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29500")

    def refuse(*_: Any) -> Any:
        raise dist.DistNetworkError(words)

    monkeypatch.setattr(parallel, "rendezvous", refuse)
    words = "The server socket has failed to listen (errno: 98 - EADDRINUSE)"
    with pytest.raises(BadInput, match="port 29500 is in use; set another MASTER_PORT"), joined(0, 2, CPU, "env://"):
        pass
    words = "no route to host"
    with pytest.raises(dist.DistNetworkError, match="no route"), joined(0, 2, CPU, "env://"):
        pass


CPU = torch.device("cpu")


@pytest.mark.parametrize("changes", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_one_process_synchronised_batch_norm_is_torch_s_own(monkeypatch, changes: dict[str, Any], dtype):
    monkeypatch.setattr(dist, "all_reduce", lambda _: None)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    plain, mine = (kind(3, dtype=wide, **changes) for kind in (nn.BatchNorm2d, SynchronisedBatchNorm2d))
    for norm in (plain, mine):
        if norm.affine:
            norm.weight.data, norm.bias.data = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]], dtype=wide)
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        x = torch.rand(2, 3, 2, 2, generator=draw).to(dtype)
        found: Tensor = mine(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found.to(wide), plain(x.to(wide)).to(dtype).to(wide), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(mine.named_buffers()), dict(plain.named_buffers()), rtol=1e-5, atol=1e-6)
