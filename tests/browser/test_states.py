"""Every state of a board opens in a real browser, from the disk and offline, and says what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import states
from chromium import go, listen
from playwright.sync_api import Browser, Page, expect

from advbench.board import build, room

Visit = Callable[..., Page]
OTHERS = "records/digits-linf, and advbench board on a folder with fewer records shows them."

ADDRESSES = "() => [...document.querySelectorAll('main a[href^=\"#/\"]')].map((link) => link.getAttribute('href'))"


def views(page: Page, most: int) -> list[str]:
    """Up to so many addresses within the page that can be reached from where it stands, those near it first."""
    found = dict.fromkeys(page.evaluate(ADDRESSES))
    for address in list(found)[:most]:
        go(page, address)
        found |= dict.fromkeys(page.evaluate(ADDRESSES))
    return list(found)[:most]


def draw(page: Page) -> None:
    """Scroll by every chart, because they are drawn when they come into sight."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")


LONG = {"many", "committed", "tasks", "collapsed", "one", "stopped"}
"""Whose views take longest; what the others have in common with them is looked at every time."""


@pytest.mark.parametrize(
    "state",
    [pytest.param(state, marks=[pytest.mark.slow] * (state in LONG)) for state in (*states.STATES, "committed")],
)
def test_every_view_of_a_board_opens_offline_without_a_complaint(visit: Visit, state: str):
    page = visit(state)
    draw(page)
    titles = {page.title()}

    for address in views(page, most=4 if state == "many" else 12):
        go(page, address)
        assert page.locator("h1").count() == 1, address
        assert page.locator("h1").inner_text() != "Not on this board", address
        titles.add(page.title())

    assert len(titles) > 2 or state == "none"


NOISY = """<!DOCTYPE html><script>console.debug("said"); alert("asked"); fetch("beside.json").catch(() => 0);
addEventListener("click", () => { throw Error("thrown"); })</script><img src="http://127.0.0.1:9/x.png">"""


def test_what_a_page_does_beside_showing_itself_is_noticed(browser: Browser, tmp_path: Path):
    file = tmp_path / "noisy.html"
    file.write_text(NOISY, encoding="utf-8")
    told: list[str] = []
    page = browser.new_context(offline=True).new_page()
    listen(page, file.as_uri(), told)
    page.goto(file.as_uri() + "#here")
    page.mouse.click(5, 5)
    page.wait_for_timeout(100)
    page.context.close()

    wanted = ["console debug: said", "dialog: asked", "error: thrown", "request: http://127.0.0.1:9/x.png"]
    assert [line for line in wanted if line not in told] == []
    assert any(line.startswith("request: file:") and line.endswith("beside.json") for line in told)
    assert not any("noisy.html" in line for line in told if line.startswith("request"))


def test_a_board_without_records_says_how_to_make_some(visit: Visit):
    told = visit("none").locator("main").inner_text()

    assert "no records yet" in told
    assert "advbench run tasks/" in told


def test_a_failed_job_says_so_and_shows_its_traceback(visit: Visit):
    page = visit("failed")

    row = page.locator("table.standings tbody tr")
    assert row.count() == 1
    assert "FAILED" in row.inner_text()
    assert "RuntimeError: the training loss is nan" in row.inner_text()
    go(page, "#/digits-linf/pgd-at/1")
    assert 'Traceback (most recent call last):\n  File "x.py"' in page.locator("main").inner_text()


def test_a_collapsed_seed_is_marked_in_the_table_and_in_its_history(visit: Visit):
    page = visit("collapsed")

    row = page.locator("table.standings tbody tr")
    assert "1 of 2 collapsed" in row.inner_text()
    assert "\N{DAGGER}" in row.inner_text()
    assert row.locator("svg .dot").count() == 2
    assert row.locator("svg .dot.marked").count() == 1
    draw(page)
    assert page.locator("#at-training .scatterlayer .point").count() == 1, "a cross where it collapsed"
    assert "Collapsed, at the crosses: fast-at, seed 1 in epoch 5" in page.locator("#at-training").inner_text()


