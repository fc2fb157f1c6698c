"""Model cards: what huggingface_hub's own parser reads of one is what the record says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from scipy.stats import norm

from advbench import interop
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
