"""Services: what operators said of them, what was seen of them, and the replicas that serve now, summed in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, delete, func, insert, select, tuple_, update

from app.core.services import Said, Seen
from app.core.snapshot import ServiceKey
from app.store.schema import containers, nodes, replicas, service_peaks, services
from app.store.snapshot import SERVES

_KEYS_AT_ONCE = 200

Keys = Sequence[ServiceKey] | None


# --- what operators said ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """What an operator said of a service, by whom and why."""

    said: Said
    actor: str
    reason: str
    changed_at: float | None


def words(conn: Connection, keys: Keys = None) -> dict[ServiceKey, Word]:
    """Services of which an operator said something."""
    return {(row.scope, row.name): _word(row) for row in by_key(conn, _WORDS, services.c.scope, services.c.name, keys)}


_WORDS = select(services)


def say(conn: Connection, key: ServiceKey, said: Said, actor: str, reason: str, now: float) -> None:
    """Keep what an operator says of the service from now on."""
    values = {
        "floor": said.floor,
        "expected": said.expected,
        "single_allowed": said.single_allowed,
        "actor": actor,
        "reason": reason,
        "changed_at": now,
    }
    this = services.c.scope == key[0], services.c.name == key[1]
    if conn.execute(update(services).where(*this).values(**values)).rowcount == 0:
        conn.execute(insert(services).values(scope=key[0], name=key[1], **values))


def forget(conn: Connection, key: ServiceKey) -> None:
    """Nothing was ever said of it."""
    conn.execute(delete(services).where(services.c.scope == key[0], services.c.name == key[1]))


def _word(row: Any) -> Word:
    return Word(Said(row.floor, row.expected, row.single_allowed), row.actor, row.reason, row.changed_at)


# --- what was seen ------------------------------------------------------------------------------------------


@cache
def _labels() -> Select[Any]:
    return select(
        containers.c.scope,
        containers.c.service,
        func.max(containers.c.replicas).label("labelled"),
        func.min(case((containers.c.per_node, 1), else_=0)).label("per_node"),
    ).group_by(containers.c.scope, containers.c.service)


def labels_of(conn: Connection, keys: Keys = None) -> list[Any]:
    """Of each scope (as the containers say) and service: `labelled`, the most replicas that a label asks for, and
    `per_node`, whether all its containers are on their nodes by design. Keys with an empty scope: of any group."""
    query = _labels()
    return by_key(conn, query, containers.c.scope, containers.c.service, keys)


def peaks(conn: Connection, since_day: int, keys: Keys = None) -> dict[ServiceKey, int]:
    """The most replicas seen healthy at once since that day (days since 1970)."""
    columns, since = (service_peaks.c.scope, service_peaks.c.name), {"since": since_day}
    return {(row[0], row[1]): row[2] for row in by_key(conn, _PEAKS, *columns, keys, since)}


_PEAKS = (
    select(service_peaks.c.scope, service_peaks.c.name, func.max(service_peaks.c.healthy))
    .where(service_peaks.c.day >= bindparam("since"))
    .group_by(service_peaks.c.scope, service_peaks.c.name)
)


def known(conn: Connection, keys: Sequence[ServiceKey], group_names: Sequence[str]) -> set[ServiceKey]:
    """Those that run or ran somewhere, or of which somebody said something."""
    found: set[ServiceKey] = set()
    for table in (services, replicas, service_peaks):
        query = select(table.c.scope, table.c.name).distinct()
        found |= {(row[0], row[1]) for row in by_key(conn, query, table.c.scope, table.c.name, keys)}
    raw = sorted({*keys, *(("", name) for scope, name in keys if scope in group_names)})
    here = select(containers.c.scope, containers.c.service).distinct()
    own = {(row[0], row[1]) for row in by_key(conn, here, containers.c.scope, containers.c.service, raw)}
    found |= own | {key for key in keys if key[0] in group_names and ("", key[1]) in own}
    for runs in conn.execute(select(nodes.c.declared).where(nodes.c.declared.is_not(None))).scalars():
        found |= {(scope, name) for scope, name, _ in runs}
    return found


def named(conn: Connection, text: str, limit: int) -> list[ServiceKey]:
    """Services that were seen lately, or of which somebody said something, whose name or scope/name contains the text;
    those whose name begins with it first."""
    lowered, found = text.lower(), set[ServiceKey]()
    for table in (service_peaks, services):
        whole = func.lower(table.c.scope + "/" + table.c.name)
        query = select(table.c.scope, table.c.name).where(whole.contains(lowered, autoescape=True)).distinct()
        found |= {(row[0], row[1]) for row in conn.execute(query)}
    return sorted(found, key=lambda key: (not key[1].lower().startswith(lowered), key[1], key[0]))[:limit]


def raise_peaks(conn: Connection, day: int, healthy: Mapping[ServiceKey, int]) -> None:
    """Note how many are healthy where that is more than was seen on that day."""
    known = {
        (row[0], row[1]): row[2]
        for row in by_key(conn, _PEAKS_OF, service_peaks.c.scope, service_peaks.c.name, sorted(healthy), {"day": day})
    }
    new = [key for key in sorted(healthy) if key not in known]
    more = [key for key in sorted(healthy) if key in known and healthy[key] > known[key]]
    if new:
        rows = [{"scope": key[0], "name": key[1], "day": day, "healthy": healthy[key]} for key in new]
        conn.execute(insert(service_peaks), rows)
    if more:
        statement = update(service_peaks).where(
            service_peaks.c.scope == bindparam("of_scope"),
            service_peaks.c.name == bindparam("of_name"),
            service_peaks.c.day == day,
        )
        conn.execute(
            statement.values(healthy=bindparam("to_healthy")),
            [{"of_scope": key[0], "of_name": key[1], "to_healthy": healthy[key]} for key in more],
        )


_PEAKS_OF = select(service_peaks.c.scope, service_peaks.c.name, service_peaks.c.healthy).where(
    service_peaks.c.day == bindparam("day")
)


def remove_peaks_before(conn: Connection, day: int) -> int:
    """Forget days that nobody counts by any more."""
    return conn.execute(delete(service_peaks).where(service_peaks.c.day < day)).rowcount


def seen(healthy: int, labels: Sequence[tuple[int | None, bool]], peak: int) -> Seen:
    """One service's sights put together; of several sources the strictest holds."""
    labelled = [number for number, _ in labels if number is not None]
    return Seen(
        healthy=healthy,
        labelled=max(labelled, default=None),
        peak=peak,
        per_node=bool(labels) and all(per_node for _, per_node in labels),
    )


