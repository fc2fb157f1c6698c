"""How long a job takes here, learned from the records of jobs like it; no torch, so that a kept plan can ask too.

Seconds of an example pass are taken from jobs of the same model on the same data, device and number of threads.
How many passes an attack makes of a test example depends on what it breaks, so that is taken from jobs that are as
like as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from advbench.index import Cost, Entry, canonical, engine, protocol
from advbench.plan import Item, Job, Work


class Learned:
    """What earlier records on `device` say about cost."""

    def __init__(self, entries: Iterable[Entry] = (), device: str = "", *, kinds: Mapping[str, bool] | None = None):
        self.kinds = dict(kinds or {})
        """Whether a defense is adversarial, by name: those of one kind leave about as much standing."""
        self.groups: dict[tuple[str, str, int], list[Cost]] = {}
        self.rates: dict[tuple[str, ...], tuple[float, float, float | None, int] | None] = {}
        for entry in entries:
            cost = entry.cost
            if cost and cost.device == device and cost.train_passes and cost.eval_passes and cost.test:
                self.groups.setdefault((cost.model, cost.data, cost.threads), []).append(cost)

    def seconds(self, job: Job, work: Work) -> tuple[float, int] | None:
        """Seconds of the whole job and the number of records that say so; None where no record does."""
        self.kinds.setdefault(job.defense["name"], work.adversarial)
        model, evaluation = canonical(job.model), protocol(job.evaluation.plain())
        how, threat = engine(job.training.plain()), canonical(job.threat.plain())
        key = (model, job.data_sha256, str(job.threads), job.defense["name"], how, evaluation, threat)
        if key not in self.rates:
            self.rates[key] = self._rates(self.groups.get((model, job.data_sha256, job.threads), []), *key[3:])
        found = self.rates[key]
        if found is None:
            return None
        train, attack, passes, count = found
        attacked = work.attack if passes is None else passes * work.test
        collecting = self._collecting(job)
        if collecting is None:
            collecting = work.collect * attack
        return work.train * train + (work.validation + attacked) * attack + collecting, count

    def _collecting(self, job: Job) -> float | None:
        """What the same collectors took of jobs like it, of the same defense where there are any; None for unknown."""
        if not job.collect:
            return 0
        asked = canonical(job.collect)
        like = self.groups.get((canonical(job.model), job.data_sha256, job.threads), [])
        # None were counted where a record came before its collectors.
        same = [c for c in like if c.collect == asked and c.collect_seconds]
        own = [c for c in same if c.defense == job.defense["name"]] or same
        return sum(c.collect_seconds for c in own) / len(own) if own else None

    def memory(self, job: Job) -> int | None:
        """Bytes that jobs of this model, data, defense and batch took at their peak; None where no record says."""
        like = self.groups.get((canonical(job.model), job.data_sha256, job.threads), [])
        how = engine(job.training.plain())
        own = [c.memory for c in like if (c.defense, c.engine) == (job.defense["name"], how)]
        return max(own, default=0) or None

    def _rates(
        self, like: Sequence[Cost], defense: str, how: str, evaluation: str, threat: str
    ) -> tuple[float, float, float | None, int] | None:
        """Seconds of a training pass and of an attack pass, passes of a test example or None, and how many say so."""
        if not like:
            return None
        kind = self.kinds.get(defense)
        asks: list[Callable[[Cost], bool]] = [
            lambda c: (c.defense, c.evaluation, c.threat) == (defense, evaluation, threat),
            lambda c: (self.kinds.get(c.defense), c.evaluation, c.threat) == (kind, evaluation, threat),
            lambda c: (c.defense, c.evaluation) == (defense, evaluation),
            lambda c: (self.kinds.get(c.defense), c.evaluation) == (kind, evaluation),
        ]
        passes = next((_per(c, "eval_passes", "test") for ask in asks if (c := [*filter(ask, like)])), None)
        # A defense does more between its passes than another one: its own records first.
        like_this = [c for c in like if c.engine == how] or like
        own = [c for c in like_this if c.defense == defense] or like_this
        return _per(own, "train_seconds", "train_passes"), _per(own, "eval_seconds", "eval_passes"), passes, len(own)


def _per(costs: Sequence[Cost], what: str, of: str) -> float:
    return sum(getattr(c, what) for c in costs) / sum(getattr(c, of) for c in costs)


def priced(items: Sequence[Item], learned: Learned) -> list[Item]:
    """The lines, with what the records say about their cost where they say something."""
    for item in items:  # all kinds are known before the first question
        if isinstance(item.job, Job) and item.work:
            learned.kinds.setdefault(item.job.defense["name"], item.work.adversarial)
    return [_priced(item, learned) for item in items]


def _priced(item: Item, learned: Learned) -> Item:
    found = learned.seconds(item.job, item.work) if isinstance(item.job, Job) and item.work else None
    if not found or not isinstance(item.job, Job):
        return item
    return item.model_copy(update={"seconds": found[0], "records": found[1], "memory": learned.memory(item.job)})
