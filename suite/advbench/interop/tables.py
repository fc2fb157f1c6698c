"""All records as two parquet tables, for pandas, polars or DuckDB.

`records.parquet`, a row a record, FAILED ones too:

    task, label, defense, seed, status, id      as in the record
    record                                      <task>/<label>-s<seed>, by its folders: the key of both tables
    data, model, norm, eps, protocol            text; eps as it is written ("8/255")
    clean, robust (with _low, _high, _n)        fractions with their 95 % intervals; examples
    rejected, distance, best_epoch              null where there is none
    train_seconds, ... joules                   every field of the record's cost
    flags                                       list of names
    error                                       the line that names why a job FAILED
    after.NAME, alone.NAME, alone_n.NAME        accuracy after a rung, under one attack, on how many examples
    curve.EPS                                   accuracy at other radii
    corruption.NAME.SEVERITY                    accuracy under a common corruption
    measure.COLLECTOR.NAME                      what a collector found

Columns with a point in their names are float64, `alone_n.NAME` int64; they exist where any record has them, in
alphabetical order. What a record lacks is null.

`examples.parquet`, a row a test example of a record: `record` and `id`, then the columns of the record's own
examples.parquet (`EXAMPLES` below). Records whose file is absent, or not the one they were written with, are counted.

The rows of records are kept until all are known, a few kB each; examples are written as they come, 100,000 together.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from advbench.interop.found import Found, names
from advbench.interop.job import table, text
from advbench.record import Cost, Record, Scores

TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()

COSTS = {name: REAL if name.endswith("seconds") or name == "joules" else WHOLE for name in Cost.model_fields}

FIXED: dict[str, pa.DataType] = {
    **dict.fromkeys(("record", "task", "label", "defense"), TEXT),
    "seed": WHOLE,
    **dict.fromkeys(("status", "id", "data", "model", "norm", "eps", "protocol"), TEXT),
    **{f"{name}{end}": REAL for name in ("clean", "robust") for end in ("", "_low", "_high")},
    **dict.fromkeys(("clean_n", "robust_n"), WHOLE),
    **dict.fromkeys(("rejected", "distance"), REAL),
    "best_epoch": WHOLE,
    **COSTS,
    "flags": pa.list_(TEXT),
    "error": TEXT,
}
"""The columns that every table of records has, with their types."""

EXAMPLES: dict[str, pa.DataType] = {
    **dict.fromkeys(("record", "id"), TEXT),
    **dict.fromkeys(("index", "label", "predicted"), WHOLE),
    "margin": pa.float32(),
    "distance": REAL,
    "broken_by": TEXT,
    **dict.fromkeys(("forward", "backward"), WHOLE),
    "refused": pa.bool_(),
}
"""Of the table of examples."""

TOGETHER = 100_000
"""Examples that are written together: each group of rows has its own entry in the file's end, kept until then."""


def write(records: Found, out: Path) -> list[str]:
    """records.parquet and examples.parquet in `out`; returns a line about each. Raises BadInput."""
    schema = pa.schema(EXAMPLES)
    rows: list[dict[str, Any]] = []
    examples, absent = 0, 0
    targets = out / "records.parquet", out / "examples.parquet"
    with ExitStack() as stack:
        # Both are whole before either gets its name.
        first, second = (stack.enter_context(_replacing(target)) for target in targets)
        with pq.ParquetWriter(second, schema) as writer:
            waiting: list[Any] = []
            for folder, record in records.all():
                rows.append(_row(folder, record))
                part = _examples(folder, record, schema)
                if part is None:
                    absent += 1
                    continue
                examples += len(part)
                waiting.append(part)
                if sum(map(len, waiting)) >= TOGETHER:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
            writer.write_table(pa.concat_tables(waiting or [schema.empty_table()]))
        pq.write_table(_records(rows), first)  # pyright: ignore[reportUnknownMemberType]
    lines = [f"{targets[0]}: {len(rows)} records", f"{targets[1]}: {examples} examples"]
    without = f"without examples: {absent} of {len(rows)} records, whose files are absent or not theirs"
    return [*lines, *([without] if absent else [])]


@contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """A path to write to, which becomes `path` in one step if all goes well, and is gone if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _records(rows: list[dict[str, Any]]) -> Any:
    found = sorted({name for row in rows for name in row if name not in FIXED})
    named = FIXED | {name: WHOLE if name.startswith("alone_n.") else REAL for name in found}
    return pa.Table.from_pylist(rows, schema=pa.schema(named))


def _row(folder: Path, record: Record) -> dict[str, Any]:
    eps = table(record, "threat").get("eps")
    return {
        **{name: getattr(record, name) for name in ("task", "label", "defense", "seed", "status", "id", "best_epoch")},
        "record": "/".join(names(folder)),
        "data": text(record, "data", "name"),
        "model": text(record, "model", "name"),
        "norm": text(record, "threat", "norm"),
        "eps": None if eps is None else str(eps),
        **(_scores(record.scores) if record.scores else {}),
        **{name: getattr(record.cost, name) for name in COSTS},
        "flags": sorted({flag.name for flag in record.flags}),
        "error": record.reason if record.status == "failed" else None,
        **{f"measure.{c}.{name}": m.value for c, found in record.measures.items() for name, m in found.items()},
    }


def _scores(scores: Scores) -> dict[str, Any]:
    row: dict[str, Any] = {"distance": scores.distance}
    for name, share in (("clean", scores.clean), ("robust", scores.robust)):
        if share:
            row |= {name: share.accuracy, f"{name}_low": share.low, f"{name}_high": share.high, f"{name}_n": share.n}
    row["rejected"] = scores.rejected.accuracy if scores.rejected else None
    row["protocol"] = scores.robust.protocol if scores.robust else None
    for prefix in ("alone", "alone_n", "curve"):
        row |= {f"{prefix}.{name}": value for name, value in getattr(scores, prefix).items()}
    row |= {f"after.{name}": value for name, value in scores.attacks.items()}
    return row | {
        f"corruption.{c}.{s}": value for c, shares in scores.corruptions.items() for s, value in shares.items()
    }


def _examples(folder: Path, record: Record, schema: Any) -> Any:
    """The rows of one record as a table of the common schema; None where it has no file of its own."""
    file = folder / "examples.parquet"
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.files.get(file.name):
            return None
        found = pq.read_table(pa.BufferReader(content))  # pyright: ignore[reportUnknownMemberType]
        keys = {"record": "/".join(names(folder)), "id": record.id}
        columns = [
            pa.repeat(pa.scalar(keys[name], kind), len(found))
            if name in keys
            else found[name].cast(kind)
            if name in found.column_names
            else pa.nulls(len(found), kind)
            for name, kind in EXAMPLES.items()
        ]
        return pa.Table.from_arrays(columns, schema=schema)
    except (OSError, pa.ArrowException):
        return None
