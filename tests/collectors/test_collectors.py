"""What each collector writes into a record: the names of its numbers, the shapes of its arrays, and its remarks."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from advbench import find
from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, Scene
from advbench.threat import Threat

N, WEIGHTS = 12, 16 * 6 + 6 + 6 * 3 + 3


def typical(*names: str) -> list[str]:
    return [f"{name}_{of}" for name in names for of in ("median", "mean")]


def twice(*names: str, of: tuple[str, ...] = ("clean", "adversarial")) -> list[str]:
    return [f"{where}_{name}" for where in of for name in names]


LOSSES = ("fixed", "moving", "clean")
RISES = ("sam_0.05", "sam_0.1", "asam_0.5", "asam_1", "awp_0.005", "awp_0.01", "average_0.05", "average_0.1")
LENGTHS = [*typical("length"), "top_tenth"]
SAID: dict[str, tuple[list[str], dict[str, tuple[int, ...]], list[str]]] = {
    "calibration": (
        twice("ece", "confidence", "accuracy"),
        dict.fromkeys(twice("count", "confidence", "accuracy"), (15,)),
        ["12 examples, 15 bins"],
    ),
    "certified": (
        ["certified", "certified_interval", "attacked"],
        {"interval_margin": (N,), "margin": (N,)},
        ["12 examples, eps 0.3, float64; CROWN was asked of #"],
    ),
    "fosc": (
        typical("fosc", "fosc_box", "fosc_relative", "fosc_start"),
        dict.fromkeys(("fosc", "fosc_box", "fosc_relative"), (N, 21)),
        ["12 examples, 20 steps from the clean image"],
    ),
    "influence": (
        [*twice(*LENGTHS), *typical("louder"), "louder_with_confidence", "louder_with_curvature"],
        {"clean_length": (N,), "adversarial_length": (N,), "louder": (N,)},
        ["12 examples, each on its own loss", "gradients of many examples at once, by torch.func.vmap"],
    ),
    "input-hessian": (
        [
            *(f"closed_form_error_{strength}" for strength in (0.1, 0.2, 0.5, 1)),
            *("closed_form_kept", "size_follows_curvature"),
            *twice(*typical("top1", "trace", "confidence"), of=("clean",)),
            *("attack_energy_1", "attack_energy_2"),
            *twice(*typical("top1", "trace", "confidence"), of=("adversarial",)),
            *typical("gates"),
        ],
        {
            "strengths": (4,),
            "closed_form_error": (4,),
            "ascent_energy": (4, 2),
            "attack_energy": (10, 2),
            **dict.fromkeys(twice("values"), (N, 2)),
            **dict.fromkeys(twice("trace", "confidence"), (N,)),
        },
        [
            "12 examples",
            "exact: the network is piecewise linear, its Hessian comes from C - 1 backward passes",
            "top = 5 is above the rank; there are 2 eigenvalues",
        ],
    ),
    "linearity": (
        typical("error", "alignment", "lipschitz"),
        {"error": (N,), "alignment": (N,), "lipschitz": (N,)},
        ["12 examples, eps 0.3"],
    ),
    "margins": (
        twice(*typical("margin", "distance")),
        dict.fromkeys(twice("margin", "distance"), (N,)),
        ["12 examples, eps 0.3"],
    ),
    "param-hessian": (
        twice("top1", "lowest", "trace", "trace_error", of=LOSSES),
        {
            **dict.fromkeys(twice("values", "errors", of=LOSSES), (5,)),
            **dict.fromkeys(twice("density_at", "density", of=LOSSES), (401,)),
            **dict.fromkeys(twice("ritz", "weights", of=LOSSES), (2, 20)),
        },
        ["12 examples", *(f"{loss}: # Hessian-vector products in {WEIGHTS} weights" for loss in LOSSES)],
    ),
    "sharpness": (
        twice("loss", *RISES, "curve_rise", of=("adversarial", "clean")),
        {
            "curve_at": (11,),
            "surface_at": (7,),
            **dict.fromkeys(twice("curve"), (11,)),
            **dict.fromkeys(twice("surface"), (7, 7)),
        },
        [
            "12 examples",
            "curve: adversarial examples regenerated, PGD-10",
            "surface, worst and average cases: adversarial examples frozen at the unmoved weights",
        ],
    ),
    "smoothness": (
        twice("rate", "slope", of=("clean", "adversarial_L2", "adversarial_Linf")),
        {"sizes": (4,), **dict.fromkeys(twice("rate", of=("clean", "adversarial_L2", "adversarial_Linf")), (4,))},
        ["12 examples, PGD-10 made anew at both ends"],
    ),
    "sparsity": (
        ["weights", *twice(*typical("shut"))],
        {"clean_shut": (N,), "adversarial_shut": (N,)},
        ["12 examples; weights without biases and batch norm"],
    ),
}
FIELDS: dict[str, dict[str, Any]] = {"param-hessian": {"runs": 2, "steps": 20, "tolerance": 1e-300, "probes": 2}}
"""Twenty steps in each run, and no tolerance that would end it earlier."""


def test_every_collector_that_looks_at_a_model_is_here() -> None:
    assert SAID.keys() == set(find.names(find.PACKAGE / "collectors")) - {"updates"}


@pytest.mark.parametrize("name", SAID)
def test_numbers_arrays_and_remarks_are_those_that_records_have(name: str) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = model.double().eval().requires_grad_(False)
    scene = Scene(model, x, torch.arange(N) % 3, Threat("L2", 0.3), 3, attack=PGD(steps=2))
    collector = find.part(Collector, name).model_validate(FIELDS.get(name, {}))

    found = collector.collect(scene)

    values, arrays, notes = SAID[name]
    assert [*found.values] == values
    assert all(number.value is not None for number in found.values.values())
    assert {key: tuple(array.shape) for key, array in found.arrays.items()} == arrays
    counted = [
        re.sub(r"asked of \d+$|: \d+ Hessian", lambda m: re.sub(r"\d+", "#", m[0]), note) for note in found.notes
    ]
    known = [note for note in counted if "the largest values are known to" not in note]
    assert known == notes
