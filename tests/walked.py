"""The command as a person types it, in a folder of one's own."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Walk:
    """An empty folder, and the command that the wheel has installed, on 80 columns."""

    folder: Path
    env: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        words, pipe = ["advbench", *arguments], subprocess.PIPE
        # A test that runs in the background has SIGINT ignored, and would hand that down; a terminal does not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(words, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what stood on the screen."""
        process = self.start(*arguments)
        out, err = process.communicate()
        return process.returncode, out + err

    def reads(self, *arguments: str) -> Any:
        """The JSON that a command prints, which is all it prints."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate()
        assert process.returncode == 0, err
        return json.loads(out)

    def record(self, place: str) -> dict[str, Any]:
        return json.loads((self.folder / "results/records" / place / "record.json").read_text("utf-8"))
