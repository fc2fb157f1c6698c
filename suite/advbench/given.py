"""The commands on a model that is given: evaluate and collect. Each imports what it needs inside, as all do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advbench.options import (
    DataRoot,
    Debug,
    Decided,
    Device,
    Figures,
    Jobs,
    Json,
    Label,
    Model,
    OfSeveral,
    Results,
    TaskFile,
    Weights,
    WeightsDigest,
    WhichCheckpoint,
)


def evaluate(
    model: Model,
    task: TaskFile,
    only: OfSeveral = None,
    weights: Weights = None,
    weights_sha256: WeightsDigest = None,
    checkpoint: WhichCheckpoint = None,
    label: Label = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Only the first so many test examples.")] = None,
    until: Annotated[
        Decided | None, typer.Option(help="Examples in random order, until --margin or --width is met.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A record on the same test examples.")] = None,
    margin: Annotated[float | None, typer.Option(help="Points of robust accuracy that it may be better.")] = None,
    width: Annotated[float | None, typer.Option(help="Points between the ends of the own interval.")] = None,
    stop: Annotated[
        bool, typer.Option("--stop/--no-stop", help="Leave the ladder where its cheap rungs show a masked gradient.")
    ] = True,
    results: Results = Path("results"),
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    jobs: Jobs = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a model trained elsewhere as a task judges its own. A stopped evaluation goes on.

    Example: advbench evaluate nets.py:small --weights small.pth --task tasks/digits-linf.toml

    Exit code: 0 evaluated, 2 bad input or a model that does not answer as it should, 130 interrupted, 143 by SIGTERM,
    which a limit of the task's [resources] sends too.
    """
    from advbench import assess
    from advbench.judging import Where
    from advbench.outside import Asked
    from advbench.until import Until

    del debug
    asked = Asked(model, weights, weights_sha256, checkpoint.value if checkpoint else None)
    where = Where(results, data_root, device)
    try:
        enough = Until.of(until and until.value, against, margin, width)
        told = (asked, task, only, label, examples, where)
        assess.assess(*told, as_json=as_json, until=enough, stop=stop, jobs=jobs)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing is lost: the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None


def collect(
    model: Model,
    task: TaskFile,
    only: OfSeveral = None,
    collector: Annotated[
        list[str] | None, typer.Option(help="By name, once for each (default: the task's own, or the cheap ones).")
    ] = None,
    weights: Weights = None,
    weights_sha256: WeightsDigest = None,
    checkpoint: WhichCheckpoint = None,
    label: Label = None,
    figures: Annotated[
        Figures | None, typer.Option(help="Draw each collector's arrays, too (advbench[plots]).")
    ] = None,
    results: Results = Path("results"),
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure the loss around a model. Into its record where the results have one, else into results/measures.

    Example: advbench collect results/records/digits-linf/pgd-at-s0 --task tasks/digits-linf.toml --collector fosc

    Exit code: 0 collected, 2 bad input or a model that does not answer as it should, 130 interrupted.
    """
    from advbench import observe
    from advbench.judging import Where
    from advbench.outside import Asked

    del debug
    asked = Asked(model, weights, weights_sha256, checkpoint.value if checkpoint else None)
    where = Where(results, data_root, device)
    try:
        observe.observe(
            asked, task, only, label, collector or [], where, as_json=as_json, figures=figures and figures.value
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing is lost: the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
