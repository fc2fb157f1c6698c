"""Two workers one after the other, and what each finds: for a test that runs this file.

In a process of its own, because a process has one server that it forks from, and that of the tests is another one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from advbench.execute.worker import Worker, context


def finding(connection: Connection, *told: Any) -> None:
    """A worker's life: say who its parent is, a variable of its environment, and what luck it has."""
    del told
    connection.send([os.getppid(), os.environ["WORD"], random.random(), float(np.random.random())])


def main() -> None:
    found: list[Any] = []
    for word in ("one", "two"):
        os.environ["WORD"] = word
        worker = Worker(context(), Path(), Path(), "cpu", finding)
        found.append(worker.connection.recv())
        os.kill(found[0][0], signal.SIGTERM)  # as a scheduler does to all; the workers have checkpoints to write
        worker.stop()
    json.dump([os.getpid(), *found], sys.stdout)


if __name__ == "__main__":
    main()
