"""One of the processes that share a job over the nodes of a Ray cluster: as torchrun would have started it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from advbench.execute import torchrun
from advbench.execute.local import Event
from advbench.execute.torchrun import Place
from advbench.execute.wire import Meet
from advbench.execute.worker import BEGUN, UNWRITABLE, attend, into
from advbench.files import Unwritable
from advbench.plan import run_folder

SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""


def serve(place: Place, meet: Meet, connection: Connection, results: Path, root: Path, device: str) -> None:
    """The life of such a process: one job. `place` is all that its launcher would have said."""
    attend()
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world),
        "LOCAL_RANK": str(place.local),
        "MASTER_ADDR": meet.address,
        "MASTER_PORT": str(meet.port),
    }
    if name := interface(meet.address):
        # gloo would ask what this machine's name means, which on many is an address that nobody else knows.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    item, _, _ = connection.recv()
    # The node holds it to its limits, and knows that they ended it; to a guard here it would seem killed by a stranger.
    item = item.model_copy(update={"minutes": None, "memory_gib": None})
    kind = device.partition(":")[0]

    def tell(event: Event) -> None:
        stage = BEGUN if event.stage == "start" else event.stage
        connection.send((stage, event.done, event.total, event.words))

    failed = False
    with into(run_folder(results, item.path) / "log.txt"):
        try:
            if place.rank:
                code = torchrun.follow(place, kind, root, item.base, lambda: connection.send((BEGUN, 0, 0, "")))
                connection.send(("failed" if code else "ok", 0, 0, ""))
            else:
                with torchrun.lead(place, kind) as execute:
                    execute([item], results, root, [device], tell)
        except Unwritable as error:
            connection.send((UNWRITABLE, 0, 0, error.lines[0]))
        except Exception:
            traceback.print_exc()
            failed = True
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(failed)  # threads that torch leaves behind a group may abort an orderly end


def free_place() -> Meet:
    """Where others can meet a process of this node: a port that nobody has just now."""
    from ray.util import get_node_ip_address

    address = get_node_ip_address()
    with socket.socket() as free:
        free.bind((address, 0))
        return Meet(address, free.getsockname()[1])


def interface(towards: str) -> str | None:
    """The network interface over which this machine reaches that address; None where nobody tells."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((towards, 9))  # nothing is sent
        mine = asked.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an address
                told = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(told[20:24]) == mine:
                    return name
    return None
