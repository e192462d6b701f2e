"""What needs a person: the whole list, and taking an entry, putting it aside, giving it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from app.core.errors import Invalid, NotFound
from app.core.query import Field, quoted
from app.services import attention
from app.services.attention import Entry, EntryKind
from app.store import rollouts
from app.web.context import actor, console, now, read
from app.web.form_pages import draw_form, submit
from app.web.forms import reason
from app.web.live import live_page
from app.web.preferences import preferences

blueprint = Blueprint("attention", __name__)

PAGE = "attention/mark.html"
TOPICS = ("attention", "fleet", "services", "rollouts", "freezes")
_PACE_S = 2.0
_MOMENT_S = 60.0
"""Nodes become long offline, and what was put aside returns, without anybody's doing."""
_ROWS_EACH = 20
"""Of a kind while all kinds are shown; its own page has them all."""
_NOBODY = "-"
"""Owner in the address, for what nobody has taken; no name of a person."""


@dataclass(frozen=True, slots=True)
class KindWords:
    title: str
    shape: str


WORDS: dict[EntryKind, KindWords] = {
    EntryKind.NEW_EPOCH: KindWords("New epoch, all frozen", "bad"),
    EntryKind.LOST: KindWords("Many nodes lost at once", "bad"),
    EntryKind.HALTED: KindWords("Halted rollouts", "bad"),
    EntryKind.BELOW_FLOOR: KindWords("Services below their floor", "bad"),
    EntryKind.CONFLICT: KindWords("Identity conflicts", "bad"),
    EntryKind.FAILED: KindWords("Versions that failed on a node", "warn"),
    EntryKind.UNHEALTHY: KindWords("Unhealthy nodes", "bad"),
    EntryKind.NOT_MOVING: KindWords("Rollouts that do not move", "warn"),
    EntryKind.NOT_STARTED: KindWords("Rollouts that did not start", "warn"),
    EntryKind.PENDING: KindWords("Nodes that wait for approval", "busy"),
    EntryKind.OFFLINE: KindWords("Nodes offline for more than an hour", "off"),
}


@dataclass(frozen=True, slots=True)
class Row:
    entry: Entry
    href: str

    def verb_url(self, verb: str) -> str:
        return f"/attention/{verb}?" + urlencode({"kind": self.entry.kind.value, "subject": self.entry.subject})


@dataclass(frozen=True, slots=True)
class Kind:
    """Entries of one kind, as far as they are shown."""

    kind: EntryKind
    count: int
    rows: tuple[Row, ...]
    href: str

    @property
    def words(self) -> KindWords:
        return WORDS[self.kind]

    @property
    def more(self) -> int:
        return self.count - len(self.rows)


@dataclass(frozen=True, slots=True)
class Facet:
    """A part of the list; the counts of one row of facets add up to the list."""

    text: str
    count: int
    href: str
    chosen: bool


def kinds(conn: Connection, entries: Sequence[Entry], each: int) -> list[Kind]:
    """Entries by kind, the most urgent first, at most `each` rows of one."""
    found: dict[EntryKind, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.kind, []).append(entry)
    return [
        Kind(kind, len(alike), tuple(_row(conn, entry) for entry in alike[:each]), address(kind=kind.value))
        for kind, alike in found.items()
    ]


def address(**parts: str) -> str:
    text = urlencode({name: value for name, value in parts.items() if value})
    return f"/attention?{text}" if text else "/attention"


def _row(conn: Connection, entry: Entry) -> Row:
    what, _, id = entry.subject.partition(":")
    if what == "node":
        return Row(entry, f"/nodes/{id}")
    if what == "service":
        scope, _, name = id.partition("/")
        return Row(entry, "/service?" + urlencode({"scope": scope, "name": name}))
    if what == "rollout":
        rollout = rollouts.get(conn, id)
        return Row(entry, f"/rollouts/{rollout.number}" if rollout is not None else "/rollouts")
    if entry.kind is EntryKind.LOST:
        label, _, value = id.partition("=")
        where = f" {Field.LABEL}:{label}={quoted(value)}" if label else ""
        return Row(entry, "/nodes?" + urlencode({"q": f"{Field.CONNECTION}:offline{where}"}))
    return Row(entry, "/freezes")


# --- the list -----------------------------------------------------------------------------------------------


@blueprint.get("/attention")
def index() -> Response:
    return live_page(
        "attention/index.html", {"entries": TOPICS}, lambda: read(_listing), moment_s=_MOMENT_S, pace_s=_PACE_S
    )


