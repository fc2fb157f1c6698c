"""What a task file may set a number to: of every part, table and study, whatever it is called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from advbench import find, recipe, task
from advbench.attacks.base import Attack
from advbench.collectors.base import Collector
from advbench.data.base import Source
from advbench.models.base import Model
from advbench.spec import Spec, validate
from advbench.study import Study

KINDS = {"attacks": Attack, "collectors": Collector, "data": Source, "models": Model, "studies": Study}


def words(text: str) -> set[str]:
    return set(text.split())


ANY = words(
    """
    ThreatModel.eps
    preact-resnet18.mean resnet18.mean timm.mean torchvision.mean wrn-28-10.mean
    first-order-dynamics.compared relu-perturbation.checked
    """
)
"""Numbers that have no bound of their own; eps is judged beside its norm."""
ZERO = words(
    """
    Data.seed Evaluation.alone Evaluation.seed RandAugment.magnitude Training.average Training.clip_norm
    Training.eps_ramp Training.label_smoothing Training.momentum Training.seeds Training.warmup
    Training.weight_decay architecture.ramp attack-smoothness.training awp.gamma consistency.shift
    consistency.weight dat.clean_weight dynamic-at.c_max elle.decay elle.sensitivity elle.weight
    entropy-sgd.gamma entropy-sgd.noise fab.alpha_max fab.targets fast-bat.ig_scale fast-bat.start_steps
    fgsm-pgi.momentum fgsm-pgi.weight gradalign.weight guided-at.factor guided-at.factor_from guided-at.noise
    guided-at.weight ibp.kappa_end ibp.ramp ibp.warmup input-gradient-regularisation.weight mart.beta
    mean-teacher.decay mean-teacher.ramp mean-teacher.weight mi-fgsm.momentum n-fgsm.noise nu-at.noise
    nu-at.weight param-hessian.probes relu-perturbation.weight_decay sam-at.rho sharpness.side sst.noise
    trades.beta zero-grad.quantile
    """
)
"""Numbers that may be zero, for "without" or "from the first one on". Of all others there is at least a little."""
SHARES = words(
    """
    Training.average Training.decay Training.label_smoothing Training.momentum Training.peak apgd.rho
    architecture.ramp attack-smoothness.linf awp.gamma consistency.shift dynamic-at.decay elle.decay
    entropy-sgd.alpha fab.alpha_max fab.beta guided-at.factor_from ibp.kappa_end ibp.ramp ibp.warmup
    logistic-sharpness.share mean-teacher.decay mean-teacher.ramp nu-at.ramp relu-perturbation.eps
    square.p_init sst.noise zero-grad.quantile
    """
)
"""Numbers that are a part of a whole, and so at most one."""
MUCH = words("Evaluation.votes RandAugment.magnitude dat.processes dat.unlabelled_ratio")
"""Numbers with a limit beside those of attacks."""
SIZES = words("apgd.together fab.together sst.batch sst.hidden sst.width")
"""Of attacks: how much is done at once."""


def specs() -> Iterator[tuple[str, type[Spec]]]:
    for folder, kind in KINDS.items():
        for name in find.names(find.PACKAGE / folder):
            yield name, find.part(kind, name)
    for path in sorted(find.shipped("baselines").glob("*.py")):
        made = find.defense(path)
        yield made.name, made
    for module in (task, recipe):
        for made in vars(module).values():
            if isinstance(made, type) and issubclass(made, Spec) and made.__module__ == module.__name__:
                yield made.__name__, made


NUMBERS = {
    f"{called}.{name}": (kind, field.alias or name, "tuple" in str(field.annotation))
    for called, kind in specs()
    for name, field in kind.model_fields.items()
    if re.search(r"\b(int|float|Fraction)\b", str(field.annotation))
}


def refused(kind: type[Spec], name: str, value: Any) -> bool:
    """Whether that field is complained of: others may be missing."""
    try:
        validate(kind, {name: value})
    except ValidationError as error:
        return any(item["loc"][:1] == (name,) for item in error.errors())
    return False


@pytest.mark.parametrize("number", sorted(NUMBERS.keys() - ANY))
def test_a_number_is_not_negative_and_zero_only_where_that_means_something(number: str):
    kind, name, several = NUMBERS[number]

    assert refused(kind, name, [-1] if several else -1)
    assert refused(kind, name, [0] if several else 0) == (number not in ZERO)


@pytest.mark.parametrize("number", sorted(SHARES))
def test_a_share_is_at_most_one(number: str):
    kind, name, _ = NUMBERS[number]

    assert refused(kind, name, 1.01)
    assert not refused(kind, name, 0.5)


OF_ATTACKS = {
    number
    for number, (kind, name, _) in NUMBERS.items()
    if issubclass(kind, Attack) and "int" in str(kind.model_fields[name].annotation)
}


@pytest.mark.parametrize("number", sorted(OF_ATTACKS - SIZES | MUCH))
def test_what_multiplies_the_work_has_a_limit(number: str):
    """A slip of some zeros is heard of at once; whole numbers of attacks are such, but for sizes."""
    kind, name, _ = NUMBERS[number]

    assert refused(kind, name, 10**9)


def test_the_lists_name_numbers_that_there_are():
    assert (ANY | ZERO | SIZES) - NUMBERS.keys() == set()
