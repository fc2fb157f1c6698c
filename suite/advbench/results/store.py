"""A second place for finished records, at a URL: what other machines have finished there is not run again here.

Any file system that fsspec knows: s3://, gs://, sftp://, a folder. The results folder stays the truth of this machine;
weights, checkpoints and journals stay in it. Objects have no locks and no renaming, so a record there counts when it
is whole: its seal and the digests of its files hold. Its JSON is written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from advbench.plan import Item, record_folder
from advbench.record import Record, load, save
from advbench.seal import unbroken
from advbench.spec import BadInput, read

AT_A_TIME = 16
"""Requests: a place far away answers each of them late, and many at once."""


class Store:
    """The records below `url`. Raises BadInput where there can be none."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        self.there: dict[str, str] = {}
        """The id of each finished record there, by task/label-sN."""
        self.unsent: dict[str, str] = {}
        """Why a record of this run is not there."""
        try:
            self.system, root = url_to_fs(self.url)
        except Exception as error:  # a package that is not installed, an unknown protocol, credentials
            raise self._refused(error) from None
        self.root: str = root.rstrip("/")

    def mark(self, items: Sequence[Item]) -> list[Item]:
        """The items, those marked as cached too whose finished record is there. Raises BadInput."""
        asked = [item for item in items if item.job is not None]
        try:
            self.system.invalidate_cache()
            names = set(self.system.find(f"{self.root}/records"))
        except FileNotFoundError:
            names = set[str]()
        except Exception as error:
            raise self._refused(error) from None
        found = [item for item in asked if self._name(item.path, "record.json") in names]
        for item, record in zip(found, self._all(self._record, found), strict=True):
            if record and record.status == "ok":
                self.there[item.path] = record.id
        return [item if item.state == "cached" or not self._has(item) else _cached(item) for item in items]

    def try_out(self) -> None:
        """Raises BadInput where nothing can be written: better now than after the first job."""
        name = f"{self.root}/records/.advbench"
        try:
            self._write(name, b"")
            self.system.rm_file(name)
        except Exception as error:
            raise self._refused(error) from None

    def bring(self, items: Iterable[Item], results: Path) -> list[str]:
        """Lay the finished records of those `items` that are there into `results`; a line for each that is broken."""
        lines: list[str] = []

        def one(item: Item) -> None:
            record = self._record(item)
            try:
                assert record is not None
                content = {name: self.system.cat_file(self._name(item.path, name)) for name in record.files}
            except Exception:  # as for the record itself
                content = dict[str, bytes]()
            if record and all(
                hashlib.sha256(content.get(name, b"")).hexdigest() == digest for name, digest in record.files.items()
            ):
                save(record, record_folder(results, item.path), content)
            else:
                del self.there[item.path]
                lines.append(f"{self.url}: {item.path} is not what was written; its job runs here")

        self._all(one, [item for item in items if self._has(item)])
        return sorted(lines)

    def send(self, results: Path, path: str) -> None:
        """Copy a finished record there. What goes wrong is kept in `unsent`: a night's run does not end for it."""
        folder = record_folder(results, path)
        try:
            record = load(folder / "record.json")
            for name in [*record.files, "record.json"]:
                self._write(self._name(path, name), (folder / name).read_bytes())
        except Exception as error:
            self.unsent[path] = _words(error)
        else:
            self.unsent.pop(path, None)
            self.there[path] = record.id

    def complete(self, results: Path, items: Iterable[Item]) -> list[str]:
        """Send what is finished here and not there yet; a line where something stays behind."""
        self._all(lambda item: self.send(results, item.path), [item for item in items if not self._has(item)])
        if not self.unsent:
            return []
        path, why = next(iter(self.unsent.items()))
        count = len(self.unsent)
        rest = f" and {count - 1} more" if count > 1 else ""
        return [f"{self.url}: {path}{rest} could not be written there: {why}; the same command sends what is missing"]

    def _has(self, item: Item) -> bool:
        return item.job is not None and self.there.get(item.path) == item.job.id

    def _record(self, item: Item) -> Record | None:
        """As it is there; None for one that is damaged, or of another version."""
        try:
            content: bytes = self.system.cat_file(self._name(item.path, "record.json"))
            return read(Record, content) if unbroken(json.loads(content)) else None
        except Exception:  # whatever a file system raises; its job runs here
            return None

    def _write(self, name: str, content: bytes) -> None:
        self.system.makedirs(name.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(name, content)

    def _name(self, path: str, file: str) -> str:
        return f"{self.root}/records/{path}/{file}"

    def _all(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            return list(threads.map(work, items))

    def _refused(self, error: Exception) -> BadInput:
        return BadInput(f"--store {self.url}: {_words(error)}; give a URL that fsspec can read and write here")


def _cached(item: Item) -> Item:
    return item.model_copy(update={"cached": True, "skip": ""})


def _words(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__