def test_a_row_that_was_not_attacked_to_the_end_has_no_robust_accuracy(visit: Visit):
    row = visit("stopped").locator("table.standings tbody tr")

    assert "not judged" in row.inner_text()
    assert "not attacked to the end" in row.inner_text()


def test_hostile_names_appear_as_text_and_nothing_of_them_runs(visit: Visit):
    page = visit("hostile")
    scripts = page.locator("script").count()
    odd = "() => [...document.querySelectorAll('main *')].filter((e) => e.matches('script, iframe, img')).length"

    def shown(*names: str) -> str:
        go(page, "#/" + "/".join(quote(name, safe="") for name in names))
        assert page.locator("h1").inner_text() != "Not on this board", names
        assert page.evaluate(odd) == 0
        return said(page.locator("main").inner_text())

    assert all(said(text) in shown("t") for text in states.HOSTILE)
    draw(page)
    for text in states.HOSTILE:
        assert said(text) in shown("t", text)
        page.locator("button.flag").first.click()
        assert said(text) in said(page.locator("dialog[open]").inner_text())
        page.keyboard.press("Escape")
        shown("t", text, "0")
        for summary in page.locator("main summary").all():
            summary.click()
        assert said(page.locator("main").inner_text()).count(said(text)) > 5
        assert said(text)[-5_000:] in shown("t", text, "1"), "the end of the traceback"
        assert said(text) in shown(text, "pgd-at")
    shown("huge")
    draw(page)
    shown("huge", "other")
    assert page.evaluate(odd) == 0
    assert page.locator("script").count() <= scripts + 1, "plotly's own, for the first chart"


def said(text: str) -> str:
    """Text without the gaps in which lines may break."""
    return "".join(text.split())


def test_what_a_page_has_no_room_for_is_said_where_it_would_be(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill = room.fill
    monkeypatch.setattr(room, "fill", lambda sections, folders, _room: fill(sections, folders, 12_000))
    monkeypatch.setattr(room, "SHARES", {"details": 1, "arrays": -1, "examples": -1, "images": -1})
    build(states.lay("tasks", tmp_path / "results"), tmp_path)
    page = browser.new_context(offline=True).new_page()
    file, told = (tmp_path / "index.html").as_uri(), list[str]()
    listen(page, file, told)
    page.goto(f"{file}#/digits-linf")
    page.wait_for_selector("html[data-ready]", state="attached")
    said = page.locator("#left-out").inner_text()
    held = int(said.split()[2])

    assert said.startswith(f"Details of {held} record")
    assert f"of 10 are on this page, which has so much room for them; those of the others lie in {OTHERS}" in said
    assert 0 < held < 10
    # The first seed of the first defense has its settings and no room for more, the last seed of the last one neither.
    go(page, "#/digits-linf/pgd-at/0")
    left = page.locator("#left-out").inner_text()
    assert (
        "Its images: left out, for a page has so much room; it lies in adversarial.safetensors of the record." in left
    )
    page.get_by_text("The resolved job", exact=True).click()
    assert '"optimizer": "sgd"' in page.locator("main").inner_text()
    go(page, "#/digits-linf/standard/2")
    assert (
        "they lie in records/digits-linf, in the folder of standard with seed 2"
        in page.locator("#left-out").inner_text()
    )
    assert page.locator("h1").inner_text() == "standard, seed 2"
    page.context.close()
    assert told == []


def test_a_browser_that_cannot_unpack_the_page_is_sent_to_the_readme(browser: Browser, board: Callable[[str], Path]):
    page = browser.new_context(offline=True).new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(board("one").as_uri())

    note = page.get_by_text("This page needs a browser of 2023 or later.")
    assert note.get_by_role("link").get_attribute("href") == "README.md"
    page.context.close()


def test_without_javascript_the_page_says_where_the_tables_are(browser: Browser, board: Callable[[str], Path]):
    page = browser.new_context(offline=True, java_script_enabled=False).new_page()
    page.goto(board("tasks").as_uri())

    note = page.locator("noscript")
    assert "needs JavaScript" in note.inner_text()
    assert note.locator("a").get_attribute("href") == "README.md"
    assert (board("tasks").parent / "README.md").is_file()


def test_on_paper_the_table_is_whole_and_the_controls_are_gone(visit: Visit):
    page = visit("tasks", "#/digits-linf")
    assert page.locator(".filters").is_visible()
    page.emulate_media(media="print")

    assert page.locator("table.standings tbody tr").count() == 4
    assert not page.locator(".filters").is_visible()
    assert page.locator(".box").first.evaluate("(box) => getComputedStyle(box).overflowX") == "visible"


def test_on_paper_every_chart_is_drawn_wherever_it_stands(visit: Visit):
    page = visit("tasks", "#/digits-linf")
    drawn = "() => document.querySelectorAll('.plot .main-svg').length"
    charts = page.locator(".plot").count()
    assert page.evaluate(drawn) < charts  # those below the window are not, or this test says nothing

    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")

    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((one) => one.querySelector('.main-svg'))"
    )


