"""Links of the pages lead to files and headings that exist, and addresses are whole. Nothing is asked of a network."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from printed import FENCE, pages, prose

LINK = re.compile(
    r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)|^\[[^\]]+\]: (\S+)$|(?:href|src)=\"([^\"]*)\"", re.MULTILINE
)
"""[words](target), [name]: target, and HTML's."""


def links(text: str) -> list[str]:
    """Every target of a page, code left out."""
    return [next(filter(None, found)) for found in LINK.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """What GitHub calls headings: no capitals, no punctuation but - and _, hyphens for spaces, -1 for a second one."""
    seen: Counter[str] = Counter()
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path, repo: Path) -> list[str]:
    """The links inside the repository that lead nowhere."""
    found: list[str] = []
    for target in links(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.is_relative_to(repo) or not there.exists():
            found.append(f"{target}: no such file")
        elif anchor and (there.suffix != ".md" or anchor not in anchors(there.read_text("utf-8"))):
            found.append(f"{target}: no such heading")
    return found


def ill_formed(text: str) -> list[str]:
    """Addresses, linked or bare, that are not https, have no host or were cut."""
    bare = re.findall(r"\b\w+://[^\s<>\")\]]*", prose(text))
    found = {*bare, *(target for target in links(text) if re.match(r"[a-z]+:", target))}
    whole = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[\w./%#?=&~+:()@,-]*)?")
    return sorted(url for url in found if not (whole.fullmatch(url) and urlsplit(url).hostname))


def test_links_inside_the_repository_lead_somewhere(repo: Path):
    told = {page.relative_to(repo).as_posix(): broken(page, repo) for page in pages(repo)}

    assert {page: wrong for page, wrong in told.items() if wrong} == {}
    assert sum(len(links(page.read_text("utf-8"))) for page in pages(repo)) > 150


def test_addresses_are_https_and_whole(repo: Path):
    told = {page.relative_to(repo).as_posix(): ill_formed(page.read_text("utf-8")) for page in pages(repo)}

    assert {page: wrong for page, wrong in told.items() if wrong} == {}


def test_files_that_a_sentence_names_are_there(repo: Path):
    roots = "suite|tests|docs|baselines|tasks|leaderboard|studies"
    for page in pages(repo):
        text = FENCE.sub("", page.read_text("utf-8"))
        named = {path.partition("::")[0] for path in re.findall(rf"`((?:{roots})/[^`\s]*)`", text)}
        assert [path for path in sorted(named - IGNORED) if not (repo / path).exists()] == [], page.name


IGNORED = {"leaderboard/runs/"}
"""By git: there where records are made."""


def test_every_reference_has_its_address_and_every_address_a_reference(repo: Path):
    for page in pages(repo):
        text = prose(page.read_text("utf-8"))
        used, given = re.findall(r"\]\[([^\]]+)\]", text), re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE)
        assert sorted(set(used)) == sorted(given), page.name


def test_the_readme_links_every_page(repo: Path):
    readme = repo / "README.md"
    linked = {(repo / target.partition("#")[0]).resolve() for target in links(readme.read_text("utf-8"))}

    assert [page.name for page in pages(repo) if page not in {readme, *linked}] == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## Is it the same verdict?", "is-it-the-same-verdict"),
        ("# `fosc` and _why_: 8/255", "fosc-and-_why_-8255"),
        ("### [Rows](x.md#y) - and  more", "rows---and--more"),
        ("## Größe", "größe"),
    ],
)
def test_headings_are_called_as_github_calls_them(heading: str, anchor: str):
    assert anchors(f"{heading}\ntext\n") == {anchor}


def test_a_second_heading_of_a_name_has_a_number():
    assert anchors("# Same\n```\n# code\n```\n## Same\n### Same\n") == {"same", "same-1", "same-2"}


def test_a_broken_link_is_seen(tmp_path: Path):
    (tmp_path / "b.md").write_text("# Here\n", "utf-8")
    page = tmp_path / "a.md"
    page.write_text(
        "[good](b.md#here) [self](#top) `[code](none.md)`\n\n# Top\n\n[gone](c.md) [no](b.md#there) [up](../x)\n"
        '![picture](p.png) <a href="d.md">\n\n[named]: e.md\n```\n[code](f.md)\n```\n',
        "utf-8",
    )

    assert [line.partition(":")[0] for line in broken(page, tmp_path)] == [
        "c.md", "b.md#there", "../x", "p.png", "d.md", "e.md",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["[x](http://arxiv.org/abs/1)", "see https://localhost/x", "[x](https://)", "<ftp://a.org>", "[x](mailto:a)"],
)
def test_an_address_that_is_not_whole_is_seen(text: str):
    assert len(ill_formed(text)) == 1
    assert ill_formed("[x](https://arxiv.org/abs/2003.01690), <https://docs.ray.io>") == []
