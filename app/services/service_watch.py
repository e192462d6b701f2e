"""Watches which replicas serve: keeps the time line of each service and the most that were seen healthy.

A step of the conductor compares what nodes say now with what the time line was last told (table `replicas`), and
tells the difference with its cause. Both are written in one transaction that holds the nodes' rows, so that any
number of conductors, killed anywhere, tells each difference once. See docs/decisions.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.core.clocks import listened_s
from app.core.groups import Grouping
from app.core.services import PEAK_DAYS, ChangeCause, NodeMoment, explain, rising, scope_of
from app.core.snapshot import ServiceKey
from app.services.endings import words_of
from app.services.service_views import DAY_S
from app.store import gateways, groups, service_rises, snapshot
from app.store import service_changes as store
from app.store import services as service_rows
from app.store.database import Change, Database, Priority
from app.store.nudges import EVERYTHING
from app.store.service_changes import Told
from wire.messages import OperationKind

SWEEP_S = 60.0
"""All nodes are compared this often: what no nudge told is on the time line by then."""
_BATCH = 100
"""Nodes in one transaction."""

Here = dict[ServiceKey, Told]
Moved = Mapping[ServiceKey, tuple[int, int]]
"""Replicas (gained, lost) in this look, over all nodes."""


class ServiceWatch:
    """One for a conductor. `note` may be called on any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._noted: set[str] = {EVERYTHING}
        self._swept_at: float | None = None
        self._day = -1

    def note(self, topics: Iterable[str]) -> None:
        """These changed."""
        found = {topic.removeprefix("node:") for topic in topics if topic.startswith("node:") or topic == EVERYTHING}
        if "groups" in topics:
            found.add(EVERYTHING)
        if found:
            with self._guard:
                self._noted |= found

    def step(self, db: Database, now: float) -> int:
        """Tell what changed; how many changes were told."""
        with self._guard:
            noted, self._noted = self._noted, set()
        sweep = EVERYTHING in noted or self._swept_at is None or not 0 <= now - self._swept_at < SWEEP_S
        if not noted and not sweep:
            return 0
        told = self._compare(db, None if sweep else sorted(noted), now)
        if sweep:
            self._swept_at = now
            self._look_at_peaks(db, now)
        return told

    def _compare(self, db: Database, ids: Sequence[str] | None, now: float) -> int:
        with db.read() as conn:
            first = not store.any_told(conn)
            found = _look(conn, ids)
        self._day = -1 if first else self._day
        moved = _moved(found)
        different = [node_id for node_id, node in found.items() if node.differs]
        count = 0
        for start in range(0, len(different), _BATCH):
            some = different[start : start + _BATCH]
            with db.write(Priority.BACKGROUND) as change:
                free = store.claim(change.conn, some)
                count += _tell(change, _look(change.conn, free), moved, now, silent=first)
            missed = set(some) - set(free)
            if missed:
                self.note(f"node:{node_id}" for node_id in missed)
        return count

    def _look_at_peaks(self, db: Database, now: float) -> None:
        """Once a day at every service: one that never changes has been seen all the same. Else at those of which more
        than ever are healthy: it counts when it has lasted."""
        day = int(now // DAY_S)
        with db.read() as conn:
            keys = None if day != self._day else service_rises.under_way(conn)
            healthy = {total.key: total.healthy for total in store.totals(conn, keys)}
        if keys is not None:
            healthy = dict.fromkeys(keys, 0) | healthy
        keys = sorted(healthy)
        for start in range(0, len(keys), _BATCH):
            with db.write(Priority.BACKGROUND) as change:
                _note_seen(change.conn, {key: healthy[key] for key in keys[start : start + _BATCH]}, now)
        self._day = day


@dataclass(frozen=True, slots=True)
class _Node:
    """A node as it is, and as the time line knows it."""

    id: str
    name: str
    boot_id: str
    member: bool
    online: bool
    trial: bool
    placement_known: bool
    reserved: bool
    before: Here
    after: Here

    @property
    def differs(self) -> bool:
        return self.before != self.after


def _look(conn: Connection, ids: Sequence[str] | None) -> dict[str, _Node]:
    grouping = Grouping(groups.all_groups(conn))
    told, contents = store.told(conn, ids), snapshot.contents(conn, ids)
    found = {}
    for row in store.watched(conn, ids):
        policy_group = grouping.of(row.labels)
        group = policy_group[0].name if policy_group else ""
        serving = row.member and row.online and not row.trial
        before = told.get(row.id, {})
        after = _here(row, contents.get(row.id, ()), group, serving)
        found[row.id] = _Node(
            row.id,
            row.name,
            row.boot_id,
            row.member,
            row.online,
            row.trial,
            row.placement_known,
            row.reserved,
            before,
            after,
        )
    return found


def _here(row: Any, contents: Sequence[snapshot.Content], group: str, serving: bool) -> Here:
    """What serves on the node now. Where it cannot see its containers, nothing that we know of does."""
    found: dict[ServiceKey, Told] = {}
    for content in contents:
        key = (scope_of(content.scope, group), content.service)
        other = found.get(key)
        healthy = content.healthy if serving and row.placement_known else 0
        labelled = [each for each in (content.labelled, other.labelled if other else None) if each is not None]
        found[key] = Told(
            healthy + (other.healthy if other else 0),
            row.boot_id,
            max(labelled, default=None),
            content.per_node and (other is None or other.per_node),
        )
    if not row.placement_known:
        for scope, name, replicas in row.declared or ():
            if serving:
                found[(scope, name)] = Told(replicas, row.boot_id, None, False)
    return found


def _changes(node: _Node) -> dict[ServiceKey, int]:
    """Replicas that came or went; a reboot that nobody saw took and returned what is there."""
    keys = node.before.keys() | node.after.keys()
    found = {key: _healthy(node.after, key) - _healthy(node.before, key) for key in sorted(keys)}
    return {key: change for key, change in found.items() if change}


def _unseen_reboot(node: _Node) -> dict[ServiceKey, int]:
    """Replicas that were there before and are there after a reboot that no look fell into."""
    return {
        key: min(was.healthy, node.after[key].healthy)
        for key, was in node.before.items()
        if key in node.after and was.boot_id != node.boot_id and min(was.healthy, node.after[key].healthy)
    }


def _healthy(here: Here, key: ServiceKey) -> int:
    return here[key].healthy if key in here else 0


def _moved(found: Mapping[str, _Node]) -> Moved:
    gained: Counter[ServiceKey] = Counter()
    lost: Counter[ServiceKey] = Counter()
    for node in found.values():
        for key, change in _changes(node).items():
            (gained if change > 0 else lost)[key] += abs(change)
    return {key: (gained[key], lost[key]) for key in gained.keys() | lost.keys()}


# --- telling ------------------------------------------------------------------------------------------------


def _tell(change: Change, found: Mapping[str, _Node], moved: Moved, now: float, *, silent: bool) -> int:
    rows = [] if silent else _lines(change.conn, found, moved, now)
    changed: dict[tuple[str, ServiceKey], Told] = {}
    new: dict[tuple[str, ServiceKey], Told] = {}
    gone: list[tuple[str, ServiceKey]] = []
    for node in found.values():
        gone += [(node.id, key) for key in node.before.keys() - node.after.keys()]
        for key, known in node.after.items():
            if key not in node.before:
                new[(node.id, key)] = known
            elif node.before[key] != known:
                changed[(node.id, key)] = known
    store.tell(change.conn, changed, new, sorted(gone))
    keys = sorted({key for node in found.values() for key in (*_changes(node), *_unseen_reboot(node))})
    if not silent:
        healthy = dict.fromkeys(keys, 0) | {total.key: total.healthy for total in store.totals(change.conn, keys)}
        _note_seen(change.conn, healthy, now)
        _number(rows, healthy)
    store.add(change.conn, rows)
    if rows:
        change.touch("replicas", *{f"service:{row['scope']}/{row['name']}" for row in rows})
    return len(rows)


def _note_seen(conn: Connection, healthy: Mapping[ServiceKey, int], now: float) -> None:
    """What is healthy now counts as seen on this day, as far as it lasted or is no more than counted before."""
    day, keys = int(now // DAY_S), sorted(healthy)
    counted, rises = service_rows.peaks(conn, day - PEAK_DAYS, keys), service_rises.of(conn, keys)
    listeners = list(gateways.all_seen(conn).values())
    seen, after = {}, {}
    for key in keys:
        seen[key], after[key] = rising(
            rises.get(key), counted.get(key, 0), healthy[key], now, lambda since: listened_s(listeners, since, now)
        )
    service_rows.raise_peaks(conn, day, seen)
    service_rises.keep(conn, {key: rise for key, rise in after.items() if rises.get(key) != rise}, rises.keys())


def _lines(conn: Connection, found: Mapping[str, _Node], moved: Moved, now: float) -> list[dict[str, object]]:
    """What one look found. Nobody knows the order within it: what came stands before what went, so that no line tells
    of a service below its floor that may never have been there."""
    moments = _moments(conn, found)
    came: list[dict[str, object]] = []
    went: list[dict[str, object]] = []
    for node in found.values():
        moment, operation_id, rollout_id, lost_by = moments[node.id]
        there_and_back = _unseen_reboot(node)
        steps = [(key, -number) for key, number in there_and_back.items()]
        steps += list(_changes(node).items())
        steps += list(there_and_back.items())
        for key, number in steps:
            gained, lost = moved.get(key, (0, 0))
            cause, text = explain(number, bool(gained and lost), moment, lost_by)
            ours = cause is ChangeCause.OPERATION
            rows = came if number > 0 and cause is not ChangeCause.MOVED and key not in there_and_back else went
            rows.append(
                {
                    "at": now,
                    "scope": key[0],
                    "name": key[1],
                    "node_id": node.id,
                    "change": number,
                    "healthy": 0,
                    "cause": cause.value,
                    "text": text,
                    "operation_id": operation_id if ours else None,
                    "rollout_id": rollout_id if ours else None,
                }
            )
    return came + went


def _number(rows: Sequence[dict[str, object]], healthy: Mapping[ServiceKey, int]) -> None:
    """How many were healthy after each change, counted back from what is healthy now."""
    left = dict(healthy)
    for row in reversed(rows):
        key = (str(row["scope"]), str(row["name"]))
        row["healthy"] = left.get(key, 0)
        left[key] = left.get(key, 0) - int(str(row["change"]))


Moment = tuple[NodeMoment, str | None, str | None, ChangeCause | None]
"""What explains changes of a node's replicas; the operation and rollout; why they were lost before."""


def _moments(conn: Connection, found: Mapping[str, _Node]) -> dict[str, Moment]:
    ids = sorted(found)
    boots, reserved, losses = store.boots(conn, ids), store.reserved_for(conn, ids), store.last_losses(conn, ids)
    by_node: defaultdict[str, list[str]] = defaultdict(list)
    for node_id in ids:
        lost_by = losses.get(node_id, (None, None))
        by_node[node_id] = [id for id in (reserved.get(node_id), boots.get(node_id, ("", None))[1], lost_by[1]) if id]
    orders = store.orders(conn, (id for wanted in by_node.values() for id in wanted))
    return {
        node_id: _moment(
            found[node_id],
            boots.get(node_id, ("", None)),
            next((orders[id] for id in by_node[node_id] if id in orders), None),
            losses.get(node_id, (None, None))[0],
        )
        for node_id in ids
    }


def _moment(
    node: _Node, boot: tuple[str, str | None], order: store.Order | None, lost_by: ChangeCause | None
) -> Moment:
    rebooted = any(was.boot_id != node.boot_id for was in node.before.values())
    ours = order is not None and (node.reserved or boot[1] == order.id or lost_by is ChangeCause.OPERATION)
    moment = NodeMoment(
        name=node.name,
        member=node.member,
        online=node.online,
        placement_known=node.placement_known,
        rebooted=rebooted,
        boot_cause=boot[0],
        operation=_words(order) if order is not None and ours else "",
        under_way=node.reserved or node.trial,
    )
    if order is None or not ours:
        return moment, None, None, lost_by
    return moment, order.id, order.rollout_id, lost_by


def _words(order: store.Order) -> str:
    """“Update to 2.0 by mb (rollout 12)”."""
    rollout = f" (rollout {order.rollout_number})" if order.rollout_number is not None else ""
    return f"{words_of(OperationKind(order.kind), order.target_version)} by {order.actor}{rollout}"
