"""How the pages write numbers that people read."""

from __future__ import annotations

NOTHING = "\N{EN DASH}"
"""Where there is no number."""


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, without the sign."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def amount(value: float | None) -> str:
    """A count that people can say: 812, 5.1 M."""
    if value is None:
        return NOTHING
    for unit in ("", " k", " M", " G"):
        if round(value, 1) < 1000:
            return f"{value:.1f}{unit}" if unit else f"{value:.0f}"
        value /= 1000
    return f"{value:.1f} T"


def duration(seconds: float | None) -> str:
    """Seconds as 6.1 s, 31 min or 2.5 h."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def budget(kind: str, value: float) -> str:
    """30 epochs, 155.3 k passes or 1.8 s."""
    match kind:
        case "seconds":
            return duration(value)
        case "epochs":
            return f"{value:.0f} epoch{'' if value == 1 else 's'}"
        case _:
            return f"{amount(value)} {kind}"


def few(lowest: int, highest: int) -> str:
    """Counts that are one number or a range: 5, 4-5."""
    return str(lowest) if lowest == highest else f"{lowest}\N{EN DASH}{highest}"
