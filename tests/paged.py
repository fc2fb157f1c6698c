"""What a board's page carries, unpacked as its own scripts unpack it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

LIBRARIES = ("tables", "charts")


def text(part: str) -> str:
    """What a part says."""
    return gzip.decompress(base64.b64decode(part, validate=True)).decode()


def parts(page: str) -> dict[str, Any]:
    """By name, the JSON of each part but for the libraries."""
    found = re.findall(r'<script type="application/gzip" id="([^"]*)">([^<]*)</script>', page)
    return {name: json.loads(text(part)) for name, part in found if name not in LIBRARIES}


def record(page: str, place: str = "0-0-0", found: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is held of a record, by the numbers of its task, group and seed: its own part and its task's."""
    found = found or parts(page)
    task, _, rest = place.partition("-")
    return {**found[f"task-{task}"]["held"][rest], **found[f"record-{place}"]}
