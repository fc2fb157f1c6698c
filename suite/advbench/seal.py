"""Files that know whether they still are what was written, and what to go on from where one is not.

A seal is the sha256 of a file's content, put where its format has room for it, so that the file stays what its name
says: the comment of a zip archive (.pt), a text among the metadata (.safetensors), a key of the object (.json).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advbench.files import write_bytes

SEAL = "sha256"
_END, _EMPTY, _ROOM = b"PK\5\6", b"\0\0", b"\x40\0"
"""What a zip's last 22 bytes begin with, and, at their end, the length of its comment: none, or 64 digits."""


def seal(name: str, content: bytes) -> bytes:
    """`content`, whose format the suffix of `name` says, with its seal. Raises ValueError for other formats."""
    match Path(name).suffix:
        case ".pt" if content[-22:-18] == _END and content[-2:] == _EMPTY:
            return content[:-2] + _ROOM + hashlib.sha256(content).hexdigest().encode()
        case ".safetensors":
            head, body = _parts(content)
            head.setdefault("__metadata__", {})[SEAL] = _of_parts(head, body)
            text = json.dumps(head, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            return len(text).to_bytes(8, "little") + text + body
        case ".json":
            return (json.dumps(sealed(json.loads(content)), indent=1, allow_nan=False) + "\n").encode()
        case _:
            raise ValueError(f"{name}: no room for a seal")


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal."""
    return {**value, SEAL: of_json(value)}


def of_json(value: dict[str, Any]) -> str:
    """The seal of a JSON object, however it is laid out."""
    rest = {key: field for key, field in value.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def unbroken(value: dict[str, Any]) -> bool | None:
    """Whether a JSON object is what was sealed; None where it bears no seal."""
    return None if value.get(SEAL) is None else value[SEAL] == of_json(value)


def sound(name: str, content: bytes) -> bool | None:
    """Whether a file's `content` is what was sealed; None where it is whole and bears no seal."""
    try:
        match Path(name).suffix:
            case ".pt":
                return _zip(content)
            case ".safetensors":
                head, body = _parts(content)
                told = head.get("__metadata__", {}).get(SEAL)
                return None if told is None else told == _of_parts(head, body)
            case _:
                return unbroken(json.loads(content))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _zip(content: bytes) -> bool | None:
    if content[-22:-18] == _END and content[-2:] == _EMPTY:
        return None
    if content[-86:-82] != _END or content[-66:-64] != _ROOM:
        return False
    return content[-64:].decode() == hashlib.sha256(content[:-66] + _EMPTY).hexdigest()


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and its tensors. Raises ValueError where it is not whole."""
    start = 8 + int.from_bytes(content[:8], "little")
    head, body = json.loads(content[8:start]), content[start:]
    ends = [entry["data_offsets"][1] for key, entry in head.items() if key != "__metadata__"]
    if len(body) != max(ends, default=0):
        raise ValueError("cut short")
    return head, body


def _of_parts(head: dict[str, Any], body: bytes) -> str:
    said = {key: value for key, value in head.get("__metadata__", {}).items() if key != SEAL}
    return hashlib.sha256(json.dumps({**head, "__metadata__": said}, sort_keys=True).encode() + body).hexdigest()


def previous(path: Path) -> Path:
    """Where what `path` held before is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def keep(path: Path, content: bytes) -> None:
    """Write `content`, sealed, as `path`; what was there stays as its predecessor. Raises Unwritable."""
    write_bytes(path, seal(path.name, content), previous(path))


def mend(path: Path, say: Callable[[str], None]) -> None:
    """Put the predecessor of what `keep` wrote in its place where it is damaged or gone; say so where it is damaged."""
    if _good(path):
        return
    damaged, before = path.exists(), previous(path)
    if _good(before):
        before.replace(path)
        then = "going on from the one before it"
    else:
        for file in (path, before):
            file.unlink(missing_ok=True)
        then = "what it held is done again"
    if damaged:
        say(f"{path.parent.name}/{path.name} was damaged: {then}")


def _good(path: Path) -> bool:
    try:
        return sound(path.name, path.read_bytes()) is not False
    except OSError:
        return False
