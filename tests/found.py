"""What a new process finds, for tests of how one begins; in a file that it can import."""

from __future__ import annotations

import os
import random
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def finding(connection: Connection, *told: Any) -> None:
    """A worker's life: say who its parent is, a variable of its environment, and what luck it has."""
    del told
    luck = [random.random(), float(np.random.random())]
    connection.send([os.getppid(), os.environ.get("ADVBENCH_WORD"), *luck])
