"""Seconds in words for holds and reasons."""

from __future__ import annotations

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def span(seconds: float) -> str:
    """One rounded-up figure, coarse on purpose: a text that changes each second is sent each second."""
    for unit_s, name in UNITS:
        if seconds > 1.9 * unit_s:
            return f"{-(-seconds // unit_s):.0f} {name}"
    return "a minute" if seconds > 45 else "less than a minute"
