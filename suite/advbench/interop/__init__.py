"""Records in the formats that other tools read, and RobustBench's entries in ours.

    records --found--> one at a time --model_info | card | tables | events--> files of that tool
    RobustBench's model_info --published--> one JSON file, and back

Equal records give equal bytes. Every file is written whole or not at all, and none outside the output folder: names
of files come from the folders that records lie in, never from what a record says. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from advbench.interop.about import About
from advbench.interop.found import Found
from advbench.interop.found import find as find_records
from advbench.spec import BadInput


def export(kind: str, source: Path, out: Path, about: Path | None = None) -> list[str]:
    """Write what `source` holds as `kind` into the folder `out`; returns lines that say what was written.

    `source` is a record, or a folder of them; for "robustbench" also a file of `advbench import`. `about` is a file of
    `About`. Raises BadInput; nothing is written then.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: a file; -o takes the folder that the files go into")
    if about is not None and kind not in ("robustbench", "huggingface"):
        raise BadInput(f"--about {about}: {kind} has no fields for it")
    try:
        if kind == "robustbench" and source.is_file() and source.name != "record.json":
            from advbench.interop import published

            if about is not None:
                raise BadInput(f"--about {about}: {source} is of `advbench import` and has it all; leave --about out")
            return published.write(published.read(source)[0], out)
        return _written(kind, find_records(source), out, About.read(about) if about is not None else {})
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror or error}; choose another folder with -o") from error
    except (ValueError, OverflowError) as error:  # a number that the format has no room for
        raise BadInput(f"{source}: cannot be written as {kind}: {str(error).splitlines()[0]}") from error


def _written(kind: str, records: Found, out: Path, told: Mapping[str, About]) -> list[str]:
    match kind:
        case "robustbench":
            from advbench.interop import model_info

            lines = model_info.write(records, out, told)
        case "huggingface":
            from advbench.interop import card

            lines = card.write(records, out, told)
        case "parquet":
            from advbench.interop import tables

            return tables.write(records, out)  # a failed job is a row there
        case "tensorboard":
            from advbench.interop import events

            lines = events.write(records, out)
        case _:
            raise BadInput(f"no format '{kind}'; known: huggingface, parquet, robustbench, tensorboard")
    return [*lines, *_left_out(records)]


def _left_out(records: Found) -> list[str]:
    return [f"left out: {records.failed} of {len(records.files)} records, whose jobs FAILED"] if records.failed else []
