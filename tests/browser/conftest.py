"""A real Chromium, and boards for it to open.

Pages are opened from the disk by a browser that is offline. What they say on the console, what they throw and whatever
they ask for beside themselves is kept, and fails the test that opened them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import chromium
import pytest
import states

from advbench.board import build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a file of tests, not for all of them."""
    with chromium.running() as browser:
        yield browser


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Callable[[str], Path]:
    """A function: the name of a state of tests/states.py, or `committed` -> the page of its board."""
    # A fresh page of the committed records is byte-equal to the committed one, as tests/test_leaderboard.py asks.
    built = {"committed": repo / "leaderboard" / "index.html"}

    def page(name: str) -> Path:
        if name not in built:
            out = tmp_path_factory.mktemp(name)
            build(states.lay(name, out), out)
            built[name] = out / "index.html"
        return built[name]

    return page


@pytest.fixture(scope="module")
def opened() -> dict[str, tuple[Page, list[str]]]:
    """By state and scheme, the page that shows its board, and what it did beside that: to open it takes seconds."""
    return {}


@pytest.fixture
def visit(browser: Browser, board: Callable[[str], Path], opened: dict[str, Any]) -> Iterator[Callable[..., Page]]:
    """A function: state, address="#/", width of the window, scheme -> its board, opened offline from the disk, ready.

    When the test is over, a page that complained, threw or asked for anything beside itself fails it.
    """

    def open_(state: str, address: str = "#/", width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        key = f"{state} {scheme}"
        first = key not in opened
        if first:
            opened[key] = browser.new_context(offline=True, reduced_motion="reduce").new_page(), []
        page, told = opened[key]
        page.set_default_timeout(30_000)
        page.set_viewport_size({"width": width, "height": 740})
        page.emulate_media(media="screen", color_scheme=scheme, reduced_motion="reduce")
        if first:
            file = board(state).as_uri()
            chromium.listen(page, file, told)
            page.goto(file + address)
        elif state != "none":
            for there in ("#/nowhere", address):  # so that the view is made anew
                chromium.go(page, there)
        if state != "none":
            page.wait_for_selector("html[data-ready]", state="attached")
        page.mouse.click(1, 1)  # Tab begins at the beginning
        return page

    yield open_
    told = [line for _, lines in opened.values() for line in lines]
    for _, lines in opened.values():
        lines.clear()
    assert told == []
