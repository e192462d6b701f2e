"""How holds put numbers and times. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_NAMED = 3
"""More names than this make no sentence; the rest is counted."""
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def span(seconds: float) -> str:
    """About how long, in whole units: `3 h`, `45 min`, `2 days`. Coarse on purpose: a hold that says the same is the
    same hold and costs no write."""
    if seconds >= 2 * _DAY_S:
        return f"{round(seconds / _DAY_S)} days"
    if seconds >= 2 * _HOUR_S:
        return f"{round(seconds / _HOUR_S)} h"
    if seconds < _MINUTE_S:
        return "less than 1 min"
    if seconds > 15 * _MINUTE_S:
        return f"{round(seconds / _MINUTE_S / 5) * 5} min"
    return f"{round(seconds / _MINUTE_S)} min"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 node`, `40 nodes`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def missed(number: int, unhealthy: int) -> str:
    """`2 nodes away`, `1 node unhealthy`, `2 nodes away and 1 unhealthy`, of so many in all."""
    if number == unhealthy:
        return f"{counted(number, 'node')} unhealthy"
    away = f"{counted(number - unhealthy, 'node')} away"
    return f"{away} and {unhealthy:,} unhealthy" if unhealthy else away


def ordinal(number: int) -> str:
    """`third`, `12th`."""
    if 1 <= number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def named(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, c and 4 more`."""
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED:,} more"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def service_name(key: tuple[str, str]) -> str:
    """`scope/name`, or the name alone where the scope is empty."""
    scope, name = key
    return f"{scope}/{name}" if scope else name
