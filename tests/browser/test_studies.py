"""What studies claim, on the page: one table of all, a view of each, and their curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def claimed(repo: Path) -> list[dict[str, Any]]:
    return json.loads((repo / "leaderboard" / "board.json").read_text("utf-8"))["studies"]


def test_the_first_view_has_every_claim_and_leads_to_its_study(visit: Visit, claimed: list[dict[str, Any]]):
    page = visit("committed")
    short = page.get_by_role("region", name="Studies", exact=True).locator("tbody tr")
    verdicts = [[claim["verdict"] for claim in study["claims"]] for study in claimed]
    counts = [[str(said.count(one)) for one in ("holds", "does not hold", "undecided")] for said in verdicts]
    assert [row.split("\t")[-4:-1] for row in short.all_inner_texts()] == counts
    page.get_by_text(f"All {sum(map(len, verdicts))} claims").click()
    rows = page.get_by_role("region", name="Claims of the studies").locator("tbody tr")
    expect(rows).to_have_count(sum(len(study["claims"]) for study in claimed))

    rows.first.locator("a").click()

    expect(page.locator("h1")).to_have_text(claimed[0]["title"])
    said = page.get_by_role("region", name="Claims").locator("tbody tr")
    assert [row.locator(".verdict").inner_text() for row in said.all()] == [c["verdict"] for c in claimed[0]["claims"]]


def test_every_study_opens_with_its_claims_and_its_curves(visit: Visit, claimed: list[dict[str, Any]]):
    for study in claimed:
        page = visit("committed", f"#/{study['task']}")

        expect(page.locator("h1")).to_have_text(study["title"])
        rows = page.get_by_role("region", name="Claims").locator("tbody tr").all_inner_texts()
        assert len(rows) == len(study["claims"])
        for row, claim in zip(rows, study["claims"], strict=True):
            assert float(row.split(f"\t{claim['sense']} ")[1].split("\t")[0].split(",")[0]) == claim["required"]
        if study["curves"]:
            page.locator(".plot").scroll_into_view_if_needed()
            page.wait_for_selector(".plot .main-svg")
            lines = page.locator(".plot .scatterlayer .trace").count()
            assert lines >= len(study["curves"]["lines"])
