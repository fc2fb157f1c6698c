"""What no sampling error excuses: a new flag, a job that fails now, the same job with another outcome."""

from __future__ import annotations

import numpy as np

from advbench.compare.match import differences
from advbench.compare.read import Group, Result
from advbench.gate.limits import Limit

PROMISED = ("machine", "device", "torch", "pyautoattack", "threads", "training")
"""Provenance under which the same job has the same outcome, where it is deterministic."""


def flags(old: Group, new: Group) -> Limit:
    """That nothing looks wrong which did not before."""
    before = {flag.name for result in old.results for flag in result.record.flags}
    found = {
        f"seed {result.record.seed}: {flag.name} ({flag.message})"
        for result in new.results
        for flag in result.record.flags
        if flag.name not in before
    }
    known = {record.seed for record in old.failed}
    failed = [f"seed {r.seed}: FAILED ({r.reason})" for r in new.failed if r.seed not in known]
    if new_ones := [*sorted(found), *failed]:
        return Limit("flags", "FAIL", f"new: {'; '.join(new_ones)}")
    kept = f"; the old result has them too: {', '.join(sorted(before))}" if before else ""
    return Limit("flags", "PASS", f"none is new{kept}")


def drift(old: Group, new: Group) -> Limit | None:
    """That a job with the same id has the same outcome; None where no job is on both sides.

    Where equality is promised, another outcome means that something changed which no id and no record knows: it
    FAILs, however small it is. Between builds it is expected, named, and judged by the limits on accuracy.
    """
    known = {result.record.id: result for result in old.results}
    shared = [(known[result.record.id], result) for result in new.results if result.record.id in known]
    if not shared:
        return None
    broken = [text for a, b in shared if not (why := _unlike(a, b)) and (text := _outcomes(a, b))]
    other = [f"{text} ({why})" for a, b in shared if (why := _unlike(a, b)) and (text := _outcomes(a, b))]
    if broken:
        said = f"the same job on the same build came out otherwise: {'; '.join(broken)}"
        advice = "neither the seed nor the defense: look for what changed in the software"
        return Limit("drift", "FAIL", said, (advice,))
    if other:
        said = f"the software changed, and with it the outcome of the same job: {'; '.join(other)}"
        return Limit("drift", "PASS", said, ("run the old one again on this build, or the limits judge both changes",))
    return Limit("drift", "PASS", f"{len(shared)} jobs are on both sides, with the same outcome")


def _unlike(a: Result, b: Result) -> str:
    """In what the builds differ; empty where equality is promised."""
    one, other = a.record.provenance, b.record.provenance
    said = differences({key: one.get(key) for key in PROMISED}, {key: other.get(key) for key in PROMISED})
    if not (one.get("deterministic") and other.get("deterministic")):
        said.append("accelerators sum in any order")
    return "; ".join(said)


def _outcomes(a: Result, b: Result) -> str:
    """How two outcomes of one job differ; empty where they do not."""
    names = (np.array([*result.names, ""], dtype=object)[result.fell] for result in (a, b))
    changed = int(np.not_equal(*names).sum())
    weights = a.record.provenance.get("weights_sha256") != b.record.provenance.get("weights_sha256")
    if not changed and not weights:
        return ""
    return f"seed {b.record.seed}: {changed} verdicts" + (", and other weights" if weights else "")
