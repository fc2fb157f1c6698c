"""One run at a time in a results folder: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from advbench.spec import BadInput


@contextmanager
def locked(results: Path) -> Generator[None]:
    """Hold `results` for this process. Raises BadInput that says who holds it, or that it cannot be written."""
    path = results / "runs" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{results}: cannot be written: {error.strerror}; choose another folder with --results"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(
                f"{results}: in use by another run ({_holder(path)}); wait for it or use --results"
            ) from None
        except OSError as error:
            raise BadInput(f"{results}: cannot be locked: {error.strerror}; use --results on a local disk") from None
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now}))
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']} since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not said its name"
