"""What a line says beside its job: what it needs, which files it depends on, what it may cost, why it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from advbench.experiment import Experiment
from advbench.learn import Learned
from advbench.machine import Means
from advbench.models.linear import Linear
from advbench.models.torchvision import Torchvision
from advbench.new import new
from advbench.plan import Item, Job
from advbench.resolve import resolve
from advbench.spec import BadInput


def lines(path: Path, **given: Any) -> list[Item]:
    return resolve(path, path.parent / "data", {}, **given).items


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        lines(path)
    [line] = caught.value.lines
    return line.removeprefix(f"{path}: ")


def dat(fields: str) -> tuple[str, str]:
    return 'name = "standard"', f'name = "dat"\n{fields}'


def test_a_file_with_a_study_has_a_line_for_each_seed_of_it(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('version = 1\ntitle = "G"\n[study]\nname = "gan-gda"\nseeds = 2\n', "utf-8")

    found = lines(path)

    assert [item.path for item in found] == ["g/gan-gda-s0", "g/gan-gda-s1"]
    assert all(isinstance(item.job, Experiment) for item in found)


def test_what_a_job_needs_stands_in_its_line(tmp_path: Path, tiny: Any) -> None:
    [bare] = lines(tiny(tmp_path, "bare"))
    assert isinstance(bare.job, Job)
    assert (bare.processes, bare.minutes, bare.memory_gib) == (1, None, None)
    assert (bare.job.threads, bare.job.deterministic, bare.job.collect) == (1, None, None)

    more = "[resources]\nthreads = 2\ndeterministic = true\nminutes = 3.5\nmemory_gib = 1.5\n"
    [item] = lines(tiny(tmp_path, "t", dat("processes = 4"), more=more))
    assert isinstance(item.job, Job)
    assert (item.processes, item.minutes, item.memory_gib) == (4, 3.5, 1.5)
    assert (item.job.threads, item.job.deterministic, item.job.accelerator) == (2, True, False)


def test_each_process_has_two_images_of_a_batch_at_least(tmp_path: Path, tiny: Any) -> None:
    assert lines(tiny(tmp_path, "t", dat("processes = 8")))[0].processes == 8
    line = 'defense[0] "dat": 9 processes share a batch of 16; each should have 2 images at least'
    assert refused(tiny(tmp_path, "t", dat("processes = 9"))) == line


def test_a_defense_that_learns_from_unlabelled_images_has_some(tmp_path: Path, tiny: Any) -> None:
    line = 'defense[0] "dat": needs unlabelled images; give the task a [data.unlabelled] table with a count'
    assert refused(tiny(tmp_path, "t", dat('unlabelled = "pseudo"'))) == line
    pool = ('path = "tiny.npz"', 'path = "tiny.npz"\ntrain = 32\nunlabelled = { count = 8 }')
    assert lines(tiny(tmp_path, "t", dat('unlabelled = "pseudo"'), pool))[0].state == "run"


def test_own_attacks_and_the_weights_of_a_model_and_of_a_surrogate_are_watched(tmp_path: Path, tiny: Any) -> None:
    new("attack", "mine", tmp_path)
    fields = 'name = "linear", pretrained = "w.safetensors", extra_data = "none"'
    ladder = f'attacks = ["fgsm", {{ file = "mine.py" }}, {{ name = "transfer", surrogate = {{ {fields} }} }}]'
    start = 'name = "linear"\npretrained = "m.safetensors"\nextra_data = "none"'
    path = tiny(tmp_path, "t", ('name = "linear"', start), ('attacks = ["fgsm"]', ladder))
    needed = [tmp_path / "data" / name for name in ("w.safetensors", "m.safetensors")]
    for file in needed:
        save_file(Linear().build((1, 4, 4), 4).state_dict(), file)

    assert {*needed, tmp_path / "mine.py"} <= {*resolve(path, tmp_path / "data", {}).watched}


def test_weights_that_cannot_be_had_skip_the_task(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(_: Torchvision) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(Torchvision, "download", offline)
    table = 'name = "torchvision:resnet18"\npretrained = "imagenet"\nextra_data = "ImageNet-1k"'
    [item] = lines(tiny(tmp_path, "t", ('name = "linear"', table)))

    assert (item.job, item.state, item.base) == (None, "skip", tmp_path)
    assert item.skip.startswith("the imagenet weights of torchvision:resnet18 cannot be had here (OSError: no network)")


def test_corruptions_are_for_images_whose_shorter_side_is_long_enough(tmp_path: Path, tiny: Any) -> None:
    def asked(names: str) -> Path:
        return tiny(tmp_path, "t", ('attacks = ["fgsm"]', f'attacks = ["fgsm"]\ncorruptions = {names}'))

    assert "evaluation.corruptions: images need 8 pixels a side, not 4" in refused(asked('"all"'))
    images, labels = np.full((64, 8, 20), 200, np.uint8), np.arange(64) % 4
    np.savez(tmp_path / "data" / "tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert "zoom-blur needs images of 16 pixels or more, not 8" in refused(asked('["fog", "zoom-blur"]'))
    assert lines(asked('["fog"]'))[0].state == "run"


def test_a_model_that_takes_no_such_images_is_told_and_tried_once(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    monkeypatch.setattr("advbench.resolve.probe", lambda *asked: tried.append(asked[1:]))
    lines(tiny(tmp_path, "t", ('eps = "1/10"', 'eps = ["1/10", "1/5"]')))
    assert tried == [((1, 4, 4), 4, tmp_path / "data")]

    def stuck(*_: object) -> None:
        raise BadInput("model.name: does not fit")

    monkeypatch.setattr("advbench.resolve.probe", stuck)
    assert refused(tiny(tmp_path, "t")) == "model.name: does not fit"


def test_what_records_know_the_price_of_is_not_measured(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[dict[str, bool]] = []

    class Knows(Learned):
        def seconds(self, job: Job, work: Any) -> tuple[float, int]:
            known.append(dict(self.kinds))
            assert work.test == 32
            return 12.5, 3

    def measured(*_: object) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr("advbench.resolve.rate", measured)
    found = lines(tiny(tmp_path, "t", more='[[defense]]\nname = "pgd-at"\n'), learned=Knows())

    assert [(item.seconds, item.records) for item in found] == [(12.5, 3)] * 2
    # Of which kind all defenses are is known before the first is asked for.
    assert known == [{"standard": False, "pgd-at": True}] * 2


def test_a_model_s_speed_is_measured_once_and_its_jobs_have_no_records(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("advbench.resolve.rate", lambda _model, _data, norm: (asked.append(norm), (1e-3, 1e-5))[1])
    found = lines(tiny(tmp_path, "t", more='[[defense]]\nname = "pgd-at"\n'))

    assert asked == ["Linf"]
    assert [item.records for item in found] == [0, 0]
    assert all(item.work is not None and item.work.test == 32 for item in found)


@pytest.mark.parametrize("there", [True, False])
def test_what_there_is_elsewhere_counts_where_jobs_run_elsewhere(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: not there)
    monkeypatch.setattr("advbench.resolve.rate", lambda *_: (1e-3, 1e-5))
    means = Means(("a",) * there, 4)
    [item] = lines(tiny(tmp_path, "t", more="[resources]\naccelerator = true\n"), means=means)

    assert (item.job is not None, item.base) == (there, tmp_path)
