"""`advbench results merge`: records of several folders into one, all of them or none.

Two records of one task, label and seed are one when they are of the same job and equal in all that is stable (seconds,
dates and host may differ). Anything else is a conflict, which a person decides.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advbench.execute.lock import locked
from advbench.files import Unwritable
from advbench.plan import run_folder
from advbench.record import BESIDE, MEASURES, Record, load, whole
from advbench.results.verify import ill
from advbench.spec import BadInput
from advbench.stable import stable

WEIGHTS = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class _Found:
    source: Path
    record: Record

    @property
    def path(self) -> str:
        return f"{self.record.task}/{self.record.label}-s{self.record.seed}"

    @property
    def folder(self) -> Path:
        return self.source / "records" / self.path


@dataclass(frozen=True)
class Merged:
    """What came and what did not."""

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    there: int
    """Records that the folder had already."""


def merge(sources: Sequence[Path], out: Path, prefer: Path | None = None) -> Merged:
    """Bring the records and measures of `sources`, and their weights where there are, into `out`.

    `prefer` is the folder that wins where two differ. A finished job wins over a FAILED try of the same one. Nothing is
    changed when anything is wrong: raises BadInput that names every damaged record and every conflict.
    """
    folders = [*([out] if (out / "records").is_dir() else []), *sources]
    if prefer is not None and prefer.resolve() not in [folder.resolve() for folder in folders]:
        raise BadInput(f"--prefer {prefer}: is none of the folders; give one of {', '.join(map(str, folders))}")
    if lacking := [folder for folder in sources if not (folder / "records").is_dir()]:
        raise BadInput(*(f"{folder}: holds no records/; give results folders" for folder in lacking))
    for refuse in (_chosen, _measured):  # before anything is made
        refuse(folders, prefer)
    with locked(out):
        # What another process wrote until the lock was held counts too.
        folders = [*([out] if (out / "records").is_dir() else []), *sources]
        chosen, measured = _chosen(folders, prefer), _measured(folders, prefer)
        coming = [found for found in chosen if found.source.resolve() != out.resolve()]
        new = tuple(found.path for found in coming if not (out / "records" / found.path).exists())
        _place(coming, [file for file in measured if out.resolve() not in file.resolve().parents], out)
    replaced = tuple(found.path for found in coming if found.path not in new)
    return Merged(new, replaced, len(chosen) - len(coming))


def _chosen(folders: Sequence[Path], prefer: Path | None) -> list[_Found]:
    chosen: dict[str, _Found] = {}
    wrong: list[str] = []
    for folder in folders:
        for file in sorted(folder.glob("records/*/*/record.json")):
            try:
                found = _read(folder, file)
            except BadInput as error:
                wrong += error.lines
                continue
            known = chosen.setdefault(found.path, found)
            if known is found:
                continue
            if (better := _better(known, found, prefer)) is None:
                line = f"{found.path}: {known.source} and {found.source} differ in {_differs(known, found)}"
                wrong.append(f"{line}; --prefer one of them")
            else:
                chosen[found.path] = better
    if wrong:
        raise BadInput(*wrong)
    return list(chosen.values())


def _measured(folders: Sequence[Path], prefer: Path | None) -> list[Path]:
    """The measures.json of each model that has measures and no record. Raises BadInput for a conflict."""
    chosen: dict[str, Path] = {}
    wrong: list[str] = []
    for folder in folders:
        for file in sorted(folder.glob("measures/*/*/measures.json")):
            path = str(file.parent.relative_to(folder))
            known = chosen.setdefault(path, file)
            if known.read_bytes() == file.read_bytes():
                continue
            wins = [one for one in (known, file) if prefer and one.parents[3].resolve() == prefer.resolve()]
            if not wins:
                wrong.append(f"{path}: {known.parents[3]} and {folder} differ; --prefer one of them")
            else:
                chosen[path] = wins[0]
    if wrong:
        raise BadInput(*wrong)
    return list(chosen.values())


def _read(folder: Path, file: Path) -> _Found:
    record = load(file)
    if why := ill(record, file.parent) if whole(record, file.parent) else "is not what was written":
        raise BadInput(f"{file}: {why}; `advbench results verify {folder}` says more")
    return _Found(folder, record)


def _better(one: _Found, other: _Found, prefer: Path | None) -> _Found | None:
    """Which of two records of one task, label and seed is to stay; None where a person has to say."""
    if one.record.id == other.record.id:
        if one.record.status != other.record.status:
            return one if one.record.status == "ok" else other
        if one.record.status == "failed" or stable(one.record) == stable(other.record):
            return one
    wins = [found for found in (one, other) if prefer and found.source.resolve() == prefer.resolve()]
    return wins[0] if wins else None


def _differs(one: _Found, other: _Found) -> str:
    if one.record.id != other.record.id:
        return "their job"
    left, right = stable(one.record), stable(other.record)
    return ", ".join(sorted(key for key in left if left[key] != right.get(key)))


def _place(coming: Sequence[_Found], measured: Sequence[Path], out: Path) -> None:
    """Copy everything to one side first, where the disk may fill; then move it into its place, which needs no room."""
    stage = out / "runs" / f".merge.{os.getpid()}.tmp"
    try:
        moves: list[tuple[Path, Path]] = []
        for found in coming:
            runs = run_folder(found.source, found.path)
            files = [found.folder / "record.json", *(found.folder / name for name in found.record.files)]
            moves += _copied(files, found.folder, stage / "records" / found.path, out / "records" / found.path)
            weights = [runs / name for name in WEIGHTS if (runs / name).is_file()]
            moves += _copied(weights, runs, stage / "runs" / found.path, run_folder(out, found.path))
        for file in measured:
            path = file.parent.relative_to(file.parents[3])
            files = [one for one in (file, file.with_name(MEASURES)) if one.exists()]
            moves += _copied(files, file.parent, stage / path, out / path)
        # What was there goes, its JSON first, and the new JSON comes last: the sources still have what a crash takes.
        for found in coming:
            for name in ("record.json", *BESIDE):
                (out / "records" / found.path / name).unlink(missing_ok=True)
            for name in WEIGHTS:
                (run_folder(out, found.path) / name).unlink(missing_ok=True)
        for staged, target in sorted(moves, key=lambda move: move[1].suffix == ".json"):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
    except OSError as error:
        raise Unwritable(out, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _copied(files: Sequence[Path], source: Path, stage: Path, target: Path) -> list[tuple[Path, Path]]:
    stage.mkdir(parents=True, exist_ok=True)
    for file in files:
        with file.open("rb") as reading, (stage / file.name).open("wb") as writing:
            shutil.copyfileobj(reading, writing)
            writing.flush()
            os.fsync(writing.fileno())
    return [(stage / file.relative_to(source), target / file.relative_to(source)) for file in files]
