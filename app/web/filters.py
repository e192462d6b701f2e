"""How values read on pages. Relative times carry the absolute one, in the reader's zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from flask import Flask
from markupsafe import Markup, escape

from app.core.query import quoted
from app.web.context import now
from app.web.preferences import preferences
from wire.messages import Result

_MINUTE = 60
_HOUR = 3600
_DAY = 24 * 3600


def install(app: Flask) -> None:
    app.jinja_env.globals.update(when=when)
    app.jinja_env.filters.update(
        duration=duration,
        event_kind=event_kind,
        number=number,
        percent=percent,
        quoted=quoted,
        sentence=sentence,
        short_digest=short_digest,
        size=size,
        unbroken=unbroken,
        with_links=with_links,
    )


def duration(seconds: float) -> str:
    """The largest unit that tells enough: `3 s`, `12 min`, `5 h`, `41 d`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h"
    return f"{whole // _DAY} d"


def when(at: float | None, style: str = "ago") -> Markup:
    """`<time>` of Unix seconds: relative text, absolute title. Style: `ago` or `for` (how long already)."""
    if at is None:
        return Markup('<span class="muted">never</span>')
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}" data-style="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="seconds").replace("+00:00", "Z"), style, absolute(at), relative(at, now(), style)
    )


def relative(at: float, now: float, style: str = "ago") -> str:
    """Words for the distance; app.js words it the same way."""
    distance = duration(abs(now - at))
    if style == "for":
        return distance
    if at > now + 1:
        return f"in {distance}"
    return "now" if now - at < 1 else f"{distance} ago"


def absolute(at: float) -> str:
    moment = datetime.fromtimestamp(at, preferences().zone)
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname()}"


def size(octets: float) -> str:
    """Bytes in binary units, three digits: `391 MiB`."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    value = float(octets)
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


_WITHIN = re.compile(r"(?<=\d) (?=(?:s|min|h|d)\b)|(?<=\d.[hd]) (?=\d)|(?<=\ba) (?=minute)|(?<=\ban) (?=hour)| (?=–)")
"""Spaces between a number and its unit, and others at which a quantity is not broken into lines."""


def unbroken(text: str) -> str:
    """A quantity of which lines break only where it reads well: `2 min –` and `3 h 3 min`, `10.4` and `a minute`."""
    return _WITHIN.sub("\u00a0", text)


def short_digest(digest: str) -> str:
    """`sha256:9f2c…41ab`: enough to compare by eye; the whole is in the title and the copy button."""
    name, _, value = digest.partition(":")
    return f"{name}:{value[:4]}…{value[-4:]}" if len(value) > 12 else digest


_EVENT_KINDS = {
    "ok": {"confirmed", "soaked", "joined", "approved", "online"},
    "bad": {"fell-back", "version-failed", "lost", "check-failed", "identity-conflict", "boot-unknown"},
    "warn": {
        "offline",
        "late-report",
        "claim-early",
        "unexpected-phase",
        "disarmed",
        "cancel-asked",
        "retired",
        "going-back",
        "order-refused",
    },
    "trial": {"boot", "armed", "lease-granted"},
    "accent": {"staged", "operation-begun", "operation-ended"},
}


_RESULT_KINDS = {Result.SUCCEEDED: "ok", Result.CANCELLED: "warn", Result.REFUSED: "warn"}


def event_kind(kind: str, result: str | None = None) -> str:
    """The colour of an event's mark on the time line; of an operation that ended, how it ended decides."""
    if result is not None:
        return _RESULT_KINDS.get(Result(result), "bad")
    return next((color for color, kinds in _EVENT_KINDS.items() if kind in kinds), "")


def number(value: float) -> str:
    return f"{value:,.0f}"


_ROLLOUT = re.compile(r"\brollout ([0-9]{1,9})\b")


def with_links(text: str, node: tuple[str, str] = ("", "")) -> Markup:
    """A sentence of a history, in which each `rollout 12` leads to its page. `node`: (id, name) of one that it is
    about; its name leads to it, and stands before a sentence that does not have it."""
    linked, (id, name) = str(escape(text)), (str(escape(each)) for each in node)
    if id and name:
        link = f'<a class="text-strong strong" href="/nodes/{id}">{name}</a>'
        named = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
        linked = named.sub(lambda _: link, linked, count=1) if named.search(linked) else f"{link}: {linked}"
    linked = _ROLLOUT.sub(r'<a class="text" href="/rollouts/\1">rollout \1</a>', linked)
    return Markup(linked)  # noqa: S704 -- text, name and id are escaped, and a rollout's link has digits only


def sentence(text: str) -> str:
    """With a capital first letter, and all others as they are; a name keeps its own."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"
