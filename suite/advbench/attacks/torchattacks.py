"""The attacks of torchattacks by their names there. Kim 2020 (arXiv 2010.01950).

`torchattacks:AutoAttack` is not the standard one: its APGD, APGD-T and FAB take 10 steps where the authors' take 100.
Step sizes (`alpha`) are its defaults for 8/255 whatever the radius is, so another radius needs them as an option.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from advbench.attacks.library import Library, parameters, quietly
from advbench.threat import Norm, Threat


class Torchattacks(Library):
    """`torchattacks:NAME`: an attack of torchattacks, which must be installed, with its own defaults."""

    name = "torchattacks"
    paper = "arXiv 2010.01950"
    example = "DIFGSM"
    no_gradient: ClassVar[frozenset[str]] = frozenset({"GN", "OnePixel", "Pixle", "SPSA", "Square", "VANILA"})
    ours: ClassVar[frozenset[str]] = frozenset({"model", "eps", "max_epsilon", "norm", "seed", "n_classes", "verbose"})

    @classmethod
    def known(cls) -> Mapping[str, tuple[Any, tuple[Norm, ...]]]:
        package: Any = quietly("torchattacks")
        made = {name: getattr(package, name) for name in package.__all__}
        # Wrappers around other attacks need more than a model.
        return {name: (kind, _norms(kind)) for name, kind in made.items() if _from_a_model_alone(kind)}

    def propose(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> Tensor:
        told: dict[str, Any] = {"eps": threat.eps, "max_epsilon": threat.eps, "norm": threat.norm, "seed": seed}
        if "n_classes" in parameters(self.made):
            told["n_classes"] = model(x[:1]).shape[1]
        fitting = {name: value for name, value in told.items() if name in parameters(self.made)}
        attack = self.made(model, **fitting, **self.options)
        attack.set_device(x.device)
        return attack(x, y)


def _from_a_model_alone(kind: Any) -> bool:
    first, *others = inspect.signature(kind).parameters.values()
    return first.name == "model" and all(other.default is not other.empty for other in others)


def _norms(kind: Any) -> tuple[Norm, ...]:
    """Its docstring says them: "Distance Measure : Linf, L2"."""
    said = re.search(r"Distance Measure *: *(.*)", kind.__doc__ or "")
    return cast("tuple[Norm, ...]", tuple(re.findall(r"Linf|L2|L1", said[1] if said else "")))
