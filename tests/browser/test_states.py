"""Every state of a board opens in a real browser, from the disk and offline, and says what it should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import states
from playwright.sync_api import Page


@pytest.mark.parametrize("state", [*states.STATES, "committed"])
def test_a_board_opens_offline_and_asks_for_nothing(visit: Callable[..., Page], state: str):
    page = visit(state)

    assert page.get_by_role("heading", level=1).count() == 1
