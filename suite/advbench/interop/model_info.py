"""RobustBench's model_info, one JSON file an entry: model_info/<dataset>/<threat model>/<ID>.json.

Fields, their order and their types are those of the files that RobustBench keeps (RobustBench/robustbench, model_info/
and `ModelInfo` in utils.py): accuracies are text in percent, eps is text. Only what stands for the same measurement is
written; anything else is refused with the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from advbench.external import external
from advbench.files import write_bytes
from advbench.interop.about import About, of
from advbench.interop.found import Found, names
from advbench.interop.job import rungs, table, text
from advbench.record import Record
from advbench.spec import BadInput

BOARDS: dict[tuple[str, str], tuple[Fraction, str]] = {
    ("cifar10", "Linf"): (Fraction(8, 255), "8/255"),
    ("cifar10", "L2"): (Fraction(1, 2), "0.5"),
    ("cifar100", "Linf"): (Fraction(8, 255), "8/255"),
}
"""The radius of each of its boards on whole test splits, and how its files write it. Its ImageNet boards attack 5,000
images of a list of their own, its corruption boards read files of corrupted images: neither is what we measure."""
EXAMPLES = 10_000
"""The test split of both data sets."""
PROTOCOL = "autoattack"
"""The standard version by the authors' package. Our own engine finds the same, and is not what their column means."""

UNRELIABLE = frozenset(
    {
        "zero-gradient",
        "softmax-output",
        "stochastic",
        "batch-dependent",
        "non-finite-logits",
        "optimises-in-forward",
        "black-box-beats-white-box",
        "one-step-beats-many",
        "unbounded-attack-fails",
        "larger-eps-does-not-hurt",
    }
)
"""Flags by which AutoAttack's number may be too high: RobustBench's "potentially unreliable"."""


def write(records: Found, out: Path, told: Mapping[str, About]) -> list[str]:
    """An entry a record, under out/<dataset>/<threat model>/. Raises BadInput when none of them fits a board."""
    entries: dict[Path, bytes] = {}
    refused: dict[str, int] = {}
    for folder, record in records.finished():
        about = of(told, record.label)
        try:
            fields = entry(record, about)
        except BadInput as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
            continue
        path = out / board(record) / f"{_identity(folder, about, records)}.json"
        entries[path] = dumped(fields)
    if not entries:
        raise BadInput(*(f"{count} of {len(records.files)} records: {why}" for why, count in refused.items()))
    for path, content in entries.items():
        write_bytes(path, content)
    return [
        *map(str, entries),
        *(f"left out: {count} of {len(records.files)} records: {why}" for why, count in refused.items()),
    ]


def dumped(fields: Mapping[str, Any]) -> bytes:
    """As RobustBench's own `update_json` writes it, letters as they are, and a newline."""
    return (json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def entry(record: Record, about: About) -> dict[str, Any]:
    """The fields of `record`. Raises BadInput that says why it is no entry of any board."""
    dataset, norm = board(record).split("/")
    scores, ladder = record.scores, rungs(record)
    assert scores
    assert scores.robust
    notes = [about.footnote] if about.footnote else []
    if len(ladder) > 1:
        notes.append(f"Robust accuracy is the per-example worst case of {', '.join(ladder[:-1])} and {ladder[-1]}.")
    return {
        "link": about.link or "",
        "name": about.name or record.label,
        "authors": about.authors or "",
        "additional_data": _additional(record, about),
        "number_forward_passes": table(record, "evaluation").get("votes") or 1,
        "dataset": dataset,
        "venue": about.venue or "",
        "architecture": about.architecture or text(record, "model", "name") or "",
        "eps": BOARDS[dataset, norm][1],
        "clean_acc": f"{100 * scores.clean.accuracy:.2f}",
        "reported": about.reported or "",
        "autoattack_acc": f"{100 * scores.robust.accuracy:.2f}",
        **({"footnote": " ".join(notes)} if notes else {}),
        "unreliable": any(flag.name in UNRELIABLE for flag in record.flags),
    }


def board(record: Record) -> str:
    """Of which board its measurement is: `cifar10/Linf`. Raises BadInput that says why it is of none."""
    scores, radius = record.scores, table(record, "threat").get("eps")
    data, norm = text(record, "data", "name") or "?", text(record, "threat", "norm") or "?"
    if (data, norm) not in BOARDS:
        known = ", ".join(f"{name} {ball} {eps}" for (name, ball), (_, eps) in BOARDS.items())
        raise BadInput(f"RobustBench has no board for {data} under {norm} that we measure alike; it has {known}")
    eps, written = BOARDS[data, norm]
    if not isinstance(radius, str) or not _equal(radius, eps):
        raise BadInput(f"eps is {radius}, and RobustBench's board for {data} under {norm} has {written}")
    if scores is None or scores.robust is None:
        raise BadInput("it was not attacked to the end, so it has no robust accuracy")
    if scores.robust.protocol != PROTOCOL:
        raise BadInput(
            f"judged by {scores.robust.protocol}, and RobustBench's column is the standard version of AutoAttack by "
            f'its package; judge it again with attacks = ["{PROTOCOL}"]'
        )
    if scores.robust.n != EXAMPLES:
        raise BadInput(f"judged on {scores.robust.n:,} test examples, and RobustBench takes all {EXAMPLES:,}")
    if scores.rejected is not None:
        raise BadInput("its detector refuses examples, which RobustBench does not count")
    return f"{data}/{norm}"


def _equal(radius: str, eps: Fraction) -> bool:
    try:
        return Fraction(radius) == eps
    except (ValueError, ZeroDivisionError):
        return False


def _additional(record: Record, about: About) -> bool:
    if about.additional_data is not None:
        return about.additional_data
    if external(record.defense, record.job):
        raise BadInput("trained elsewhere: say additional_data = true or false in the file of --about")
    unlabelled: Any = table(record, "data").get("unlabelled")
    images = unlabelled.get("path") if isinstance(unlabelled, dict) else None
    return (text(record, "model", "extra_data") or "none") != "none" or bool(images)


def _identity(folder: Path, about: About, records: Found) -> str:
    task, name = names(folder)
    if about.id is None:
        return f"{task}_{name}"
    return about.id if records.one else f"{about.id}_{name}"
