"""The leaderboard: a pure function from a folder of records to five files.

    records --read--> Records --table.sections--> Sections --standing--> ranked --page--> README.md, index.html
                                                                                 --export--> board.csv, board.json
                                                                                 --latex--> board.tex

Equal records give equal bytes on every machine: no building date, no path, no order of files or keys gets in,
so a committed board can be compared with a fresh one. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from advbench.board import export, latex, page, strangers, table
from advbench.board.beside import key
from advbench.files import write_together
from advbench.spec import BadInput

PAGES = ("README.md", "index.html", "board.csv", "board.json", "board.tex")


def build(folder: Path, out: Path | None = None) -> list[Path]:
    """Write the board of the records in `folder` and return the files, README.md first.

    `folder` holds `records/` or is that folder itself; `out` is by default the folder that contains `records/`.
    Raises BadInput that names the folder or the file that cannot be used; nothing is written then.
    """
    # Here, because a run that finds all pages written needs neither scipy nor pyarrow.
    from advbench.board.standing import standing
    from advbench.board.studies import studies

    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give a folder that holds records/<task>/<label>-s<seed>/record.json")
    records = _records(folder)
    # Resolved, because the parent of "." is "." again.
    home = folder if records != folder else folder.resolve().parent
    loaded = [(path.parent, strangers.read(path)) for path in sorted(records.glob("*/*/record.json"))]
    sections = table.sections(record for _, record in loaded)
    folders = {key(record): path for path, record in loaded}
    studied = studies((record for _, record in loaded), folders)
    ranked = [replace(section, standing=standing(section.groups, folders)) for section in sections]
    pages = {
        "README.md": page.markdown(ranked, studied),
        "index.html": page.html(ranked, folders, studied),
        "board.csv": export.flat(ranked),
        "board.json": export.nested(ranked, studied),
        "board.tex": latex.latex(ranked),
    }
    target = out or home
    refuse_to_overwrite(target / "README.md")
    assert tuple(pages) == PAGES
    write_together({target / name: content.encode() for name, content in pages.items()})
    return [target / name for name in PAGES]


def _records(folder: Path) -> Path:
    """The folder that holds `<task>/<label>-s<seed>/record.json`."""
    if folder.resolve().name == "records" or any(folder.glob("*/*/record.json")):
        return folder
    return folder / "records"


def refuse_to_overwrite(readme: Path) -> None:
    """A folder given by mistake, a project's own for one, keeps its README. Raises BadInput."""
    if readme.is_file() and not readme.read_bytes().startswith(page.SIGNATURE.encode()):
        raise BadInput(f"{readme}: not written by `advbench board`, so it stays; give another folder for the pages")
