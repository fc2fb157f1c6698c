"""The record's examples, asked of the model again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from advbench.audit.claim import SAMPLE, Claim, Finding
from advbench.audit.repeat import Repeat
from advbench.data.base import Examples
from advbench.evaluate import Tell
from advbench.external import External, drawn
from advbench.judge import judge
from advbench.outside import CLOSE, Outside
from advbench.seeds import derive
from advbench.threat import Threat
from advbench.verdicts import BRIEF, climb, ladder

BATCH = 256

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Bench:
    """The model and the task's test examples, on one device."""

    model: Outside
    test: Examples
    classes: int
    root: Path


@dataclass(frozen=True)
class _Answers:
    """What the model says of n images."""

    predicted: Tensor
    right: Bools
    fooled: Bools
    close: Bools
    """Two classes are so near that another machine may say the other one."""


def digest(claim: Claim, model: Outside) -> Finding:
    """Whether these are the weights of the record."""
    theirs, ours = claim.weights, model.about.get("weights_sha256")
    if theirs and ours:
        same = theirs == ours
        said = f"sha256 {ours[:12]}" if same else f"sha256 {ours[:12]}, and the record is of {theirs[:12]}"
        return Finding("weights", "CONFIRMED" if same else "REFUTED", said, {"record": theirs, "model": ours})
    theirs, ours = claim.job.model.get("answers_sha256"), model.about.get("answers_sha256")
    if theirs and theirs == ours:
        return Finding("weights", "CONFIRMED", "cannot be seen; it answers as the record's does", {"answers": ours})
    return Finding("weights", "INCONCLUSIVE", "no digest that both the record and the model have")


def places(claim: Claim, test: Examples) -> tuple[Finding, Tensor | None]:
    """Whether its examples are the task's with their labels, and the place in the test set of each row."""
    whole, index = test.index.cpu().numpy(), claim.rows.index
    expected = whole
    if isinstance(claim.job, External) and claim.job.until:
        expected = whole[drawn(len(whole), claim.job.evaluation.seed)[: len(index)]]
    elif isinstance(claim.job, External):
        expected = whole[: claim.job.examples]
    if len(index) != len(expected) or not np.isin(index, expected).all():
        lacking, more = len(np.setdiff1d(expected, index)), len(np.setdiff1d(index, expected))
        said = f"{lacking} of the task's {len(expected)} are missing, {more} are none of them"
        return Finding("examples", "REFUTED", said), None
    where = {int(i): place for place, i in enumerate(whole)}
    found = torch.tensor([where[int(i)] for i in index])
    wrong = int((test.labels.cpu().numpy()[found.numpy()] != claim.rows.label).sum())
    if wrong:
        return Finding("examples", "REFUTED", f"{wrong} of {len(index)} have other labels"), None
    return Finding("examples", "CONFIRMED", f"the task's {len(index)}, with their labels"), found


def clean(claim: Claim, bench: Bench, rows: NDArray[np.int64], where: Tensor) -> Finding:
    """Whether the model answers the untouched examples `rows` as the record says."""
    said = _ask(claim, bench, bench.test.some(where[rows]).pixels(slice(None)), where[rows])
    other = (said.predicted.numpy() != claim.rows.predicted[rows]) | (said.right != claim.right[rows])
    differ, near = int((other & ~said.close).sum()), int((other & said.close).sum())
    words = f"{differ} of {len(rows)} answered otherwise" + (f", {near} more within rounding" if near else "")
    numbers = {"examples": len(rows), "differ": differ, "within_rounding": near}
    if differ and not _steady(bench):
        return Finding("clean", "INCONCLUSIVE", f"{words}; the model answers otherwise each time", numbers)
    return Finding("clean", "REFUTED" if differ else "CONFIRMED", words, numbers)


