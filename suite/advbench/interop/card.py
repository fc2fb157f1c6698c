"""Model cards for the Hugging Face Hub: README.md with a `model-index` that the Hub reads, by huggingface_hub.

Accuracies are fractions. Each stands with its interval, its threat and what it was measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advbench.board.defenses import adversarial
from advbench.board.numbers import percent
from advbench.board.page import escape_markdown
from advbench.board.rows import Row
from advbench.external import external
from advbench.files import write_bytes
from advbench.interop.about import About, of
from advbench.interop.found import Found, names
from advbench.interop.job import rungs, table, text
from advbench.record import Accuracy, Record
from advbench.spec import BadInput

SIGNATURE = "<!-- Written by `advbench export huggingface`"
"""Begins the text below the metadata: a README.md without it is somebody's own."""

NOT_BY_HAND = "from a record; a change by hand is lost with the next export. -->"

HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "imagenet": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
    "svhn": "ufldl-stanford/svhn",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
}
"""The Hub's names of data sets; one that it does not have keeps ours."""


def write(records: Found, out: Path, told: Mapping[str, About]) -> list[str]:
    """README.md for each record. Raises BadInput, before anything is written, where somebody else's lies there."""
    cards: dict[Path, bytes] = {}
    for folder, record in records.finished():
        path = records.place(folder, out) / "README.md"
        if path.is_file() and SIGNATURE.encode() not in path.read_bytes():
            raise BadInput(f"{path}: not written by `advbench export huggingface`, so it stays; give another folder")
        cards[path] = content("/".join(names(folder)), record, of(told, record.label)).encode()
    for path, card in cards.items():
        write_bytes(path, card)
    return [str(path) for path in cards]


def content(name: str, record: Record, about: About) -> str:
    """The card of `record`, called `name` in its model-index."""
    from huggingface_hub import ModelCardData

    data = text(record, "data", "name") or "unknown"
    trained = not external(record.defense, record.job)
    attacked = ["adversarial-training"] if trained and adversarial(record) else []
    metadata = ModelCardData(
        model_name=name,
        eval_results=_results(record, data),
        license=about.license,
        datasets=[HUB[data]] if data in HUB and trained else None,
        metrics=["accuracy"],
        pipeline_tag="image-classification",
        tags=[
            "advbench",
            "adversarial-robustness",
            *attacked,
        ],
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{_body(name, record, about)}"


def _results(record: Record, data: str) -> list[Any]:
    """huggingface_hub's EvalResult: clean accuracy, robust accuracy, and under each attack that met all examples."""
    from huggingface_hub import EvalResult
    from scipy.stats import binomtest

    scores, threat = record.scores, _threat(record)
    assert scores
    where: dict[str, Any] = {
        "task_type": "image-classification",
        "task_name": "Image classification",
        "dataset_type": HUB.get(data, data),
        "dataset_name": data,
        "dataset_split": "test",
    }

    def result(kind: str, title: str, share: Accuracy, **args: Any) -> EvalResult:
        said = {"examples": share.n, "low": share.low, "high": share.high, "interval": "95 % Wilson", **args}
        config = f"{args['protocol']}, {threat}" if "protocol" in args else None
        return EvalResult(
            **where,
            metric_type=kind,
            metric_name=title,
            metric_value=share.accuracy,
            metric_config=config,
            metric_args=said,
        )

    ball = {key: table(record, "threat").get(key) for key in ("norm", "eps")}
    found = [result("accuracy", "Clean accuracy", scores.clean)]
    if scores.robust:
        ladder = f"Robust accuracy ({', '.join(rungs(record))}; {threat})"
        found.append(result("robust-accuracy", ladder, scores.robust, protocol=scores.robust.protocol, threat=ball))
    for attack, accuracy in sorted(scores.alone.items()):
        n = scores.clean.n
        if scores.alone_n.get(attack) == n:  # what met fewer examples is no number beside the others
            bounds = binomtest(round(accuracy * n), n).proportion_ci(0.95, method="wilson")
            share = Accuracy(accuracy=accuracy, low=float(bounds.low), high=float(bounds.high), n=n)
            title = f"Accuracy under {attack} alone ({threat})"
            found.append(result("accuracy-under-attack", title, share, protocol=attack, threat=ball))
    return found


def _threat(record: Record) -> str:
    ball = table(record, "threat")
    return f"{ball.get('norm')} {ball.get('eps')}"


def _body(name: str, record: Record, about: About) -> str:
    scores = record.scores
    assert scores
    elsewhere = external(record.defense, record.job)
    who = f"Trained elsewhere ({text(record, 'model', 'name')})" if elsewhere else f"Trained by {record.defense}"
    judged = f"{who} and judged by advbench on {text(record, 'data', 'name')} under {_threat(record)}."
    robust = "Robust accuracy is the share of test examples that no attack of the ladder broke"
    shares = {"clean": scores.clean} | ({f"robust, {scores.robust.protocol}": scores.robust} if scores.robust else {})
    paper = [escape_markdown(said) for said in (about.name, about.authors, about.venue, about.link) if said]
    lines = [
        f"{SIGNATURE} {NOT_BY_HAND}",
        "",
        f"# {escape_markdown(name)}",
        "",
        *([f"{', '.join(paper)}.", ""] if paper else []),
        escape_markdown(judged),
        "",
        "| accuracy | % | 95 % interval | examples |",
        "|---|---|---|---|",
        *(
            f"| {escape_markdown(what)} | {percent(s.accuracy)} | {percent(s.low)} to {percent(s.high)} | {s.n:,} |"
            for what, s in shares.items()
        ),
        "",
        escape_markdown(f"{robust} ({', '.join(rungs(record))})."),
        "",
        "## What looks wrong",
        "",
        *([f"* {escape_markdown(f'{flag.name}: {flag.message}')}" for flag in record.flags] or ["No flag was raised."]),
        "",
        "## To reproduce",
        "",
        f"In the folder of its task file, {escape_markdown(Row(record).task_file)}:",
        "",
        # Indented, so that nothing in it is anything but text.
        f"    {' '.join(Row(record).command.split())}",
        "",
        "## Where it comes from",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {escape_markdown(key)} | {escape_markdown(value)} |" for key, value in _origins(record)),
    ]
    return "\n".join(lines) + "\n"


def _origins(record: Record) -> list[tuple[str, object]]:
    """The record's id and seed, its data's digest, and its provenance, dictionaries flattened."""
    found: list[tuple[str, object]] = [("record", record.id), ("seed", record.seed)]
    found.append(("data sha256", record.job.get("data_sha256")))
    for key, value in sorted(record.provenance.items()):
        inner: Any = value.items() if isinstance(value, dict) else None
        found += [(f"{key}.{name}", said) for name, said in sorted(inner)] if inner is not None else [(key, value)]
    # A card is published: the name of the machine is nobody's business.
    return [(key, value) for key, value in found if value not in (None, "") and key != "host"]
