"""Many files in one: scripts and data end where they should, whatever they say."""

from __future__ import annotations

import base64
import json
import re

import paged
import pytest

from advbench.board import embed
from advbench.spec import BadInput


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "\u2028\u2029", "\ud800", 'a"b\\', "אבג\u202e"])
def test_data_come_back_and_close_nothing(text: str):
    shown = str(embed.packed({text: [text]}))

    assert json.loads(paged.text(shown)) == {text: [text]}
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", shown)


def test_a_part_s_head_names_no_time_and_no_system():
    """Ten bytes: gzip, deflate, no flags, no time, neither best nor fastest, unknown system (RFC 1952, 2.3)."""
    assert base64.b64decode(embed.packed([]))[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])


def test_scripts_neither_end_early_nor_begin_a_comment():
    assert "</script" not in embed.scripts().lower()
    assert "<!--" not in embed.scripts()


def test_the_libraries_are_whole():
    charts, tables = paged.text(embed.charts()), paged.text(embed.tables())

    assert charts == embed.library("plotly", "package_data", "plotly.min.js")
    # A module's only export becomes the one name that our scripts ask for; what stands around it stays.
    bundle = embed.library("itables", "html", "dt_bundle.js")
    before, names, behind = re.fullmatch(r"(.*)export\{([^}]*)\};?(.*)", bundle, re.DOTALL).groups()  # pyright: ignore
    name = re.search(r"([\w$]+) as default\b", names)
    assert name
    assert tables == f'(()=>{{"use strict";{before}window.DataTable={name[1]};{behind}\n}})()'
    assert len(tables) > 500_000


def test_the_styles_are_the_library_s_and_then_ours():
    ours = (embed.HERE / "board.css").read_text("utf-8")

    assert embed.styles() == embed.library("itables", "html", "dt_bundle.css") + ours


def test_data_are_packed_without_blanks_and_only_where_json_has_them():
    assert paged.text(embed.packed({"a": [1, None], "b": "c d"})) == '{"a":[1,null],"b":"c d"}'
    with pytest.raises(ValueError, match="JSON"):
        embed.packed(float("nan"))


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
