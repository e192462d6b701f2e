"""The filter language in SQL: terms of app.core.query → a condition on nodes that both databases take."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
)

from app.core.fleet import NodeState
from app.core.groups import Requirement, Selector, Sign, parse_selector
from app.core.query import (
    AnyOf,
    Compare,
    Field,
    Flag,
    InRollout,
    Is,
    Label,
    Not,
    Pattern,
    Query,
    Seen,
    Term,
    Text,
    Version,
    ascii_lower,
)
from app.core.rollout_progress import Progress
from app.core.versions import version_key
from app.store.rollout_cells import PROGRESS
from app.store.schema import channels, containers, failed_versions, gateways, groups, nodes, rollout_nodes, rollouts

Condition = ColumnElement[bool]

ZONE = "zone"
"""The label that has a column: lists count by it, and the fleet is drawn by it."""

STATE: ColumnElement[str] = case(
    (nodes.c.admission != "admitted", nodes.c.admission),
    (nodes.c.connection != "online", literal(NodeState.OFFLINE.value)),
    (nodes.c.on_trial, literal(NodeState.ON_TRIAL.value)),
    else_=nodes.c.health_state,
)
"""app.core.fleet.state_of in SQL."""

CHANNEL_ID: ColumnElement[str] = case(
    (nodes.c.pin_image_id.is_not(None), null()), else_=func.coalesce(nodes.c.pin_channel_id, nodes.c.channel_id)
)
"""The channel that decides now; none for a node pinned to a version."""

SEEN_AT: ColumnElement[float] = case(
    (
        nodes.c.connection == "online",
        func.coalesce(
            select(gateways.c.heartbeat_at).where(gateways.c.id == nodes.c.gateway_id).scalar_subquery(),
            nodes.c.last_seen_at,
        ),
    ),
    else_=nodes.c.last_seen_at,
)
"""While a node is connected, its gateway's heartbeat counts."""

PINNED: Condition = or_(nodes.c.pin_image_id.is_not(None), nodes.c.pin_channel_id.is_not(None))