def _listing(conn: Connection) -> Mapping[str, Any]:
    kind, owner, aside = request.args.get("kind", ""), request.args.get("owner", ""), "aside" in request.args
    everything = attention.all_entries(conn, now())
    here = [entry for entry in everything if entry.put_aside(now()) is aside]
    shown = [entry for entry in here if kind in ("", entry.kind) and owner in ("", _owner(entry))]
    state = {"aside": "yes" if aside else ""}
    return {
        "kinds": kinds(conn, shown, len(shown) if kind or aside else _ROWS_EACH),
        "total": len(shown),
        "filtered": bool(kind or owner),
        "aside": aside,
        "aside_count": sum(entry.put_aside(now()) for entry in everything),
        "unlisted": attention.unlisted(conn, now(), everything),
        "by_kind": _facets(
            Counter(entry.kind for entry in here if owner in ("", _owner(entry))),
            {each: WORDS[each].title for each in EntryKind},
            chosen=kind,
            href=lambda value: address(kind=value, owner=owner, **state),
        ),
        "by_owner": _facets(
            Counter(_owner(entry) for entry in here if kind in ("", entry.kind)),
            {_NOBODY: "nobody has it"},
            chosen=owner,
            href=lambda value: address(kind=kind, owner=value, **state),
        ),
    }


def _owner(entry: Entry) -> str:
    return entry.mark.owner if entry.mark is not None and entry.mark.owner is not None else _NOBODY


def _facets(
    counts: Mapping[Any, int], words: Mapping[Any, str], *, chosen: str, href: Callable[[str], str]
) -> list[Facet]:
    """In the order of `words`, others behind by name. Choosing the chosen one takes it away."""
    order = [value for value in words if value in counts] + sorted(value for value in counts if value not in words)
    return [
        Facet(words.get(value, str(value)), counts[value], href("" if value == chosen else str(value)), value == chosen)
        for value in order
    ]


# --- what people do about it --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verb:
    title: str
    button: str
    text: str


_VERBS = {
    "take": _Verb(
        "Take it", "It is mine", "Everybody sees that you look after it. It leaves by itself when it is over."
    ),
    "snooze": _Verb(
        "Put it aside", "Put it aside", "It leaves this list until then, for everybody, and returns if it still holds."
    ),
    "release": _Verb("Give it back", "Give it back", "Nobody looks after it any more; what was put aside returns now."),
}
_SPANS = {"1": "1 hour", "4": "4 hours", "24": "1 day", "168": "1 week"}
"""Hours → words."""
_BRING_BACK = _Verb(
    "Bring it back", "Bring it back", "It stands in this list again now, for everybody, and nobody looks after it."
)
"""Releasing what was put aside."""


@blueprint.get("/attention/<any(take,snooze,release):verb>")
def mark_form(verb: str) -> ResponseReturnValue:
    return draw_form(PAGE, read(partial(_marking, verb=verb)))


@blueprint.post("/attention/<any(take,snooze,release):verb>")
def mark(verb: str) -> ResponseReturnValue:
    return submit(PAGE, lambda: read(partial(_marking, verb=verb)), "/attention", partial(_change, verb))


def _marking(conn: Connection, verb: str) -> Mapping[str, Any]:
    kind, subject = request.values.get("kind", ""), request.values.get("subject", "")
    entry = next(
        (each for each in attention.all_entries(conn, now()) if (each.kind, each.subject) == (kind, subject)), None
    )
    if entry is None:
        raise NotFound("entry that needs a person", f"{kind} {subject}")
    asked = _BRING_BACK if verb == "release" and entry.put_aside(now()) else _VERBS[verb]
    return {"row": _row(conn, entry), "verb": verb, "asked": asked, "spans": _SPANS, "words": WORDS[entry.kind]}


def _change(verb: str) -> None:
    db, who, kind, subject = console().db, actor(), request.form.get("kind", ""), request.form.get("subject", "")
    note = reason(needed=False)
    match verb:
        case "take":
            attention.take(db, who, kind, subject, note, now())
        case "snooze":
            attention.snooze(db, who, kind, subject, _until(), note, now())
        case _:
            attention.release(db, who, kind, subject, note, now())


def _until() -> float:
    """The moment that was typed, in the reader's zone; else that many hours from now."""
    typed = request.form.get("until", "").strip()
    if not typed:
        hours = request.form.get("hours", "")
        if hours not in _SPANS:
            raise Invalid("until", "Say until when it is put aside.")
        return now() + float(hours) * 3600
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        raise Invalid("until", f"“{typed}” is no time such as 2030-12-01T06:00.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=preferences().zone)).timestamp()
