"""Many files in one: scripts and data end where they should, whatever they say."""

from __future__ import annotations

import json

import pytest

from advbench.board import embed
from advbench.spec import BadInput


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "\u2028\u2029", "\ud800", 'a"b\\', "אבג\u202e"])
def test_data_come_back_and_close_nothing(text: str):
    shown = str(embed.data({text: [text]}))

    assert json.loads(shown) == {text: [text]}
    assert "<" not in shown
    assert shown.isascii()


def test_scripts_neither_end_early_nor_begin_a_comment():
    for script in (embed.charts(), embed.tables(), embed.scripts()):
        assert "</script" not in script.lower()
        assert "<!--" not in script


def test_the_libraries_are_whole():
    assert "plotly.js v" in embed.charts()[:200]
    # A module's only export becomes the one name that our scripts ask for.
    assert embed.tables().count("window.DataTable=") == 1
    assert "export{" not in embed.tables()
    assert len(embed.tables()) > 500_000


def test_nothing_is_fetched_by_a_style_sheet():
    assert "@import" not in embed.styles()
    addresses = [part.split(")")[0].strip("'\"") for part in embed.styles().split("url(")[1:]]
    assert [address for address in addresses if not address.startswith("data:")] == []


def test_every_script_of_ours_is_in_and_short():
    files = sorted(path.stem for path in (embed.HERE / "js").glob("*.js"))

    assert sorted(embed.SCRIPTS) == files
    assert all((embed.HERE / "js" / f"{name}.js").read_text("utf-8").count("\n") <= 300 for name in files)


def test_text_never_becomes_html():
    """What our scripts show they set as text."""
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in embed.scripts(), word


def test_a_missing_library_is_one_line():
    with pytest.raises(BadInput, match="pip install no-such-package"):
        embed.library("no-such-package", "x.js")
