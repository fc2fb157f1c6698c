"""What a record claims, and whether its own parts agree; the model is not asked yet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from advbench.compare.read import STANDS, Table, table
from advbench.external import External, external
from advbench.plan import EVALUATION_PROTOCOL, Job
from advbench.record import Record, load
from advbench.spec import BadInput, complaints, validate

Verdict = Literal["CONFIRMED", "REFUTED", "INCONCLUSIVE"]

EXAMPLES, SAMPLE = "examples.parquet", "adversarial.safetensors"


@dataclass(frozen=True)
class Finding:
    """What one look at a record says of it."""

    name: str
    verdict: Verdict
    said: str
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])


def together(findings: Sequence[Finding]) -> Verdict:
    """One REFUTED refutes; CONFIRMED needs all."""
    verdicts = [finding.verdict for finding in findings]
    return "REFUTED" if "REFUTED" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "CONFIRMED"


@dataclass(frozen=True)
class Claim:
    """A record, its job, and a row for each of its examples."""

    folder: Path
    record: Record
    job: Job | External
    rows: Table

    @property
    def stands(self) -> NDArray[np.bool_]:
        """(n,), which examples it calls robust."""
        return self.rows.fell == STANDS

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,), which it says the model answers rightly without an attack."""
        return ~np.isin(self.rows.fell, [i for i, name in enumerate(self.rows.names) if name == "clean"])

    @property
    def robust(self) -> bool:
        """Whether it claims any robust accuracy: a ladder that was not climbed to its end says nothing of the rest."""
        return bool(self.record.scores and self.record.scores.robust)

    @property
    def weights(self) -> str | None:
        """The digest of the weights that its scores are of."""
        said: Any = self.record.provenance.get("weights_sha256")
        digests: dict[str, Any] = said if isinstance(said, dict) else {}
        if isinstance(self.job, External):
            return self.job.model.get("weights_sha256") or digests.get("external")
        return digests.get(self.job.evaluation.checkpoint)


def read(path: Path) -> Claim:
    """The claim of a record.json or of the folder that holds it. Raises BadInput where there is nothing to audit."""
    file = path / "record.json" if path.is_dir() else path
    record = load(file)
    if record.status != "ok" or record.scores is None:
        raise BadInput(f"{file}: a record without scores claims nothing; there is nothing to audit")
    kind = External if external(record.defense, record.job) else Job
    try:
        job = validate(kind, record.job)
    except ValidationError as error:
        lines = complaints(error, kind, "job")
        raise BadInput(*(f"{file}: not a job of this version of advbench: {line}" for line in lines)) from None
    if record.job.get("evaluation_protocol") != EVALUATION_PROTOCOL:
        theirs = record.job.get("evaluation_protocol")
        raise BadInput(
            f"{file}: evaluated under protocol {theirs}, this advbench attacks under {EVALUATION_PROTOCOL}; audit it "
            f"with advbench {record.provenance.get('advbench', 'of that time')}"
        )
    if not (file.parent / EXAMPLES).is_file():
        raise BadInput(f"{file.parent / EXAMPLES}: missing; an audit needs the verdicts beside the record")
    rows = table(file.parent / EXAMPLES)
    if len(rows.index) == 0:
        raise BadInput(f"{file.parent / EXAMPLES}: no examples")
    return Claim(file.parent, record, job, rows)


def agreeing(claim: Claim) -> list[Finding]:
    """Whether the record's parts belong together: its files, its id, its scores."""
    record, folder = claim.record, claim.folder
    there = [name for name in (EXAMPLES, SAMPLE) if (folder / name).is_file()]
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in there}
    changed = [name for name, digest in digests.items() if record.files.get(name) != digest]
    said = f"{' and '.join(changed)}: not as the record was written" if changed else "as the record was written"
    found = [Finding("files", "REFUTED" if changed else "CONFIRMED", said, digests)]
    same = record.id == claim.job.id
    said = "is that of its job" if same else f"{record.id}, and its job has {claim.job.id}"
    found.append(Finding("id", "CONFIRMED" if same else "REFUTED", said))
    return [*found, _scores(claim)]


def _scores(claim: Claim) -> Finding:
    """Accuracies are shares of the table's rows."""
    scores = claim.record.scores
    assert scores
    wrong: list[str] = []
    for name, accuracy, rows in (("clean", scores.clean, claim.right), ("robust", scores.robust, claim.stands)):
        if accuracy and (accuracy.n != len(rows) or abs(accuracy.accuracy - rows.mean()) > 1e-6):
            by = f"{rows.mean():.2%} of {len(rows)} by its examples"
            wrong.append(f"{name} {accuracy.accuracy:.2%} of {accuracy.n}, {by}")
    said = "; ".join(wrong) or f"the shares of its {len(claim.rows.index)} examples"
    return Finding("scores", "REFUTED" if wrong else "CONFIRMED", said)
