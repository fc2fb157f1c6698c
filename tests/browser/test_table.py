"""The table, its filters, the views behind it and the flags' explanations, by mouse and by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

Visit = Callable[..., Page]
ROWS = "table.standings tbody tr"
NAMED = f"{ROWS} td:first-child"


def names(page: Page) -> list[str]:
    """The defenses of the table, from above."""
    return [name.strip() for name in page.locator(NAMED).all_inner_texts()]


def column(page: Page, title: str) -> list[float | None]:
    """The first number of each cell below `title`, from above; None where there is none."""
    found = page.evaluate(
        """([rows, title]) => {
            const heads = [...document.querySelectorAll("table.standings thead th")].map((th) => th.innerText.trim());
            const at = heads.findIndex((head) => head.startsWith(title));
            return [...document.querySelectorAll(rows)].map((row) => parseFloat(row.children[at].innerText));
        }""",
        [ROWS, title],
    )
    return [None if value is None or value != value else value for value in found]


FACETS = {
    "Data set": ("mnist", ["pgd-at", "trades"]),
    "Threat": ("Linf 3/20", ["fast-at", "mart", "pgd-at", "standard"]),
    "Model": ("mnist-cnn", ["pgd-at", "trades"]),
    "Budget": ("8 epochs", ["fast-at", "mart", "pgd-at", "standard"]),
    "Extra data": ("synthetic 1M", ["trades"]),
}


def test_each_filter_leaves_what_it_says(visit: Visit):
    page = visit("tasks")
    everything = names(page)
    assert len(everything) == 6

    for label, (choice, left) in FACETS.items():
        page.get_by_label(label).select_option(label=choice)
        assert sorted(names(page)) == left, label
        expect(page.get_by_role("status")).to_have_text(f"{len(left)} of 6 defenses")
        page.get_by_label(label).select_option(label="all")
        assert names(page) == everything, label


def test_words_and_flags_filter_too_and_filters_add_up(visit: Visit):
    page = visit("tasks")

    page.get_by_label("without flags").check()
    assert "fast-at" not in names(page)
    page.get_by_label("Search").fill("PGD")
    assert names(page) == ["pgd-at", "pgd-at"]
    page.get_by_label("Data set").select_option(label="digits")
    assert names(page) == ["pgd-at"]
    page.get_by_label("Search").fill("nothing is called so")
    assert "No defense is left" in page.locator("table.standings").inner_text()


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_every_column_sorts_both_ways(visit: Visit, how: str):
    page = visit("tasks", "#/digits-linf")

    def press(head: Locator) -> None:
        if how == "mouse":
            head.click()
        else:
            head.locator("[role=button], button").or_(head).last.focus()
            page.keyboard.press("Enter")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)))")

    for title in ("Robust", "Clean", "Passes", "Time", "Rank"):
        head = page.locator("table.standings thead th", has_text=title)
        ways: dict[str, list[float | None]] = {}
        for _ in range(2):
            press(head)
            ways[head.get_attribute("aria-sort") or ""] = column(page, title)
        known = sorted(value for value in column(page, title) if value is not None)
        assert len(set(known)) > 1, "a column of equal numbers would be sorted anyhow"
        assert set(ways) == {"ascending", "descending"}, title
        assert [value for value in ways["ascending"] if value is not None] == known, title
        assert [value for value in ways["descending"] if value is not None] == known[::-1], title


def test_a_name_leads_to_its_seeds_and_a_seed_to_its_record_and_back(visit: Visit):
    page = visit("tasks")
    board = names(page)

    page.get_by_role("link", name="fast-at").first.click()
    expect(page.locator("h1")).to_have_text("fast-at")
    page.get_by_role("link", name="seed 2").click()
    expect(page.locator("h1")).to_have_text("fast-at, seed 2")
    told = page.locator("main").inner_text()
    assert "In the folder of this page, where its records/ are" in told
    assert "advbench reproduce records/digits-linf/fast-at-s2" in told
    beside = "in the folder of its task file, digits-linf.toml:"
    assert f"{beside}\n\nadvbench run digits-linf.toml --only digits-linf/fast-at-s2" in told
    assert "PGD-10 accuracy fell from 51.0% to 0.3% at epoch 5" in told
    for summary in page.locator("main summary").all():
        summary.click()
    assert '"optimizer": "sgd"' in page.locator("main").inner_text()
    assert '"torch": "2.15.0"' in page.locator("main").inner_text()

    page.go_back()
    expect(page.locator("h1")).to_have_text("fast-at")
    page.go_back()
    expect(page.locator(ROWS).first).to_be_visible()
    assert names(page) == board
    page.go_forward()
    page.reload()
    expect(page.locator("h1")).to_have_text("fast-at")


def test_an_example_of_a_record_shows_what_broke_it(visit: Visit):
    page = visit("one", "#/digits-linf/pgd-at/0")
    page.get_by_label("Show").select_option(label=page.get_by_label("Show").locator("option").nth(2).inner_text())

    row = page.locator("table.examples tbody tr").first
    outcome = row.locator("td").nth(4).inner_text()
    row.get_by_role("link").click()

    one = page.locator("#at-example")
    expect(one).to_be_focused()
    assert outcome in one.inner_text()
    assert one.locator("canvas").count() or "no image" in one.inner_text()


def test_a_flag_opens_its_explanation_and_escape_closes_it(visit: Visit):
    page = visit("collapsed")
    badge = page.get_by_role("button", name="1 of 2 collapsed")
    dialog = page.get_by_role("dialog")

    badge.click()
    expect(dialog).to_be_visible()
    told = dialog.inner_text()
    assert "catastrophic-overfitting" in told
    assert "seed 1: PGD-10 accuracy fell from 51.0% to 0.3% at epoch 5" in told
    assert "What to do next" in told
    assert page.evaluate("() => document.activeElement.closest('dialog') !== null"), "focus is inside"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(badge).to_be_focused()


def test_an_explanation_goes_with_the_view_that_it_was_opened_on(visit: Visit):
    page = visit("collapsed")
    page.get_by_role("button", name="1 of 2 collapsed").click()
    expect(page.get_by_role("dialog")).to_be_visible()

    page.evaluate("() => document.querySelector('table.standings tbody a').click()")  # as Back and Forward do

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("table.standings")).to_have_count(0)


FOCUS = """() => {
    const at = document.activeElement, box = at.getBoundingClientRect();
    const around = [at, at.closest("label")].filter(Boolean).map((one) => getComputedStyle(one));
    const path = [], place = (one) => [...one.parentElement.children].indexOf(one);
    for (let one = at; one.parentElement; one = one.parentElement) path.push(place(one));
    return {
        name: `${at.tagName} ${at.getAttribute("aria-label") || at.innerText || at.value || ""}`.slice(0, 60).trim(),
        path: path.join("/"),
        ringed: around.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0),
        seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
}"""


def walk(page: Page, most: int = 150) -> list[dict[str, Any]]:
    """Everything that Tab comes to, until it leaves the page."""
    stops: list[dict[str, Any]] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop["name"].startswith("BODY") or (stops and stop["path"] == stops[0]["path"]):
            return stops
        stops.append(stop)
    raise AssertionError(f"Tab does not come round: {stops[-3:]}")


@pytest.mark.parametrize("address", ["#/", "#/digits-linf", "#/digits-linf/fast-at/2"])
def test_tab_comes_to_everything_and_shows_where_it_is(visit: Visit, address: str):
    page = visit("tasks", address)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button:enabled, select, input, summary, th [role=button]")]
            .filter((one) => one.checkVisibility() && (one.type !== "radio" || one.checked)).length"""
    )

    stops = walk(page)

    assert stops[0]["name"] == "A Skip to the board"
    assert [stop["name"] for stop in stops if not stop["ringed"]] == []
    assert [stop["name"] for stop in stops if not stop["seen"]] == []
    assert len({stop["path"] for stop in stops}) == len(stops) >= wanted


