"""What the page says of flags is what docs/flags.md says."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

from advbench.board.rows import PLAIN
from advbench.board.support import Standing
from advbench.board.words import CLAIMS, between, brief, certainty, flags, leads, listed, tokens


def test_every_flag_that_the_suite_raises_is_explained(repo: Path):
    raised = {
        value.value
        for path in (repo / "suite" / "advbench").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Flag"
        for word in node.keywords
        if word.arg == "name" and isinstance(value := word.value, ast.Constant)
    }

    assert len(raised) > 10
    assert raised - flags().keys() == set()
    assert PLAIN.keys() - flags().keys() == set()


def test_nothing_of_the_document_is_lost(repo: Path):
    text = (repo / "docs" / "flags.md").read_text("utf-8")
    sections = text.split("\n## ")[1:]
    assert list(flags()) == [section.partition("\n")[0] for section in sections]
    for section, (name, parts) in zip(sections, flags().items(), strict=True):
        assert list(parts) == ["Seen", "Means", "Do", "Source"], name
        letters = "".join(text.lstrip("`") for part in parts.values() for text, _ in part)
        # What Markdown adds to the words: marks, addresses, and the heads of the paragraphs.
        plain = section.partition("\n")[2]
        for head in parts:
            plain = plain.replace(f"**{head}.** ", "")
        for token, address in [pair for part in parts.values() for pair in part]:
            plain = plain.replace(f"]({address})", "]") if address else plain
            assert token
        kept = [c for c in plain if c.isalnum()]
        assert len(kept) - len([c for c in letters if c.isalnum()]) <= sum(
            len(link) for link in (part.split(")")[0] for part in plain.split("](#")[1:])
        )


def test_markdown_becomes_words_code_and_links():
    assert tokens("Set `stop = false`, see [a paper](https://x.org/1) and [below](#dead), *please*.") == [
        ("Set ", ""),
        ("`stop = false", ""),
        (", see ", ""),
        ("a paper", "https://x.org/1"),
        (" and ", ""),
        ("below", ""),
        (", please.", ""),
    ]


def test_of_checkpoints_it_names_the_test_where_there_is_one_of_each():
    said = certainty(Standing(ranks={"a": (1, 1), "b": (2, 2)}, claim="checkpoints"))

    # Of two seeds a side the difference is judged over examples (board/standing.py).
    assert "McNemar's exact test where each side is one" in said


def test_who_leads_in_words():
    def said(**ranks: tuple[int, int]) -> str:
        return leads(Standing(ranks=ranks), list(ranks), ["b"])

    assert said(a=(1, 1), b=(2, 2)) == "a is best (rank 1 of 2): better than the other."
    assert said(a=(1, 3), c=(1, 5), b=(1, 6), d=(2, 6)) == (
        "a leads (ranks 1–3 of 4); not told apart from it: c (1–5) and b (1–6). Read the notes of b first."
    )
    assert said(a=(1, 2), c=(2, 3), d=(2, 3)) == "a leads (ranks 1–2 of 3)."
    assert said(a=(1, 1)) == "Only a was judged to the end, so there is nothing to rank it against."
    assert said() == "Nothing here has a rank: nothing was judged."
    many = {f"d{i:02d}": (1, 20) for i in range(20)}
    assert said(**many) == "d00 leads (ranks 1–20 of 20); 19 others are not told apart from it."
    assert said(**{"x" * 10_000: (1, 1), "b": (2, 2)}).startswith("x" * 59 + "… is best")
    assert [listed(list(names)) for names in ("a", "ab", "abcd", "abcde")] == [
        *("a", "a and b", "a, b, c and d", "a, b, c and 2 others")
    ]
    assert listed(list("abcdef")) == "a, b, c and 3 others"


def test_eight_names_beside_the_first_are_told_and_nine_are_counted():
    def said(names: int, marked: str = "") -> str:
        ranks = {f"d{i}": (1, 10 + (i == 0)) for i in range(names)}
        return leads(Standing(ranks=ranks), [*ranks], [marked])

    assert (
        said(9) == "d0 leads (ranks 1–11 of 9); not told apart from it: d1 (1–10), d2 (1–10), d3 (1–10) and 5 others."
    )
    assert said(10) == "d0 leads (ranks 1–11 of 10); 9 others are not told apart from it."
    # Notes are asked for of those whose names could be told.
    assert said(10, "d8").endswith(" Read the notes of d8 first.")
    assert "notes" not in said(10, "d9")


def test_who_is_not_ranked_leads_nothing_and_is_told_with_the_reason():
    standing = Standing(ranks={"b": (1, 1)}, unranked={"a": "it failed", "c": "it failed", "d": "gone"}, claim="both")

    assert leads(standing, ["a", "b"]) == "Only b was judged to the end, so there is nothing to rank it against."
    assert certainty(standing) == " Not ranked: a and c (it failed); d (gone)."
    two = replace(standing, ranks={"b": (1, 1), "e": (2, 2)})
    assert certainty(two) == f"{CLAIMS['both']} Not ranked: a and c (it failed); d (gone)."
    assert certainty(replace(two, unranked={})) == CLAIMS["both"]
    none = replace(standing, ranks={})
    assert leads(none, ["a"]) == "Nothing here has a rank: a and c (it failed); d (gone)."
    assert certainty(none) == ""


def test_a_long_name_is_cut_behind_sixty_characters():
    assert [brief("x" * n) for n in (60, 61)] == ["x" * 60, "x" * 59 + "…"]
    assert (between((2, 2)), between((1, 4))) == ("2", "1–4")
