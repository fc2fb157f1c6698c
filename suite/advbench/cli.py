"""The command line. Each command imports what it needs inside, so that help and boards never load torch."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from advbench import __version__, claims, folder, formats, given
from advbench.options import DataRoot, Debug, Device, Executor, Jobs, Json, Kind, Paths, Results, Starter
from advbench.spec import BadInput

app = typer.Typer(
    name="advbench",
    help="Is this defense really better, at what cost, and why? Example: advbench run tasks/",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: boxes leave 80 columns too narrow, and markup takes [words] away
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _app(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    paths: Paths = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Glob on task, label, task/label or task/label-sN; may be said again.")
    ] = None,
    results: Results = Path("results"),
    data_root: DataRoot = Path("data"),
    download: Annotated[
        bool, typer.Option("--download", help="Get data sets that are missing, where torchvision knows how.")
    ] = False,
    device: Device = "auto",
    jobs: Jobs = None,
    per_device: Annotated[
        int | None, typer.Option(min=1, help="Workers on each accelerator, as far as its memory holds their jobs.")
    ] = None,
    executor: Annotated[Executor, typer.Option(help="Where jobs run.")] = Executor.local,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray that runs, HOST:PORT or auto (default: RAY_ADDRESS, or one for this run)."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Where finished records are kept too, and taken from: s3://...")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Train, attack, record and rank every job of the task files. An interrupted run goes on where it stopped.

    Example: advbench run tasks/ --only 'digits-linf/pgd-at*'

    Exit code: 0 all well, 1 some job FAILED, 2 bad input or nothing to run, 130 interrupted, 143 by SIGTERM.
    """
    from advbench import notice, suite

    del debug  # main() looks at it itself
    if address and executor is not Executor.ray:
        raise BadInput("--address: is Ray's; say --executor ray as well")
    cluster = suite.Cluster(address) if executor is Executor.ray else None
    try:
        asked = (paths or [], only or [], results, data_root, device, jobs)
        code = suite.run(
            *asked, dry_run=dry_run, download=download, per_device=per_device, cluster=cluster, store=store
        )
    except KeyboardInterrupt as stop:
        typer.echo("interrupted; nothing is lost: the same command goes on where it stopped")
        code = 143 if isinstance(stop, notice.Terminated) else 130
    raise typer.Exit(code)


@app.command()
def validate(
    paths: Paths = None,
    results: Annotated[
        Path, typer.Option("--results", help="Folder whose records say what jobs like these took.")
    ] = Path("results"),
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    jobs: Jobs = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check task files, count their jobs and estimate their cost. Where there are earlier records, by what those took.

    Example: advbench validate tasks/ --results results
    """
    from advbench import quote

    del debug
    quote.validate(paths or [], results, data_root, device, jobs, as_json=as_json)


@app.command()
def reproduce(
    record: Annotated[Path, typer.Argument(help="A record.json, or the folder that holds it.")],
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder for the rerun (default: a temporary one, which is kept).")
    ] = None,
    task_folder: Annotated[
        Path, typer.Option(help="Where the task file lay: a defense file is relative to it.")
    ] = Path(),
    data_root: DataRoot = Path("data"),
    device: Annotated[str, typer.Option(help="auto (as the record says), cpu or cuda:N.")] = "auto",
    minutes: Annotated[float | None, typer.Option(min=0.01, help="End it when it takes longer.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0.25, help="End it when it takes more memory.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the job of a record again and compare. EQUAL is promised on the same kind of machine and build of torch.

    Example: advbench reproduce leaderboard/records/digits-linf/pgd-at-s0

    Exit code: 0 equal, or consistent where equality is not promised, 1 not, 2 bad input, 130 interrupted.
    """
    from advbench import reproduce as again

    del debug
    try:
        limits = {"minutes": minutes, "memory_gib": memory_gib}
        code = again.reproduce(record, task_folder, results, data_root, device, as_json=as_json, **limits)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was compared", err=True)
        code = 130
    raise typer.Exit(code)


app.command()(given.evaluate)
app.command()(given.collect)


@app.command()
def board(
    records: Annotated[Path, typer.Argument(help="A results folder, or its records/ folder.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where the pages go (default: beside records/).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Build the board's pages from a folder of records. They are README.md, index.html, board.csv, .json and .tex.

    Example: advbench board leaderboard
    """
    import gc

    from advbench import board as pages

    del debug
    # Records are millions of values, and all are kept to the end: looking for garbage among them takes half the time.
    gc.disable()
    for path in pages.build(records, out):
        typer.echo(path)


for _command in (claims.compare, claims.check, claims.audit):
    app.command()(_command)
app.command()(formats.export)
app.command("import")(formats.import_)
app.add_typer(folder.app)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List what can be named in a task file, with a line about each.

    Example: advbench list defenses --json
    """
    from advbench import catalogue

    del debug
    catalogue.show(kind.value, as_json=as_json)


@app.command()
def doctor(
    results: Results = Path("results"),
    data_root: DataRoot = Path("data"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has and what is missing. What is missing comes with what to do about it.

    Example: advbench doctor --data-root data

    Exit code: 0 unless something that every run needs is broken, then 1.
    """
    from advbench import doctor as checks

    del debug
    raise typer.Exit(checks.show(results, data_root, as_json=as_json))


@app.command()
def new(
    kind: Annotated[Starter, typer.Argument(help="What to begin.")],
    name: Annotated[str, typer.Argument(help="Letters, digits and -, such as my-defense.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the files.")] = Path(),
    debug: Debug = False,
) -> None:
    """Write a working file to start from, and its test. Comments in it say why; nothing is overwritten.

    Example: advbench new defense my-defense
    """
    from advbench import new as begin

    del debug
    for line in begin.told(kind.value, begin.new(kind.value, name, out)):
        typer.echo(line)


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of task files. An editor completes and checks them with it.

    Example: advbench schema > advbench.schema.json
    """
    from advbench import schema as made

    del debug
    typer.echo(json.dumps(made.schema(), indent=1))


def main() -> None:
    """Entry point: errors of the user are one line each and exit code 2; --debug shows where they came from."""
    debug = "--debug" in sys.argv
    try:
        try:
            app(standalone_mode=True)
        except SystemExit as end:
            sys.stdout.flush()
            if "RANK" in os.environ and "torch.distributed" in sys.modules:
                # All is written. Threads that torch leaves behind a group may abort an orderly end of the process
                # ("terminate called without an active exception"), which a launcher takes for a failure.
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
            raise
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as in `advbench list tasks | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
        sys.exit(1)
    except BadInput as error:
        if debug:
            traceback.print_exc()
        for line in error.lines:
            # What a defense file raises may have many lines.
            print(f"advbench: {' '.join(line.split())}", file=sys.stderr)
        sys.exit(2)
