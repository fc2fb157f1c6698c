"""The Chromium that opens the board's page, for tests and for benchmarks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Playwright, Request

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
MISSING = "needs a browser: `apt-get install chromium`, or `playwright install chromium`"

EMPTY = "<!DOCTYPE html><table class=standings><thead><th onclick='this.ariaSort=1'>Clean"
SORTED = """async () => {
    const heads = [...document.querySelectorAll("table.standings thead th")];
    const head = heads.find((th) => th.innerText.startsWith("Clean"));
    head.click();
    while (!head.ariaSort) await new Promise((done) => setTimeout(done));
    return performance.now() / 1000;
}"""


def launch(playwright: Playwright) -> Browser | None:
    """The system's browser, or else Playwright's own, without a window; None where there is neither."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found and not Path(playwright.chromium.executable_path).exists():
        return None
    return playwright.chromium.launch(executable_path=found, args=FLAGS)


@contextmanager
def running() -> Generator[Browser]:
    """A headless Chromium for tests; without one they are skipped, or fail in CI."""
    # Inside: its event loop would stand in the way of tests that need no browser, and benchmarks need no pytest.
    import pytest
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            if os.environ.get("ADVBENCH_REQUIRE_BROWSER") == "1":
                pytest.fail(f"{MISSING}; ADVBENCH_REQUIRE_BROWSER=1 allows no skip")
            pytest.skip(MISSING)
        yield browser
        browser.close()


def interactive(page: Page, file: Path) -> float:
    """Seconds in the browser's clock from the start of the navigation until a click has sorted the table.

    A file of `EMPTY` does the least that can be done.
    """
    page.goto(file.as_uri())
    page.wait_for_selector("table.standings thead th", state="attached")
    return page.evaluate(SORTED)


def go(page: Page, address: str) -> None:
    """To a view of an open board by its address, as from a bookmark, until it is shown."""
    page.evaluate("(address) => { location.hash = address; }", address)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    page.wait_for_selector("html[data-ready]", state="attached")


def listen(page: Page, file: str, told: list[str]) -> None:
    """Note in `told` what the page says, throws, asks, opens or wants to have beside the `file` itself."""

    def asked(request: Request) -> None:
        url = request.url.partition("#")[0]
        if url != file and not url.startswith("data:"):
            told.append(f"request: {url}")

    def opened(dialog: Dialog) -> None:
        told.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("request", asked)
    page.on("dialog", opened)
    page.on("console", lambda said: told.append(f"console {said.type}: {said.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("popup", lambda other: told.append(f"window: {other.url}"))
    page.on("download", lambda download: told.append(f"download: {download.url[:80]}"))
