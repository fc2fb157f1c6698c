"""The commands about what results support: compare, check, audit. They import what they need inside, as all do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advbench.options import Checkpoint, DataRoot, Debug, Device, Json


def compare(
    a: Annotated[Path, typer.Argument(help="A record, all seeds of a defense (DIR/records/TASK/LABEL), or results.")],
    b: Annotated[Path, typer.Argument(help="Another one, on the same test examples.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two results example by example. It says what differs, how surely, and of what that speaks.

    Example: advbench compare leaderboard/records/digits-linf/pgd-at leaderboard/records/digits-linf/fast-at
    """
    from advbench.compare import show

    del debug
    show.show(a, b, as_json=as_json)


def check(
    new: Annotated[Path, typer.Argument(help="What is judged: a record, a defense's seeds, or results.")],
    against: Annotated[Path, typer.Option(help="What it has to hold: the same, of before.")],
    margin: Annotated[float, typer.Option(help="Points of robust and of clean accuracy that may be lost.")],
    clean_margin: Annotated[float | None, typer.Option(help="Of clean accuracy, where it is another one.")] = None,
    passes: Annotated[float | None, typer.Option(help="Training passes, at most so many times the old.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Training seconds likewise, on one machine only.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Hold a new result to an old one: PASS, FAIL or INCONCLUSIVE. The last comes with what would decide.

    Example: advbench check results/records/mine/my-defense --against baseline/records/mine/my-defense --margin 5

    Exit code: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 bad input.
    """
    from advbench.gate import judge, show

    del debug
    asked = judge.Asked.of(margin, clean_margin, passes, seconds)
    raise typer.Exit(show.show(new, against, asked, junit, markdown, as_json))


def audit(
    record: Annotated[Path, typer.Argument(help="A record.json, or the folder that holds it.")],
    model: Annotated[str, typer.Argument(help="The model that it is about, as `advbench evaluate` takes it.")],
    weights: Annotated[Path | None, typer.Option(help=".safetensors, or a file of torch.save (tensors only).")] = None,
    checkpoint: Annotated[
        Checkpoint | None, typer.Option(help="Of a run folder (default: the record's, or best).")
    ] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Drawn and attacked again (default: 100).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of that (default: one that nobody could foresee).")] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Confirm or refute a record. By digests, answers, stored images, and its own attacks with fresh randomness.

    Example: advbench audit results/records/digits-linf/pgd-at-s0 results/runs/digits-linf/pgd-at-s0

    Exit code: 0 CONFIRMED, 1 REFUTED, 3 INCONCLUSIVE, 2 bad input.
    """
    from advbench.audit import show
    from advbench.outside import Asked

    del debug
    asked = Asked(model, weights, None, checkpoint.value if checkpoint else None)
    raise typer.Exit(show.show(record, asked, examples, seed, data_root, device, as_json=as_json))
