"""The commands on other tools' formats: export and import. Each imports what it needs inside, as all do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advbench.options import Debug, Format, Source

About = Annotated[
    Path | None,
    typer.Option(help="TOML or JSON with authors, venue, link ..., for all or in a table for each label."),
]


def export(
    kind: Annotated[Format, typer.Argument(help="The format.")],
    records: Annotated[Path, typer.Argument(help="A record, or a folder of them.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the files (default: exported/KIND).")
    ] = None,
    about: About = None,
    debug: Debug = False,
) -> None:
    """Write records as files that other tools read. RobustBench, the Hugging Face Hub, parquet, TensorBoard.

    Example: advbench export huggingface results/records/digits-linf/pgd-at-s0 -o pgd-at

    What a board asks for and a record cannot know comes from --about and is left empty without it. Jobs that FAILED are
    left out and counted.
    """
    from advbench import interop

    del debug
    for line in interop.export(kind.value, records, out or Path("exported", kind.value), about):
        typer.echo(line)


def import_(
    source: Annotated[Source, typer.Argument(help="Whose format.")],
    path: Annotated[Path, typer.Argument(help="RobustBench's model_info folder, or a file that -o wrote.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Keep all entries in this JSON file.")] = None,
    board: Annotated[str | None, typer.Option(help="Show this board, such as cifar10/Linf.")] = None,
    beside: Annotated[
        Path | None, typer.Option(help="Records that were measured alike stand among its entries.")
    ] = None,
    about: About = None,
    debug: Debug = False,
) -> None:
    """Read what others published and show it beside our records. Every field stays as it was.

    Example: advbench import robustbench robustbench/model_info --board cifar10/Linf --beside results
    """
    from advbench.interop import shown

    del source, debug  # the one source there is
    shown.show(path, out, board, beside, about)
