"""The commands about a results folder: verify, clean, merge. They import what they need inside, as all do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from advbench.options import Debug, Json

app = typer.Typer(
    name="results",
    help="Check, tidy and join results folders. Example: advbench results verify results",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Argument(help="A results folder.")]


@app.command()
def verify(results: Folder = Path("results"), as_json: Json = False, debug: Debug = False) -> None:
    """Hold every record, table, image, weight, checkpoint and journal to its digest; a line for each that is broken.

    Example: advbench results verify results

    Exit code: 0 all as written, 1 something is broken, 2 bad input.
    """
    from advbench.results.sizes import said
    from advbench.results.verify import verify as check

    del debug
    found = check(results)
    if as_json:
        typer.echo(json.dumps(vars(found), indent=1))
    else:
        for line in found.broken:
            typer.echo(line)
        old = f", {found.unsealed} of an earlier version, of which only the form was checked" if found.unsealed else ""
        state = f"{len(found.broken)} broken" if found.broken else "all as written"
        typer.echo(f"{results}: {found.files} files, {said(found.size)}{old}: {state}")
    raise typer.Exit(1 if found.broken else 0)


@app.command()
def clean(
    results: Folder = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and stop.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what no record and no job to be done needs: checkpoints of finished jobs, leftovers. Never a record.

    A finished job whose task asks for another evaluation later is then trained again.

    Example: advbench results clean results --dry-run
    """
    from advbench.execute.lock import locked
    from advbench.results import clean as cleaning
    from advbench.results.sizes import said
    from advbench.spec import BadInput

    del debug
    if not (results / "records").is_dir() and not (results / "runs").is_dir():
        raise BadInput(f"{results}: no records and no runs; give a results folder")
    if dry_run:
        found = cleaning.litter(results)
    else:
        with locked(results):
            found = cleaning.litter(results)
            cleaning.remove(found)
    total = sum(one.size for one in found)
    if as_json:
        lines = [{"path": str(one.path), "why": one.why, "bytes": one.size} for one in found]
        typer.echo(json.dumps({"removed": not dry_run, "bytes": total, "found": lines}, indent=1))
        return
    for one in found:
        typer.echo(f"{said(one.size):>8}  {one.path}  {one.why}")
    typer.echo(f"{results}: {said(total)} {'can go' if dry_run else 'gone'}")


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders.", metavar="DIR...")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that they go into; it may have records.")],
    prefer: Annotated[Path | None, typer.Option(help="The folder that wins where two records differ.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Join the records, and the weights, of several folders: all or, where anything is wrong, none.

    Equal records of one job are one. Where task, label and seed agree and the rest does not, --prefer says which wins.

    Example: advbench results merge night1 night2 -o results
    """
    from advbench.results import merge as merging

    del debug
    done = merging.merge(sources, out, prefer)
    if as_json:
        typer.echo(json.dumps(vars(done), indent=1))
        return
    for word, paths in (("new", done.new), ("replaced", done.replaced)):
        for path in paths:
            typer.echo(f"{word:<8}  {path}")
    typer.echo(f"{out}: {len(done.new)} new, {len(done.replaced)} replaced, {done.there} there before")
    typer.echo(f"`advbench board {out}` builds its pages")
