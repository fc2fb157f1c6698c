"""Model cards: what huggingface_hub's own parser reads of one is what the record says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from scipy.stats import norm

from advbench import interop
from advbench.interop.card import SIGNATURE
from advbench.record import Flag, load
from advbench.spec import BadInput

Lay = Callable[..., Path]
NASTY = "---\n# <script>alert(1)</script> `x` | a: [b] \u202eabc {{ x }} {% y %}"


def card(folder: Path) -> ModelCard:
    return ModelCard((folder / "README.md").read_text("utf-8"))


def test_its_results_are_the_record_s(tmp_path: Path, lay: Lay):
    alone = {"alone": {"fgsm": 0.6, "apgd-ce": 0.53}, "alone_n": {"fgsm": 10_000, "apgd-ce": 64}}
    folder = lay(tmp_path, scores=alone)
    interop.export("huggingface", folder, tmp_path / "out")

    data = card(tmp_path / "out").data
    record = load(folder / "record.json")
    assert record.scores
    assert record.scores.robust
    assert data.model_name == "cifar10-linf/pgd-at-s0"
    assert data.datasets == ["uoft-cs/cifar10"]
    clean, robust, fgsm = data.eval_results  # apgd-ce met other examples
    assert {(r.task_type, r.dataset_type, r.dataset_split) for r in data.eval_results} == {
        ("image-classification", "uoft-cs/cifar10", "test")
    }
    assert (clean.metric_type, clean.metric_value) == ("accuracy", record.scores.clean.accuracy)
    assert clean.metric_args == {
        "examples": 10_000,
        "low": record.scores.clean.low,
        "high": record.scores.clean.high,
        "interval": "95 % Wilson",
    }
    assert (robust.metric_type, robust.metric_value) == ("robust-accuracy", record.scores.robust.accuracy)
    assert robust.metric_config == "autoattack, Linf 8/255"
    assert robust.metric_args["protocol"] == "autoattack"
    assert robust.metric_args["threat"] == {"norm": "Linf", "eps": "8/255"}
    assert (robust.metric_args["low"], robust.metric_args["high"]) == (
        record.scores.robust.low,
        record.scores.robust.high,
    )
    # Wilson 1927, written out.
    z, p, n = norm.ppf(0.975), 0.6, 10_000
    middle, half = (p + z**2 / (2 * n)), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert fgsm.metric_args["low"] == pytest.approx((middle - half) / (1 + z**2 / n), rel=1e-12)
    assert fgsm.metric_args["high"] == pytest.approx((middle + half) / (1 + z**2 / n), rel=1e-12)


def test_its_text_has_flags_the_command_and_the_origin_but_no_host(tmp_path: Path, lay: Lay):
    flags = (Flag(name="stochastic", message="other logits in another pass"),)
    interop.export("huggingface", lay(tmp_path, flags=flags), tmp_path / "out")

    text = card(tmp_path / "out").text
    assert "* stochastic: other logits in another pass" in text
    assert "\n    advbench run cifar10-linf.toml --only cifar10-linf/pgd-at-s0\n" in text
    assert "| torch | 2.15.0 |" in text
    assert "vm-of-mine" not in text


def test_it_says_who_made_the_model_only_where_the_user_does(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path)
    about = tmp_path / "about.toml"
    about.write_text('license = "mit"\nauthors = "Ada Lovelace"\nvenue = "ICML 2026"\n', encoding="utf-8")
    interop.export("huggingface", folder, tmp_path / "said", about)
    interop.export("huggingface", folder, tmp_path / "unsaid")

    said, unsaid = card(tmp_path / "said"), card(tmp_path / "unsaid")
    assert said.data.license == "mit"
    assert "Ada Lovelace, ICML 2026." in said.text
    assert unsaid.data.license is None


def test_names_are_text_wherever_they_stand(tmp_path: Path, lay: Lay):
    flag = Flag(name=NASTY, message=NASTY)
    job = {"data": {"name": NASTY}, "model": {"name": NASTY}}
    folder = lay(tmp_path, NASTY, folder="nasty-s0", job=job, flags=(flag,), provenance={NASTY: NASTY})
    interop.export("huggingface", folder, tmp_path / "out")

    shown = card(tmp_path / "out")
    assert shown.data.eval_results[0].dataset_name == NASTY
    assert shown.data.model_name == "cifar10-linf/nasty-s0"
    assert shown.text.lstrip().startswith("<!-- Written by `advbench export huggingface`")
    html = MarkdownIt("commonmark").enable("table").render(shown.text)
    # Who trained it on what, the flag twice, the command, the record's id, and a provenance entry and its name.
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8
    assert "<script" not in html
    assert html.count("<h1>") == 1
    assert html.count("<code>") == 1  # the command
    assert [line for line in shown.text.splitlines() if line.startswith("# ")] == ["# cifar10-linf/nasty-s0"]


def test_several_records_lie_in_folders_of_their_own(tmp_path: Path, lay: Lay):
    lay(tmp_path, seed=0)
    lay(tmp_path, seed=1)
    lay(tmp_path, "../../x", folder="x-s0")

    lines = interop.export("huggingface", tmp_path, tmp_path / "a" / "b" / "out")

    names = ["pgd-at-s0", "pgd-at-s1", "x-s0"]
    assert lines == [str(tmp_path / "a" / "b" / "out" / "cifar10-linf" / name / "README.md") for name in names]
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["b"]


def test_somebody_else_s_readme_stays(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path)
    interop.export("huggingface", folder, tmp_path / "out")
    interop.export("huggingface", folder, tmp_path / "out")  # our own is replaced
    (tmp_path / "out" / "README.md").write_text("my project", encoding="utf-8")

    with pytest.raises(BadInput, match="not written by `advbench export huggingface`, so it stays"):
        interop.export("huggingface", folder, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text("utf-8") == "my project"


def test_only_what_trained_against_the_threat_is_called_adversarial_training(tmp_path: Path, lay: Lay):
    def tags(label: str) -> list[str]:
        interop.export("huggingface", lay(tmp_path, label), tmp_path / label)
        return card(tmp_path / label).data.tags

    assert tags("pgd-at") == ["advbench", "adversarial-robustness", "adversarial-training"]
    assert tags("standard") == ["advbench", "adversarial-robustness"]


def test_every_result_has_its_name_its_config_and_what_it_was_measured_with(tmp_path: Path, lay: Lay):
    alone = {"alone": {"fgsm": 0.6}, "alone_n": {"fgsm": 10_000}}
    interop.export("huggingface", lay(tmp_path, scores=alone), tmp_path / "out")

    data = card(tmp_path / "out").data
    clean, robust, fgsm = data.eval_results
    assert (data.metrics, data.pipeline_tag) == (["accuracy"], "image-classification")
    assert {(r.task_name, r.dataset_name) for r in data.eval_results} == {("Image classification", "cifar10")}
    assert (clean.metric_name, clean.metric_config) == ("Clean accuracy", None)
    assert robust.metric_name == "Robust accuracy (autoattack; Linf 8/255)"
    assert (fgsm.metric_type, fgsm.metric_value) == ("accuracy-under-attack", 0.6)
    assert (fgsm.metric_name, fgsm.metric_config) == ("Accuracy under fgsm alone (Linf 8/255)", "fgsm, Linf 8/255")
    shared = {"examples": 10_000, "interval": "95 % Wilson", "threat": {"norm": "Linf", "eps": "8/255"}}
    for result, protocol in ((robust, "autoattack"), (fgsm, "fgsm")):
        assert result.metric_args == shared | {
            "protocol": protocol,
            "low": result.metric_args["low"],
            "high": result.metric_args["high"],
        }


def test_its_text_word_by_word(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path, provenance={"git": None, "threads": 2, "sizes": {"b": 1, "a": 2}, "host": "vm", "note": ""})
    interop.export("huggingface", folder, tmp_path / "out")

    assert card(tmp_path / "out").text.strip().splitlines() == [
        f"{SIGNATURE} from a record; a change by hand is lost with the next export. -->",
        "",
        "# cifar10-linf/pgd-at-s0",
        "",
        "Trained by pgd-at and judged by advbench on cifar10 under Linf 8/255.",
        "",
        "| accuracy | % | 95 % interval | examples |",
        "|---|---|---|---|",
        "| clean | 83.6 | 82.6 to 84.6 | 10,000 |",
        "| robust, autoattack | 50.2 | 49.2 to 51.2 | 10,000 |",
        "",
        "Robust accuracy is the share of test examples that no attack of the ladder broke \\(autoattack\\).",
        "",
        "## What looks wrong",
        "",
        "No flag was raised.",
        "",
        "## To reproduce",
        "",
        "In the folder of its task file, cifar10-linf.toml:",
        "",
        "    advbench run cifar10-linf.toml --only cifar10-linf/pgd-at-s0",
        "",
        "## Where it comes from",
        "",
        "| what | value |",
        "|---|---|",
        "| record | pgd-at-0 |",
        "| seed | 0 |",
        f"| data sha256 | {'9a' * 32} |",
        "| sizes.a | 2 |",
        "| sizes.b | 1 |",
        "| threads | 2 |",
    ]


def test_of_a_model_from_elsewhere_no_data_set_and_no_training_is_said(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path, robust=None, defense="external", job={"defense": None})
    file = folder / "record.json"
    record = json.loads(file.read_text("utf-8"))
    del record["job"]["defense"]
    file.write_text(json.dumps(record), encoding="utf-8")
    interop.export("huggingface", folder, tmp_path / "out")

    found = card(tmp_path / "out")
    assert (found.data.datasets, found.data.tags) == (None, ["advbench", "adversarial-robustness"])
    assert [result.metric_type for result in found.data.eval_results] == ["accuracy"]
    assert "Trained elsewhere \\(preact-resnet18\\) and judged by advbench on cifar10" in found.text
    assert "| robust" not in found.text


def test_data_that_the_hub_does_not_have_keep_their_name(tmp_path: Path, lay: Lay):
    for name, job in (("own", {"data": {"name": "digits"}}), ("unknown", {"data": {"name": None}})):
        interop.export("huggingface", lay(tmp_path / name, job=job), tmp_path / name / "out")

        data = card(tmp_path / name / "out").data
        called = {"own": "digits"}.get(name, name)
        assert data.datasets is None
        assert {(r.dataset_type, r.dataset_name) for r in data.eval_results} == {(called, called)}