# --- what serves now ----------------------------------------------------------------------------------------


def serving(conn: Connection, up: ColumnElement[bool], keys: Sequence[ServiceKey]) -> list[Any]:
    """Healthy replicas of these (scope as containers say, service) on nodes that are up, summed for each set of node
    labels: a container without a scope of its own belongs to its node's group. Columns: scope, service, labels, n."""
    query = (
        select(containers.c.scope, containers.c.service, nodes.c.labels, func.count().label("n"))
        .join(nodes, nodes.c.id == containers.c.node_id)
        .where(SERVES, up)
        .group_by(containers.c.scope, containers.c.service, nodes.c.labels)
    )
    return by_key(conn, query, containers.c.scope, containers.c.service, keys)


def by_key(
    conn: Connection,
    query: Any,
    scope: ColumnElement[str],
    name: ColumnElement[str],
    keys: Keys,
    parameters: Mapping[str, Any] | None = None,
) -> list[Any]:
    """`query`: the same object each time, for what is made of it is kept."""
    more = dict(parameters or {})
    if keys is None:
        return list(conn.execute(query, more))
    found: list[Any] = []
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        found += conn.execute(_of_keys(query, scope, name), more | {"keys": keys[start : start + _KEYS_AT_ONCE]})
    return found


@lru_cache(maxsize=32)
def _of_keys(query: Any, scope: ColumnElement[str], name: ColumnElement[str]) -> Any:
    return query.where(tuple_(scope, name).in_(bindparam("keys", expanding=True)))