def sample(claim: Claim, bench: Bench, where: Tensor) -> tuple[Finding | None, Bools]:
    """Whether the stored adversarial images fool the model from within the ball; the rows of which that is proven."""
    proven = np.zeros(len(claim.rows.index), bool)
    file = claim.folder / SAMPLE
    if not file.is_file():
        return None, proven
    try:
        kept = load(file.read_bytes())
        index, images = kept["index"].numpy(), kept["images"]
        if images.dtype != torch.float32 or index.shape != images.shape[:1] or len(np.unique(index)) != len(index):
            raise ValueError(f"{images.dtype} images {tuple(images.shape)} for an index {index.shape}")
        if images.shape[1:] != bench.test.pixels(slice(0, 1)).shape[1:]:
            raise ValueError(f"images of shape {tuple(images.shape[1:])}")
    except (SafetensorError, KeyError, ValueError) as error:
        return Finding("sample", "REFUTED", f"{SAMPLE} cannot be what it should: {error}"), proven
    row_of = {int(i): row for row, i in enumerate(claim.rows.index)}
    broken = ~claim.stands & claim.right
    strangers = [int(i) for i in index if not (int(i) in row_of and broken[row_of[int(i)]])]
    if strangers:
        said = f"{len(strangers)} of {len(index)} are of examples that the record does not call broken"
        return Finding("sample", "REFUTED", said, {"index": strangers}), proven
    if len(index) == 0:
        return None, proven
    rows = np.array([row_of[int(i)] for i in index], int)
    chosen = bench.test.some(where[rows])
    images = images.to(bench.test.device)
    inside = _threat(claim).contains(images, chosen.pixels(slice(None))).cpu().numpy()
    said = _ask(claim, bench, images, where[rows])
    outside, failed = int((~inside).sum()), int((inside & ~said.fooled & ~said.close).sum())
    near = int((inside & ~said.fooled & said.close).sum())
    proven[rows[inside & said.fooled]] = True
    words = f"{int(proven.sum())} of {len(index)} fool the model from within the ball and the box"
    words += f", {outside} lie outside" if outside else ""
    words += f", {failed} do not fool it" if failed else ""
    words += f", {near} are within rounding of doing so" if near else ""
    numbers = {"stored": len(index), "proven": int(proven.sum()), "outside": outside, "not_fooling": failed}
    verdict = "REFUTED" if outside or (failed and _steady(bench)) else "INCONCLUSIVE" if failed else "CONFIRMED"
    return Finding("sample", verdict, words, numbers), proven


def again(
    claim: Claim, bench: Bench, rows: NDArray[np.int64], where: Tensor, proven: Bools, seed: int, tell: Tell
) -> Finding:
    """The record's own ladder on the examples `rows`, under another seed."""
    if not claim.robust:
        return Finding("attack", "CONFIRMED", "it claims no robust accuracy: its ladder was not climbed to the end")
    chosen = bench.test.some(where[rows])
    # What only tells of the attacks is spared, and no sign of masking keeps the ladder from its end.
    how = claim.job.evaluation.model_copy(update=BRIEF | {"seed": derive(seed, "audit"), "stop": False})
    attacks = ladder(how, bench.root, chosen, bench.classes)
    with tempfile.TemporaryDirectory(prefix="advbench-") as journal:
        network = bench.model.network
        found = climb(claim.job, network, "audit", chosen, attacks, how, bench.classes, Path(journal), tell)
    now = np.array([by is None for by in found.broken_by])
    correct = claim.right[rows] & np.array([by != "clean" for by in found.broken_by])
    before, stood = claim.stands[rows], ~claim.stands[rows] & now & correct
    repeat = Repeat(
        examples=len(rows),
        robust=int((before & correct).sum()),
        fell=int((before & ~now & correct).sum()),
        stood=int(stood.sum()),
        unproven=int((stood & ~proven[rows]).sum()),
    )
    return _told(repeat, len(claim.rows.index))


def _told(repeat: Repeat, n: int) -> Finding:
    broken = f"{repeat.stood} that it calls broken stood"
    said = f"{repeat.fell} of {repeat.robust} that it calls robust fell to fresh randomness, {broken}"
    p = min(repeat.inflated, repeat.deflated)
    if repeat.verdict == "REFUTED":
        said += f"; the luck of an attack explains no more than that in {p:.2g} of audits"
    elif repeat.sees is None:
        said += "; too few to refute anything"
    elif repeat.verdict == "INCONCLUSIVE":
        said += f"; as much by luck in {p:.2g} of audits"
    else:
        said += f"; {100 * repeat.sees:.1f} points too many would have been refuted in 95 % of audits"
    if repeat.verdict == "INCONCLUSIVE":
        more = min(4 * repeat.examples, n)
        said += f"; --examples {more} says more" if more > repeat.examples else "; there are no more examples"
    numbers = {name: getattr(repeat, name) for name in ("examples", "robust", "fell", "stood", "unproven")}
    numbers |= {"p_inflated": repeat.inflated, "p_deflated": repeat.deflated, "sees": repeat.sees}
    return Finding("attack", repeat.verdict, said, numbers)


def _threat(claim: Claim) -> Threat:
    return Threat(claim.job.threat.norm, float(claim.job.threat.eps))


@torch.no_grad()
def _ask(claim: Claim, bench: Bench, images: Tensor, where: Tensor) -> _Answers:
    labels, votes = bench.test.labels[where.to(bench.test.labels.device)], claim.job.evaluation.votes or 1
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    parts = [judge(bench.model.network, x, y, votes) for x, y in batches]
    logits = torch.cat([part.logits for part in parts])
    best = logits.topk(2, 1).values
    close = (best[:, 0] - best[:, 1]) <= CLOSE * logits.abs().amax(1)
    right, fooled = (torch.cat([getattr(part, name) for part in parts]).cpu().numpy() for name in ("right", "fooled"))
    return _Answers(logits.argmax(1).cpu(), right, fooled, close.cpu().numpy())


@torch.no_grad()
def _steady(bench: Bench) -> bool:
    """Whether the model says the same twice."""
    probe = bench.test.pixels(slice(0, 2))
    return torch.equal(bench.model.network(probe), bench.model.network(probe))
