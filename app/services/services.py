"""Services: what operators say of their floors and replicas, and what pages show of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import Invalid, NotFound
from app.core.rollouts import TERMINAL, RolloutState
from app.core.services import NOTHING_SAID, PEAK_DAYS, Said, Seen, label_of
from app.core.snapshot import ServiceKey, ServiceView
from app.services.acting import need
from app.services.service_views import DAY_S, Frozen
from app.store import audit, fleet, rollouts
from app.store import service_changes as changes
from app.store import services as store
from app.store.database import Change, Database
from app.store.service_changes import ServiceChange, Total
from app.store.services import Word

_MOST_REPLICAS = 1_000_000
"""More than any fleet runs: a slip of the finger is refused."""


# --- what operators say -------------------------------------------------------------------------------------


def set_floor(db: Database, actor: Actor, key: ServiceKey, floor: int, reason: str, now: float) -> None:
    """Never fewer healthy replicas than this by our own actions, however many are expected."""
    _number("floor", floor)
    with db.write() as change:
        said = _said(change, key)
        _say(change, actor, "service.floor", key, said, replace(said, floor=floor), reason, now)


def set_expected(db: Database, actor: Actor, key: ServiceKey, expected: int, reason: str, now: float) -> None:
    """So many replicas are expected, whatever labels say and was seen; also lowers what a rollout froze."""
    _number("expected", expected)
    with db.write() as change:
        said = _said(change, key)
        _say(change, actor, "service.expected", key, said, replace(said, expected=expected), reason, now)


def allow_single(db: Database, actor: Actor, key: ServiceKey, allowed: bool, reason: str, now: float) -> None:
    """Whether its single replica may be moved: it is down meanwhile."""
    with db.write() as change:
        said = _said(change, key)
        _say(change, actor, "service.allow-single", key, said, replace(said, single_allowed=allowed), reason, now)


def clear(db: Database, actor: Actor, key: ServiceKey, reason: str, now: float) -> None:
    """Nothing is said of it any more: labels and what was seen decide."""
    with db.write() as change:
        _say(change, actor, "service.clear", key, _said(change, key), NOTHING_SAID, reason, now)


def _said(change: Change, key: ServiceKey) -> Said:
    """What is said of the service now; the fleet's row is held, for floors are what admission goes by."""
    fleet.lock(change.conn)
    if not key[1].strip():
        raise Invalid("name", "A service has a name.")
    word = store.words(change.conn, [key]).get(key)
    return NOTHING_SAID if word is None else word.said


def _say(
    change: Change, actor: Actor, action: str, key: ServiceKey, before: Said, after: Said, reason: str, now: float
) -> None:
    need(reason, "Say why: everybody who meets this floor reads it.")
    store.say(change.conn, key, after, actor.name, reason.strip(), now)
    subject = f"service:{label_of(key)}"
    audit.append(change.conn, actor, action, subject, reason, asdict(before), asdict(after), now)
    change.touch("services", f"service:{key[0]}/{key[1]}", "fleet")


def _number(field: str, number: int) -> None:
    if not 0 <= number <= _MOST_REPLICAS:
        raise Invalid(field, f"The {field} is a number of replicas from 0 to {_MOST_REPLICAS:,}, not {number}.")


# --- what pages show ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """A service with its numbers now; those that the time line was last told, at most some seconds old."""

    view: ServiceView
    healthy: int
    nodes: int
    word: Word | None
    """What an operator said of it."""
    per_node: bool
    labelled: int | None
    peak: int
    """Most seen healthy in seven days."""

    @property
    def key(self) -> ServiceKey:
        return self.view.key

    @property
    def headroom(self) -> int | None:
        """Of the expected replicas those that may go away now; below 0: below its floor. None: it has no floor."""
        floor = self.view.floor
        return None if floor is None else min(self.healthy, max(self.view.expected, floor)) - floor


