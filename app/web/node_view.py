"""What an address of the list of nodes says: filter, order, place, columns."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from flask import request
from werkzeug.datastructures import MultiDict

from app.core.query import BadQuery, Query, parse
from app.store.node_list import ListedNode, Order, Sort


class Column(StrEnum):
    """Columns that can be chosen, in the order they are shown; the name is always there."""

    STATE = "state"
    SLOTS = "slots"
    VERSION = "version"
    CHANNEL = "channel"
    PHASE = "phase"
    WHY = "why"
    CONTAINERS = "containers"
    ZONE = "zone"
    OS = "os"
    LABELS = "labels"
    SEEN = "seen"

    @property
    def words(self) -> str:
        return {Column.WHY: "Why it waits", Column.OS: "OS"}.get(self, self.value.capitalize())


USUAL = tuple(column for column in Column if column not in (Column.OS, Column.LABELS))
"""Without a choice."""
ONLY_NAME = "name"
"""In the address where no column is chosen."""


@dataclass(frozen=True, slots=True)
class View:
    """What the address says."""

    text: str
    query: Query
    error: str
    order: Order
    after: tuple[Any, str] | None
    before: tuple[Any, str] | None
    columns: tuple[Column, ...] = USUAL

    @property
    def sort(self) -> str:
        """As the address has it; empty for the usual order."""
        text = ("-" if self.order.descending else "") + self.order.by
        return "" if text == Sort.NAME else text

    @property
    def chosen(self) -> str:
        """The columns as the address has them; empty for the usual ones."""
        return "" if self.columns == USUAL else ",".join(self.columns) or ONLY_NAME

    @property
    def address(self) -> str:
        """What follows `?` in this view's address, wherever in the list the reader is; empty for the whole list."""
        return self.url().partition("?")[2]

    def url(self, path: str = "/nodes", **changed: str) -> str:
        """The address of this view with some parts changed; a changed filter or order begins at the first page."""
        parts = {"q": self.text, "sort": self.sort, "columns": self.chosen} | changed
        if parts["sort"] == Sort.NAME:
            parts["sort"] = ""
        text = urlencode({name: value for name, value in parts.items() if value})
        return f"{path}?{text}" if text else path

    def sort_url(self, by: str) -> str:
        descending = self.order.by == by and not self.order.descending
        return self.url(sort=f"-{by}" if descending else by)

    def toggle_url(self, term: str) -> str:
        return self.url(q=self.query.toggled(term).text)


def view() -> View:
    """Of this request."""
    return read_view(request.args)


def view_of(address: str) -> View:
    """Of what follows `?` in an address."""
    return read_view(MultiDict(parse_qsl(address)))


def read_view(args: MultiDict[str, str]) -> View:
    """A filter that cannot be understood keeps its text, says why, and matches nothing."""
    text = " ".join(args.get("q", "").split())
    error = ""
    try:
        query = parse(text)
    except BadQuery as bad:
        query, error = Query(), bad.text
    sort = args.get("sort", Sort.NAME)
    by = Sort(sort.removeprefix("-")) if sort.removeprefix("-") in tuple(Sort) else Sort.NAME
    order = Order(by, sort.startswith("-"))
    places = _cursor(args.get("after", ""), by), _cursor(args.get("before", ""), by)
    return View(text, query, error, order, *places, _columns(args))


def _columns(args: MultiDict[str, str]) -> tuple[Column, ...]:
    """One parameter with commas, or, out of the form, one for each; unknown names do not count."""
    named = {name for each in args.getlist("columns") for name in each.split(",")}
    known = tuple(column for column in Column if column in named)
    return known if known or ONLY_NAME in named else USUAL


def token(row: ListedNode) -> str:
    """The row's place in the list, for `after` and `before`."""
    return base64.urlsafe_b64encode(msgspec.json.encode([row.key, row.id])).decode().rstrip("=")


def _cursor(text: str, by: Sort) -> tuple[Any, str] | None:
    """None for none, and for one that was tampered with or belongs to another order: the first page then."""
    if not text:
        return None
    expected: Any = tuple[str, str] if by in (Sort.NAME, Sort.PHASE) else tuple[float, str]
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        place: tuple[Any, str] = msgspec.json.decode(raw, type=expected)
    except (ValueError, msgspec.DecodeError):
        return None
    return place
