"""Which corruption is how strong at which size of image, and what a task file hears of a wrong name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from advbench.severities import NAMES, PUBLISHED, SEVERITIES, fitting, known, strength
from advbench.spec import BadInput
from advbench.task import check

FIFTEEN = [
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic-transform",
    "pixelate",
    "jpeg-compression",
]
"""The paper's, in its order."""


def test_all_of_the_published_fifteen_but_frost_have_five_strengths_in_each_set():
    assert list(NAMES) == [name for name in FIFTEEN if name != "frost"]
    for strengths in PUBLISHED.values():
        assert tuple(strengths) == NAMES
        for name, row in strengths.items():
            assert len(row) == len(SEVERITIES) == 5
            assert {len(one) for one in row} == {len(PUBLISHED[32][name][0])}
            assert len(set(row)) == 5


def test_no_published_number_has_changed_since_all_were_compared_with_the_authors_own():
    # make_cifar_c.py, make_tinyimagenet_c.py and make_imagenet_c.py of github.com/hendrycks/robustness, one by one. A
    # change here has to be made with them at hand.
    digest = hashlib.sha256(json.dumps(PUBLISHED).encode()).hexdigest()

    assert digest == "eb98d7dc117402e6fee75b97025e054fed56a05ffb18de6198faa0a259649784"


@pytest.mark.parametrize(
    ("side", "published"),
    # By ratio: the borders are at sqrt(32 * 64) = 45.3 and sqrt(64 * 224) = 119.7.
    [(8, 32), (28, 32), (32, 32), (45, 32), (46, 64), (64, 64), (119, 64), (120, 224), (224, 224), (512, 224)],
)
def test_images_of_another_side_meet_the_nearest_set(side: int, published: int):
    for name in NAMES:
        assert [strength(name, s, side) for s in SEVERITIES] == list(PUBLISHED[published][name])


def test_all_means_what_the_images_are_large_enough_for():
    assert fitting("all", 16) == NAMES
    assert fitting("all", 8) == tuple(name for name in NAMES if name != "zoom-blur")
    assert fitting(["fog", "contrast"], 8) == ("fog", "contrast")
    with pytest.raises(BadInput, match=r"zoom-blur needs images of 16 pixels or more, not 15; leave it out"):
        fitting(["fog", "zoom-blur"], 15)
    with pytest.raises(BadInput, match=r"evaluation.corruptions: images need 8 pixels a side, not 4"):
        fitting("all", 4)


def told(corruptions: Any) -> list[str]:
    tables = {
        "version": 1,
        "title": "T",
        "data": {"name": "digits"},
        "model": {"name": "linear"},
        "threat": {"norm": "Linf", "eps": "1/10"},
        "training": {"epochs": 1},
        "evaluation": {"corruptions": corruptions},
        "defense": [{"name": "standard"}],
    }
    task, errors = check(tables)
    if task is not None:
        assert task.evaluation.corruptions == (corruptions if corruptions == "all" else tuple(corruptions))
    return errors


@pytest.mark.parametrize(
    ("corruptions", "line"),
    [
        (["gausian-noise"], "evaluation.corruptions: no corruption 'gausian-noise'; did you mean 'gaussian-noise'?"),
        (["fog", "fog"], "evaluation.corruptions: corruption 'fog' stands there twice"),
        ([], 'evaluation.corruptions: should name at least one corruption, or say "all"'),
        (["frost"], "evaluation.corruptions: 'frost' needs its authors' photographs"),
        ("fog", 'evaluation.corruptions: should be a list of names or "all", not "fog"'),
    ],
)
def test_a_task_file_hears_in_one_line_what_is_wrong(corruptions: Any, line: str):
    [found] = told(corruptions)
    assert found.startswith(line)


def test_a_task_file_may_name_some_or_all():
    assert told(["fog", "snow"]) == []
    assert told("all") == []


def test_known_takes_every_name():
    known(NAMES)
