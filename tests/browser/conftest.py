"""A real Chromium, and boards for it to open.

Pages are opened from the disk by a browser that is offline. What they say on the console, what they throw and whatever
they ask for beside themselves is kept, and fails the test that opened them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
import states

from advbench.board import build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the test is skipped, or fails in CI."""
    # For a file of tests, not for all of them: its event loop would stand in the way of others.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = chromium.launch(playwright)
        if running is None:
            if os.environ.get("ADVBENCH_REQUIRE_BROWSER") == "1":
                pytest.fail(f"{chromium.MISSING}; ADVBENCH_REQUIRE_BROWSER=1 allows no skip")
            pytest.skip(chromium.MISSING)
        yield running
        running.close()


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Callable[[str], Path]:
    """A function: the name of a state of tests/states.py, or `committed` -> the page of its board."""
    built: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in built:
            out = tmp_path_factory.mktemp(name)
            # The committed page is byte-equal to a fresh one, as tests/test_leaderboard.py asks.
            build(repo / "leaderboard" if name == "committed" else states.lay(name, out), out)
            built[name] = out / "index.html"
        return built[name]

    return page


@pytest.fixture
def visit(browser: Browser, board: Callable[[str], Path]) -> Iterator[Callable[..., Page]]:
    """A function: state, fragment="", how a context is -> its board, opened offline from the disk and ready.

    When the test is over, a page that complained, threw or asked for anything beside itself fails it.
    """
    told: list[str] = []
    contexts: list[Any] = []

    def open_(state: str, fragment: str = "", **how: Any) -> Page:
        context = browser.new_context(offline=True, reduced_motion="reduce", **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        file = board(state).as_uri()
        chromium.listen(page, file, told)
        page.goto(file + fragment)
        if state != "none" and how.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert told == []
