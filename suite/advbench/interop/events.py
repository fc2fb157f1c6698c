"""Training histories as TensorBoard's event files, by tensorboard's own writer.

A run a record: `validation/clean`, `validation/fgsm`, `validation/pgd` and what else its history has, a point an epoch,
then `test/clean` and `test/robust` at the epoch whose weights they are of. The HPARAMS tab has the hyper-parameters;
seeds of one label are one group there. Times are those that the record says, not of the export: the training ended
when the record was written.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advbench.files import write_bytes
from advbench.interop.found import Found
from advbench.interop.job import table, text
from advbench.record import Record
from advbench.spec import BadInput

FILE = "events.out.tfevents.0.advbench"
"""One name, so that a new export takes the place of an old one; TensorBoard asks for `tfevents` in it."""

SERIES = {
    "loss": "train/loss",
    "clean": "validation/clean",
    "fgsm": "validation/fgsm",
    "pgd": "validation/pgd",
    "top_class": "validation/top_class",
    "eps": "schedule/eps",
    "lr": "schedule/lr",
    "forward": "cost/forward",
    "backward": "cost/backward",
}
"""Tag of each field of an epoch; what the defense reports itself is `defense/NAME`."""


def write(records: Found, out: Path) -> list[str]:
    """An event file a record. Returns a line a file. Raises BadInput, also without tensorboard."""
    try:
        import tensorboard  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise BadInput("tensorboard is not installed; pip install 'advbench[tensorboard]'") from None
    # A list of paths is small, the contents are not kept.
    lines: list[str] = []
    for folder, record in records.finished():
        path = records.place(folder, out) / FILE
        write_bytes(path, content(record))
        lines.append(str(path))
    return lines


def content(record: Record) -> bytes:
    """The event file of `record`: the same bytes each time."""
    # Generated code, which pyright cannot see into.
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    began = _ended(record) - sum(line.seconds for line in record.history)
    writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
    group = f"{record.task}/{record.label}"
    start = hparams_pb(hyper_parameters(record), trial_id=group, start_time_secs=began)
    writer.write(Event(wall_time=began, summary=start).SerializeToString(deterministic=True))
    for seconds, step, values in points(record):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        writer.write(Event(wall_time=began + seconds, step=step, summary=summary).SerializeToString())
    return file.getvalue()


def points(record: Record) -> Iterator[tuple[float, int, dict[str, float]]]:
    """(seconds of training so far, epoch, values by tag); what is not finite is left out."""
    seconds, last = 0.0, 0
    for line in record.history:
        seconds, last = seconds + line.seconds, line.epoch
        values = {tag: value for name, tag in SERIES.items() if (value := getattr(line, name)) is not None}
        yield seconds, last, values | {f"defense/{name}": value for name, value in sorted(line.extra.items())}
    if record.scores:
        shares = {"test/clean": record.scores.clean, "test/robust": record.scores.robust}
        of = last if text(record, "evaluation", "checkpoint") == "last" else record.best_epoch or last
        yield seconds, of, {tag: share.accuracy for tag, share in shares.items() if share}


def hyper_parameters(record: Record) -> dict[str, bool | int | float | str]:
    """What of the job's tables is a number, a text or a truth, as `training.lr`; eps is text ("8/255")."""
    found: dict[str, Any] = {"defense": record.defense}
    for name in ("model", "threat", "training", "defense"):
        found |= {f"{name}.{field}": value for field, value in table(record, name).items()}
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}


def _ended(record: Record) -> float:
    """When the record was written, in seconds since 1970; 0 where it does not say."""
    try:
        return datetime.datetime.fromisoformat(str(record.provenance.get("date"))).timestamp()
    except (ValueError, OverflowError):
        return 0.0