def test_the_way_from_the_board_to_an_explanation_and_a_record_by_keyboard_alone(visit: Visit):
    page = visit("collapsed")

    def tab_to(name: str) -> None:
        for _ in range(100):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUS)["name"] == name:
                return
        raise AssertionError(f"Tab never came to {name}")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to("BUTTON 1 of 2 collapsed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUS)["name"] == "A fast-at"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("fast-at")
    tab_to("A seed 1")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("fast-at, seed 1")
    tab_to("SUMMARY The resolved job")
    page.keyboard.press("Enter")
    expect(page.locator("details[open] pre")).to_contain_text("digits-cnn")
    tab_to("A fast-at")  # round again, to where the reader is said to be
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("fast-at")


def test_filters_stand_in_the_address_and_an_address_filters(visit: Visit):
    page = visit("tasks")
    page.get_by_label("Threat").select_option(label="Linf 3/20")
    page.get_by_label("Search").fill("at")
    assert sorted(names(page)) == ["fast-at", "pgd-at"]
    address = page.evaluate("location.hash")
    assert address == "#/?threat=Linf+3%2F20&search=at"

    # Whoever is sent it sees the same; and so does who comes back from a record.
    page = visit("tasks", "#/digits-linf")
    page.evaluate("address => { location.hash = address; }", address)
    expect(page.locator(NAMED)).to_have_count(2)
    assert sorted(names(page)) == ["fast-at", "pgd-at"]
    expect(page.get_by_label("Search")).to_have_value("at")
    page.get_by_label("Search").fill("")
    page.get_by_label("Threat").select_option(label="all")
    assert page.evaluate("location.hash") == "#/"


def test_an_address_that_asks_for_what_is_not_here_filters_nothing(visit: Visit):
    page = visit("tasks", "#/?threat=L7+99&colour=blue")

    assert len(names(page)) == 6