_COLUMNS: dict[Field, ColumnElement[str]] = {
    Field.NAME: nodes.c.name,
    Field.SLOT: nodes.c.booted_slot,
    Field.HEALTH: nodes.c.health_state,
    Field.STATE: STATE,
    Field.CONNECTION: nodes.c.connection,
    Field.ADMISSION: nodes.c.admission,
    Field.PHASE: nodes.c.phase,
    Field.OS: nodes.c.os_id,
    Field.ARCH: nodes.c.arch,
    Field.DRIVER: nodes.c.driver,
}
_COMPARE: dict[Compare, Callable[[Any, Any], Any]] = {
    Compare.LESS: operator.lt,
    Compare.AT_MOST: operator.le,
    Compare.MORE: operator.gt,
    Compare.AT_LEAST: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What terms are resolved against before there is SQL: few values each, whatever the size of the fleet."""

    now: float
    versions: tuple[str, ...] = ()
    channels: tuple[tuple[str, str], ...] = ()
    """(id, name)."""
    groups: tuple[tuple[str, Selector], ...] = ()
    """(name, selector)."""


def known_for(conn: Connection, query: Query, now: float) -> Known:
    """Asks only for what the query speaks of."""
    kinds = {(type(leaf), getattr(leaf, "field", None)) for leaf in query.leaves}
    versions: tuple[str, ...] = ()
    channel_names: tuple[tuple[str, str], ...] = ()
    selectors: tuple[tuple[str, Selector], ...] = ()
    if (Version, None) in kinds or (Is, Field.VERSION) in kinds:
        versions = tuple(conn.execute(select(nodes.c.version).distinct()).scalars())
    if (Is, Field.CHANNEL) in kinds:
        channel_names = tuple((id, name) for id, name in conn.execute(select(channels.c.id, channels.c.name)))
    if (Is, Field.GROUP) in kinds:
        rows = conn.execute(select(groups.c.name, groups.c.selector))
        selectors = tuple((name, parse_selector(selector)) for name, selector in rows)
    return Known(now, versions, channel_names, selectors)


def condition(query: Query, known: Known) -> Condition:
    """Nodes that match all terms; retired ones only where the query speaks of them."""
    terms = [_sql(term, known) for term in query.terms]
    if not query.asks_retired:
        terms.append(nodes.c.admission != "retired")
    return and_(true(), *terms)


def column_of(field: Field) -> ColumnElement[str]:
    """The column whose text `field:value` compares with; KeyError for fields that have none."""
    return _COLUMNS[field]


def label(key: str) -> ColumnElement[str]:
    """The value of a label; NULL where a node has none."""
    if key == ZONE:
        return nodes.c.zone
    value: ColumnElement[str] = nodes.c.labels[key].as_string()
    return value


def in_group(selector: Selector) -> Condition:
    """Admitted nodes whose labels the selector takes; app.core.groups.Selector in SQL."""
    return and_(nodes.c.admission == "admitted", *(_required(each) for each in selector.requirements))


def _required(requirement: Requirement) -> Condition:
    value = label(requirement.key)
    match requirement.sign:
        case Sign.IS:
            return value == requirement.value
        case Sign.IS_NOT:
            return or_(value != requirement.value, value.is_(None))
        case Sign.HAS:
            return value.is_not(None)
        case Sign.HAS_NOT:
            return value.is_(None)


def _sql(term: Term, known: Known) -> Condition:
    match term:
        case Not(inner):
            return not_(func.coalesce(_sql(inner, known), False))
        case AnyOf(terms):
            return or_(*(_sql(each, known) for each in terms))
        case Text(pattern):
            found = pattern.anywhere
            return or_(_like(nodes.c.name, found), _like(nodes.c.version, found), _like(nodes.c.id, pattern))
        case Label(key, None):
            return label(key).is_not(None)
        case Label(key, wanted) if wanted is not None:
            return _like(label(key), wanted)
        case Version(compare, version):
            wanted_key = version_key(version)
            later = _COMPARE[compare]
            return _version_in(each for each in known.versions if each and later(version_key(each), wanted_key))
        case Seen(compare, seconds):
            distance: Condition = _COMPARE[compare](known.now - SEEN_AT, seconds)
            return distance
        case Flag(field, wanted):
            return _flag(field) if wanted else not_(_flag(field))
        case InRollout(number, progress):
            return _in_rollout(number, progress)
        case Is(Field.VERSION, pattern):
            return _version_in(each for each in known.versions if pattern.matches(each))
        case Is(Field.CHANNEL, pattern):
            return CHANNEL_ID.in_([id for id, name in known.channels if pattern.matches(name)])
        case Is(Field.SERVICE, pattern):
            return _has_service(pattern)
        case Is(Field.GROUP, pattern):
            return or_(false(), *(in_group(selector) for name, selector in known.groups if pattern.matches(name)))
        case Is(field, pattern):
            return _like(_COLUMNS[field], pattern)
    raise AssertionError(f"a term without SQL: {term!r}")


def _flag(field: Field) -> Condition:
    if field is Field.PINNED:
        return PINNED
    if field is Field.FAILED:
        failed = failed_versions.c.node_id == nodes.c.id, failed_versions.c.cleared_at.is_(None)
        return exists().where(*failed)
    return nodes.c.on_trial.is_(True) if field is Field.TRIAL else nodes.c.conflict.is_not(None)


def _in_rollout(number: int, progress: Progress | None) -> Condition:
    found = exists().where(
        rollout_nodes.c.node_id == nodes.c.id,
        rollouts.c.id == rollout_nodes.c.rollout_id,
        rollouts.c.number == number,
    )
    return found if progress is None else found.where(PROGRESS.in_([progress.value]))


def _version_in(versions: Iterable[str]) -> Condition:
    return nodes.c.version.in_(list(versions))


def _has_service(pattern: Pattern) -> Condition:
    """`service`, or `scope/service`."""
    name = or_(_like(containers.c.service, pattern), _like(containers.c.scope + "/" + containers.c.service, pattern))
    return exists().where(containers.c.node_id == nodes.c.id, name)


def _like(column: ColumnElement[str], pattern: Pattern) -> Condition:
    """Case is ignored for ASCII letters, as app.core.query.Pattern does; both databases agree on those."""
    pieces = [ascii_lower(piece) for piece in pattern.pieces]
    if len(pieces) == 1:
        return func.lower(column) == pieces[0]
    escaped = ["".join(f"\\{char}" if char in "\\%_" else char for char in piece) for piece in pieces]
    return func.lower(column).like("%".join(escaped), escape="\\")
