"""The leaderboard: a pure function from a folder of records to five files.

    records --load_all--> Records --table.sections--> Sections --page--> README.md, index.html
                                                                --export--> board.csv, board.json
                                                                --latex--> board.tex

Equal records give equal bytes on every machine: no building date, no path, no order of files or keys gets in,
so a committed board can be compared with a fresh one. Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path

from advbench.board import export, latex, page, table
from advbench.record import load_all, write_bytes
from advbench.spec import BadInput


def build(folder: Path, out: Path | None = None) -> list[Path]:
    """Write the board of the records in `folder` and return the files, README.md first.

    `folder` holds `records/` or is that folder itself; `out` is by default the folder that contains `records/`.
    Raises BadInput that names the folder or the file that cannot be used; nothing is written then.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give a folder that holds records/<task>/<label>-s<seed>/record.json")
    records = _records(folder)
    # Resolved, because the parent of "." is "." again.
    home = folder if records != folder else folder.resolve().parent
    sections = table.sections(list(load_all(records)))
    pages = {
        "README.md": page.markdown(sections).encode(),
        "index.html": page.html(sections).encode(),
        "board.csv": export.flat(sections).encode(),
        "board.json": export.nested(sections).encode(),
        "board.tex": latex.latex(sections).encode(),
    }
    target = out or home
    refuse_to_overwrite(target / "README.md")
    for name, content in pages.items():
        write_bytes(target / name, content)
    return [target / name for name in pages]


def _records(folder: Path) -> Path:
    """The folder that holds `<task>/<label>-s<seed>/record.json`."""
    if folder.resolve().name == "records" or any(folder.glob("*/*/record.json")):
        return folder
    return folder / "records"


def refuse_to_overwrite(readme: Path) -> None:
    """A folder given by mistake, a project's own for one, keeps its README. Raises BadInput."""
    if readme.is_file() and not readme.read_bytes().startswith(page.SIGNATURE.encode()):
        raise BadInput(f"{readme}: not written by `advbench board`, so it stays; give another folder for the pages")