def test_a_defense_says_whose_it_is_and_with_what_numbers(visit: Visit):
    page = visit("committed", "#/digits-linf/pgd-at")

    assert page.locator("#paper").inner_text() == "Madry et al., ICLR 2018, arXiv 1706.06083"
    fields = page.get_by_role("region", name="Hyper-parameters").locator("tbody tr")
    assert fields.all_inner_texts() == ["attack_bn\ttrain", "step_size\t0.25", "steps\t10"]


def test_what_a_collector_saw_in_passing_is_drawn_with_its_unit(visit: Visit):
    """Epochs 3, 6 and the last of 8: three points, with nothing between them that a line could join without them."""
    page = visit("tasks", "#/digits-linf/pgd-at/0")
    chart = page.locator("#at-history")
    expect(chart.get_by_label("Show").locator("option")).to_have_text(
        ["accuracy", "fosc fosc_final", "param-hessian clean_top1"]
    )
    draw(page)
    expect(chart.locator(".scatterlayer .js-line")).to_have_count(3)

    chart.get_by_label("Show").select_option(label="param-hessian clean_top1")
    expect(chart.locator(".scatterlayer .point")).to_have_count(3)
    assert chart.locator(".ytitle").text_content() == "param-hessian clean_top1, nats"
    chart.locator("summary").click()
    expect(chart.locator("tbody tr")).to_have_count(3)  # the table is filled when it is opened
    assert chart.locator("tbody tr").all_inner_texts() == ["3\t1.86", "6\t3.72", "8\t4.96"]
    chart.get_by_label("Show").select_option(label="fosc fosc_final")
    expect(chart.locator("figcaption")).to_have_text("fosc fosc_final was finite in no epoch.")

    go(page, "#/digits-linf")
    draw(page)
    every = page.locator("#at-training")
    every.get_by_label("Show").select_option(label="param-hessian clean_top1")
    # Six trainings were looked at, the others have no points.
    expect(every.locator(".scatterlayer .point")).to_have_count(6 * 3)
    every.locator("summary").click()
    assert every.locator("tbody tr").first.inner_text() == "pgd-at, seed 0\t1.86\t3\t4.96\t8"
    assert every.locator("tbody tr").count() == 6


def test_checkpoints_that_met_different_attacks_are_not_set_beside_each_other_unsaid(visit: Visit):
    page = visit("committed", "#/digits-linf/pgd-at/0")

    table = page.get_by_role("region", name="Checkpoints")
    assert [row.split("\t")[-1] for row in table.locator("tbody tr").all_inner_texts()] == ["autoattack-fast", "pgd-20"]
    expect(page.get_by_text("Attacked differently, these rows are not to be compared")).to_have_count(1)
