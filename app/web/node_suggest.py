"""What the filter's word at the cursor could become: fields, and values with how many nodes have them. JSON."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from app.core.query import MOST_CHARS, Compare, Field, Flag, InRollout, Is, Pattern, Query, Seen, Term, Version
from app.core.query_typing import Suggestion, Typed, at_cursor, fields_for, taken, value_for
from app.core.rollout_progress import Progress
from app.store import groups, node_list, node_values, rollouts
from app.store.node_query import Condition, condition, known_for
from app.web.context import now, read
from app.web.nodes import facets_of

blueprint = Blueprint("node_suggest", __name__)

_SHOWN = 10
"""A list that is read at a glance."""
_FLAGS = (Field.PINNED, Field.TRIAL, Field.CONFLICT, Field.FAILED)
_SEEN = {"<1min": 60.0, "<1h": 3600.0, ">5min": 300.0, ">1h": 3600.0, ">1d": 86_400.0, ">1w": 604_800.0}
"""Distances that people ask for, in seconds."""


@blueprint.get("/nodes/suggest")
def suggest() -> Response:
    """`q`: the filter as it is typed; `at`: the cursor. Each answer has the whole filter that it leads to."""
    text = request.args.get("q", "")
    typed = at_cursor(text, request.args.get("at", len(text), type=int))
    found = read(lambda conn: _suggestions(conn, typed)) if len(text) <= MOST_CHARS else []
    return jsonify([_said(typed, each) for each in found if each.term != typed.word][:_SHOWN])


def _said(typed: Typed, each: Suggestion) -> dict[str, object]:
    text, cursor = taken(typed, each)
    number = None if each.count is None else f"{each.count:,}"
    return {"term": each.term.strip(), "count": number, "hint": each.hint, "text": text, "cursor": cursor}


def _suggestions(conn: Connection, typed: Typed) -> list[Suggestion]:
    field = typed.field
    if not typed.has_field:
        return [*fields_for(typed), *_facets(conn, typed)]
    if field is None:
        return []
    if field in _FLAGS:
        terms: dict[str, Term] = {word: Flag(field, word == "yes") for word in ("yes", "no")}
        return _each(conn, typed, terms)
    if field is Field.SEEN:
        return _each(conn, typed, {word: Seen(Compare(word[0]), seconds) for word, seconds in _SEEN.items()})
    if field is Field.VERSION and typed.operator not in ("", "="):
        found = node_values.values(conn, _where(conn, Query()), field, typed.text, _SHOWN)
        compare = Compare(typed.operator)
        return _each(conn, typed, {version: Version(compare, version) for version, _ in found}, literal=True)
    if field is Field.LABEL:
        return _labels(conn, typed)
    if field is Field.GROUP:
        names = [name for name in groups.names(conn) if name.startswith(typed.text)][:_SHOWN]
        return _each(conn, typed, {name: Is(Field.GROUP, Pattern((name,))) for name in names})
    if field is Field.ROLLOUT:
        return _rollouts(conn, typed)
    found = node_values.values(conn, _where(conn, typed.others, field), field, typed.text, _SHOWN)
    return [value_for(typed, value, number) for value, number in found]


def _rollouts(conn: Connection, typed: Typed) -> list[Suggestion]:
    """The newest numbers; behind one, how far nodes have come in it."""
    number, slash, _ = typed.text.partition("/")
    if slash:
        known = number.isdecimal() and len(number) < 10
        return _each(
            conn, typed, {f"{number}/{each}": InRollout(int(number), each) for each in Progress} if known else {}
        )
    numbers = [rollout.number for rollout in rollouts.newest(conn, limit=_SHOWN)]
    return _each(conn, typed, {str(number): InRollout(number, None) for number in numbers})


def _facets(conn: Connection, typed: Typed) -> list[Suggestion]:
    """The list's own facets, when a part of their value is typed."""
    if not typed.text:
        return []
    found = facets_of(node_list.facets(conn, _where(conn, typed.others)))
    return [Suggestion(each.term, each.count) for each in found if typed.text in each.term.partition(":")[2].lower()]


def _labels(conn: Connection, typed: Typed) -> list[Suggestion]:
    where = _where(conn, typed.others)
    if typed.label_key is not None:
        found = node_values.label_values(conn, where, typed.label_key, typed.text, _SHOWN)
        return [value_for(typed, value, number) for value, number in found]
    keys = node_values.label_keys(conn, where, typed.text, _SHOWN)
    return [value_for(typed, key, number, literal=False) for key, number in keys]


def _each(conn: Connection, typed: Typed, terms: dict[str, Term], *, literal: bool = False) -> list[Suggestion]:
    """Terms that are counted one by one: no column has their values."""
    found = []
    for word, term in terms.items():
        if word.lower().startswith(typed.text) or literal:
            where = _where(conn, Query((*typed.others.terms, term)))
            found.append(value_for(typed, word, node_list.count(conn, where), literal=literal))
    return found


def _where(conn: Connection, query: Query, field: Field | None = None) -> Condition:
    """The nodes that the other terms leave; with retired ones where their number is asked for."""
    if field in (Field.STATE, Field.ADMISSION):
        query = Query((*query.terms, Is(Field.ADMISSION, Pattern(("", "")))))
    return condition(query, known_for(conn, query, now()))