def listing(conn: Connection, now: float) -> list[Listed]:
    """All services: below their floors first, then by headroom, scope and name; those without a floor last. One that
    runs nowhere is among them while somebody wants replicas of it."""
    totals = changes.totals(conn)
    running = {total.key for total in totals}
    wanted = (key for key, word in store.words(conn).items() if word.said.floor or word.said.expected)
    found = _listed(conn, [*totals, *(_nowhere(key) for key in wanted if key not in running)], now, None)
    return sorted(found, key=lambda each: (each.headroom is None, each.headroom or 0, each.key))


def one(conn: Connection, key: ServiceKey, now: float) -> Listed:
    """NotFound when it was never seen and nobody said anything of it."""
    found = _listed(conn, changes.totals(conn, [key]), now, [key])
    if not found:
        word = store.words(conn, [key]).get(key)
        if word is None:
            raise NotFound("service", label_of(key))
        found = _listed(conn, [_nowhere(key)], now, [key])
    return found[0]


def _nowhere(key: ServiceKey) -> Total:
    return Total(key, healthy=0, nodes=0, labelled=None, per_node=False)


def where(conn: Connection, key: ServiceKey) -> list[tuple[str, str, int]]:
    """Nodes that have its containers: id, name, healthy replicas there."""
    return changes.nodes_of(conn, key)


def time_line(
    conn: Connection, key: ServiceKey, *, before_id: int | None = None, limit: int = 100
) -> list[ServiceChange]:
    """Replicas lost and returned with the cause, newest first."""
    return changes.line(conn, key, before_id=before_id, limit=limit)


def below_floor(conn: Connection, service: Listed, line: Sequence[ServiceChange]) -> set[int]:
    """Ids of those of these changes after which it was below the floor that it has now: not while it had never come to
    it, for a service that fills up has lost nothing."""
    floor = service.view.floor
    low = [change.id for change in line if floor is not None and change.healthy < floor]
    reached = changes.first_at(conn, service.key, floor) if low and floor is not None else None
    return {id for id in low if reached is not None and id >= reached}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A service if some nodes went away."""

    service: Listed
    lost: int

    @property
    def left(self) -> int:
        return self.service.healthy - self.lost

    @property
    def below_floor(self) -> bool:
        floor = self.service.view.floor
        return floor is not None and self.lost > 0 and self.left < floor


def what_if(conn: Connection, node_ids: Sequence[str], now: float) -> list[WhatIf]:
    """Each service that has replicas on these nodes, if they went away: the worst first."""
    lost = changes.on_nodes(conn, node_ids)
    keys = sorted(key for key, replicas in lost.items() if replicas)
    found = [WhatIf(each, lost[each.key]) for each in _listed(conn, changes.totals(conn, keys), now, keys)]
    return sorted(found, key=_worst_first)


def _worst_first(each: WhatIf) -> tuple[bool, int, ServiceKey]:
    floor = each.service.view.floor
    return floor is None, each.left - (floor or 0), each.service.key


def _listed(conn: Connection, totals: Sequence[Total], now: float, keys: Sequence[ServiceKey] | None) -> list[Listed]:
    words = store.words(conn, keys)
    peaks = store.peaks(conn, int(now // DAY_S) - PEAK_DAYS, keys)
    started = rollouts.in_states(conn, frozenset(RolloutState) - TERMINAL - {RolloutState.DRAFT})
    frozen = Frozen.of(started)
    return [_one(total, words, peaks, frozen) for total in totals]


def _one(total: Total, words: Mapping[ServiceKey, Word], peaks: Mapping[ServiceKey, int], frozen: Frozen) -> Listed:
    key = total.key
    word, peak = words.get(key), peaks.get(key, 0)
    seen = Seen(total.healthy, total.labelled, peak, total.per_node)
    said = NOTHING_SAID if word is None else word.said
    return Listed(frozen.view(key, said, seen), total.healthy, total.nodes, word, total.per_node, total.labelled, peak)
