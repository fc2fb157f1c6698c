"""What lies beside a record, as far as it is whole: tables and tensors from strangers, held to size and digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.record import Record

LARGEST = 1 << 28
"""Bytes of a file that is read at all."""
ROWS = 1 << 21
"""Examples of a table that is read at all: a small file can mean a large table."""

Key = tuple[str, str, int]
"""Task, label and seed."""
Folders = dict[Key, Path]


class Lost(Exception):
    """Why a file is not shown, in a few words."""


def key(record: Record) -> Key:
    """What no two records of a board share."""
    return record.task, record.label, record.seed


def content(folder: Path, record: Record, name: str) -> bytes:
    """The bytes of the file `name` of `record`. Raises Lost."""
    path = folder / name
    try:
        if not path.is_file():
            raise Lost(f"{name} is missing")
        if path.stat().st_size > LARGEST:
            raise Lost(f"{name} has {path.stat().st_size:,} bytes")
        found = path.read_bytes()
    except OSError as error:
        raise Lost(f"{name} cannot be read: {error.strerror}") from None
    if hashlib.sha256(found).hexdigest() != record.files.get(name):
        raise Lost(f"{name} is not the file that the record was written with")
    return found


def table(folder: Path, record: Record, columns: list[str]) -> dict[str, Any]:
    """Those of `columns` that examples.parquet has, as arrow arrays; `broken_by` as a dictionary. Raises Lost."""
    # Inside, because a board without verdicts, and whoever only asks for names, needs no arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = content(folder, record, "examples.parquet")
    try:
        # Names as a dictionary: a small file can say a long name a million times.
        file = pq.ParquetFile(pa.BufferReader(raw), read_dictionary=["broken_by"])
        if file.metadata.num_rows > ROWS:
            raise Lost(f"examples.parquet has {file.metadata.num_rows:,} rows")
        kinds = {field.name: field.type for field in file.schema_arrow if field.name in columns}
        for name, kind in kinds.items():
            if not (pa.types.is_dictionary(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise Lost(f"examples.parquet has other things than numbers in {name}")
        read = file.read(list(kinds), use_threads=False)  # pyright: ignore[reportUnknownMemberType]
        return {name: read[name].combine_chunks() for name in kinds}
    except (OSError, pa.ArrowException, KeyError, MemoryError):
        raise Lost("examples.parquet is not a whole table") from None


def verdicts(folder: Path, record: Record) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The index of the test examples, rising, and which of them stand after the whole ladder. Raises Lost."""
    import pyarrow as pa

    found = table(folder, record, ["index", "broken_by"])
    try:
        if found["index"].null_count:
            raise ValueError
        index = np.asarray(found["index"].cast(pa.int64()))
        stands = np.asarray(found["broken_by"].is_null())
    except (KeyError, ValueError, pa.ArrowException):
        raise Lost("examples.parquet lacks its index or what broke the examples") from None
    if (index[1:] < index[:-1]).any():
        order = np.argsort(index)
        index, stands = index[order], stands[order]
    if not len(index) or (index[1:] == index[:-1]).any():
        raise Lost("examples.parquet names an example twice, or none")
    return index, stands


def tensors(folder: Path, record: Record, name: str) -> dict[str, NDArray[Any]]:
    """What a .safetensors file holds. Raises Lost."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    raw = content(folder, record, name)
    try:
        return load(raw)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, MemoryError):
        raise Lost(f"{name} holds no tensors that can be read") from None
