"""Arguments and options that several commands share, each said once."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from advbench.spec import BadInput


def _no_url(folder: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):  # a Path has one slash left of two
        raise BadInput(f"--results {folder}: is a folder, not a URL; records go to a URL too by `run --store URL`")
    return folder


Paths = Annotated[
    list[Path] | None, typer.Argument(help="Task files or folders of them (default: tasks/, the starter suite).")
]
DataRoot = Annotated[Path, typer.Option(envvar="ADVBENCH_DATA", help="Folder that holds the data sets.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Jobs at a time (default: one per core or device).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Results = Annotated[
    Path, typer.Option("--results", help="Folder for records, pages and checkpoints.", callback=_no_url)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Model = Annotated[
    str, typer.Argument(help="FILE.py:NAME, a run folder, robustbench:NAME, torchvision:NAME, timm:NAME, or our NAME.")
]
TaskFile = Annotated[Path, typer.Option("--task", help="Task file: its data, threat and evaluation.")]
OfSeveral = Annotated[str | None, typer.Option("--only", help="Which task, where the file means several.")]
Weights = Annotated[Path | None, typer.Option(help=".safetensors, or a file of torch.save (tensors only).")]
WeightsDigest = Annotated[str | None, typer.Option("--weights-sha256", help="Refuse weights of another digest.")]
Label = Annotated[str | None, typer.Option(help="Name on the board (default: from the model's).")]


class Executor(StrEnum):
    """Where jobs run."""

    local = "local"
    ray = "ray"


class Checkpoint(StrEnum):
    """Which weights of a job."""

    best = "best"
    last = "last"


WhichCheckpoint = Annotated[Checkpoint | None, typer.Option("--checkpoint", help="Of a run folder (default: best).")]


class Decided(StrEnum):
    """When an evaluation may stop before its end."""

    decided = "decided"


class Starter(StrEnum):
    """What `advbench new` can begin."""

    defense = "defense"
    attack = "attack"
    collector = "collector"
    task = "task"


class Figures(StrEnum):
    """The format of figures."""

    png = "png"
    svg = "svg"


class Kind(StrEnum):
    """What `advbench list` can list."""

    tasks = "tasks"
    defenses = "defenses"
    attacks = "attacks"
    collectors = "collectors"
    datasets = "datasets"
    models = "models"
    studies = "studies"


class Format(StrEnum):
    """What `advbench export` can write."""

    robustbench = "robustbench"
    huggingface = "huggingface"
    parquet = "parquet"
    tensorboard = "tensorboard"


class Source(StrEnum):
    """What `advbench import` can read."""

    robustbench = "robustbench"
