"""A filter while it is typed: which word the cursor is in, and what could stand there. Pure; reads text that
app.core.query would still refuse, as half a word or an open quote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.core.query import BadQuery, Field, Query, parse, quoted

_WORD = re.compile(r'(?:"(?:\\.|[^"\\])*(?:"|\\?$)|[^\s"])+', re.S)
_PARTS = re.compile(r'(?:"(?:\\.|[^"\\])*(?:"|\\?$)|[^,"])+|(?<=,)$', re.S)

FIELD_WORDS = {
    Field.STATE: "healthy, on-trial, offline, …",
    Field.HEALTH: "whatever else the node does",
    Field.VERSION: "booted; also < <= > >=",
    Field.LABEL: "key, or key=value",
    Field.SERVICE: "runs a container of it",
    Field.GROUP: "that selects the node",
    Field.ROLLOUT: "its number; also 12/done",
    Field.PHASE: "what an operation does now",
    Field.CHANNEL: "that leads the node",
    Field.SLOT: "booted",
    Field.NAME: "with * for any text",
    Field.PINNED: "yes or no",
    Field.TRIAL: "yes or no",
    Field.CONFLICT: "yes or no",
    Field.FAILED: "a version failed there",
    Field.CONNECTION: "online, offline, never",
    Field.ADMISSION: "pending, admitted, retired",
    Field.SEEN: "longer ago than >1h",
    Field.OS: "",
    Field.ARCH: "",
    Field.DRIVER: "",
}
"""In the order they are offered, each with a hint."""


@dataclass(frozen=True, slots=True)
class Typed:
    """The word at the cursor, and what stands around it."""

    before: str
    word: str
    """Up to the cursor."""
    after: str
    """Behind the word; the rest of the word itself would be replaced."""
    negated: bool
    others: Query
    """The other terms; none where they cannot be read."""

    @property
    def field(self) -> Field | None:
        """None: a word without a field, or with one that there is not."""
        name, colon, _ = self.word.partition(":")
        return Field(name.lower()) if colon and name.lower() in tuple(Field) else None

    @property
    def has_field(self) -> bool:
        name, colon, _ = self.word.partition(":")
        return bool(colon) and '"' not in name

    @property
    def stem(self) -> str:
        """What stays in front of a value: field, alternatives, operator, label key."""
        return self.word[: len(self.word) - len(self._raw)]

    @property
    def operator(self) -> str:
        """Of a version: `<`, `<=`, `>`, `>=`, `=` or none."""
        found = re.search(r"[:,]([<>]?=?)$", self.stem)
        return found.group(1) if found else ""

    @property
    def label_key(self) -> str | None:
        """Of a label whose value is typed; None while its key is."""
        found = re.search(r"[:,]([^,=]+)=$", self.stem)
        return _plain(found.group(1)) if found and self.field is Field.LABEL else None

    @property
    def text(self) -> str:
        """What is typed of the word or value, without quotes and stars, in lower case."""
        return _plain(self._raw).replace("*", "").lower()

    @property
    def _raw(self) -> str:
        if not self.has_field:
            return self.word
        value = self.word.partition(":")[2]
        parts = _PARTS.findall(value)
        last = parts[-1] if parts else ""
        if self.field is Field.LABEL and "=" in last:
            return last.partition("=")[2]
        if self.field is Field.VERSION:
            return re.sub(r"^[<>]?=?", "", last)
        return last


@dataclass(frozen=True, slots=True)
class Suggestion:
    term: str
    """The word as it would be."""
    count: int | None = None
    """How many nodes have it, of those that the other terms leave."""
    hint: str = ""
    open: bool = False
    """A value is to follow."""


def at_cursor(text: str, cursor: int) -> Typed:
    cursor = max(0, min(cursor, len(text)))
    start = end = cursor
    last = ""
    for found in _WORD.finditer(text):
        if found.start() <= cursor <= found.end() and found.start() < cursor:
            start, end = found.span()
        elif found.end() <= start:
            last = found.group()
    negated = last.lower() == "not"
    before = text[:start]
    kept = before.rstrip()[:-3] if negated else before
    try:
        others = parse(kept + " " + text[end:])
    except BadQuery:
        others = Query()
    return Typed(before, text[start:cursor], text[end:], negated, others)


def fields_for(typed: Typed) -> list[Suggestion]:
    """Fields, and `not`, that begin with what is typed."""
    found = [
        Suggestion(f"{field}:", None, words, open=True)
        for field, words in FIELD_WORDS.items()
        if field.startswith(typed.text)
    ]
    if "not".startswith(typed.text) and not typed.negated:
        found.append(Suggestion("not ", None, "the opposite of the next term", open=True))
    return found


def value_for(typed: Typed, value: str, count: int | None, *, literal: bool = True) -> Suggestion:
    """`literal`: quoted where the language would read signs of its own in the value."""
    return Suggestion(typed.stem + (quoted(value) if literal else value), count)


def taken(typed: Typed, chosen: Suggestion) -> tuple[str, int]:
    """The whole filter with the suggestion in the word's place, and where the cursor goes."""
    head = typed.before + chosen.term + ("" if chosen.open else " ")
    return head + typed.after.lstrip(), len(head)


def _plain(raw: str) -> str:
    """Without quotes and escapes, also where a quote is still open."""
    return re.sub(r"\\(.)", r"\1", re.sub(r'(?<!\\)"', "", raw), flags=re.S)
