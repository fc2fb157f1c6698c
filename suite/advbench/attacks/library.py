"""Every attack of another library as one family: `torchattacks:DIFGSM`, run as it is and judged like all others.

The radius and the norm are the threat's; what else the library's class takes are its `options`, with its own defaults.
What the library says of its success is not even asked for, and a candidate outside of the ball is no candidate.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Self

from pydantic import JsonValue, model_validator
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.seeds import BlockNoise, derive, own_streams
from advbench.spec import BadInput, did_you_mean
from advbench.threat import Norm, Threat


class Library(Attack):
    """Base of those families. A subclass writes `known` and `propose`; `chosen` makes an attack of it."""

    everywhere: ClassVar[bool] = False
    whole_block: ClassVar[bool] = True
    example: ClassVar[str]
    """One of its attacks, to show how they are named."""
    no_gradient: ClassVar[frozenset[str]] = frozenset()
    """Those of its attacks that ask for no gradient."""
    ours: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are set from the threat, the block's seed and the model."""
    made: ClassVar[Any] = None
    """The library's class; None on the family itself."""

    options: dict[str, JsonValue] = {}
    """Parameters of the library's class, such as { steps = 50 }; else its own defaults."""

    @model_validator(mode="after")
    def _is_one_attack(self) -> Self:
        if self.made is None:
            raise ValueError(f'name one of its attacks: name = "{self.name}:{self.example}"')
        known = parameters(self.made) - self.ours
        for option in self.options:
            if option in self.ours:
                raise ValueError(f"options: '{option}' follows from the task; leave it out")
            if option not in known:
                raise ValueError(f"options: no '{option}'{did_you_mean(option, known)}")
        return self

    @property
    def follows_gradient(self) -> bool:
        return self.name.partition(":")[2] not in self.no_gradient

    @classmethod
    def known(cls) -> Mapping[str, tuple[Any, tuple[Norm, ...]]]:
        """The library's attacks by name: the class, and the norms in which it bounds what it does.

        Raises ImportError where it is not installed.
        """
        raise NotImplementedError

    @classmethod
    @cache
    def chosen(cls, member: str) -> type[Self]:
        """The attack that is called `member` there. Raises BadInput, with the nearest name or what to install."""
        try:
            known = cls.known()
        except ImportError as error:
            line = f"'{cls.name}:{member}' needs {cls.name} ({error}); pip install \"advbench[{cls.name}]\""
            raise BadInput(line) from None
        if member not in known:
            raise BadInput(f"no attack '{cls.name}:{member}'{did_you_mean(member, known)}")
        made, norms = known[member]
        own = {"__module__": cls.__module__, "__doc__": cls.__doc__, "name": f"{cls.name}:{member}"}
        return type(cls)(cls.__name__, (cls,), {**own, "made": made, "norms": norms})

    def propose(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> Tensor:
        """What the library makes of x (N, C, H, W), of the same shape."""
        raise NotImplementedError

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        # Some print, and standard output belongs to whoever asked for JSON.
        with own_streams(noise.seed, x.device), redirect_stdout(sys.stderr):
            return self.propose(model, x, y, threat, derive(noise.seed, self.name) % 2**31).detach()


def parameters(made: Any) -> set[str]:
    """What a class can be told when it is made."""
    return {name for name in inspect.signature(made).parameters if name not in ("args", "kwargs")}


def quietly(package: str) -> ModuleType:
    """Import it without the warnings of what it imports, which no user of ours could heed. Raises ImportError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)
