"""What the page says of flags is what docs/flags.md says."""

from __future__ import annotations

import ast
from pathlib import Path

from advbench.board.rows import PLAIN
from advbench.board.support import Standing
from advbench.board.words import certainty, flags, tokens


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
