"""Connections of nodes: who may speak for a node, conflicts of identity, presence.

At most one connection speaks for a node at any time, over all gateways: the node's row names it. It changes hands
only when the former one is gone, known dead, or belongs to a gateway without a heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any

from app.config import Settings
from app.core.events import EventKind
from app.services import desired
from app.store import connections as store
from app.store import events, fleet
from app.store.connections import Identity
from app.store.database import Change, Database, Priority
from wire.messages import Desired, LeaseGrant, LeaseWait, Order

ENDS_SHOWN = 8
"""Most ends kept of one identity conflict."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection, as it described itself and as we see it."""

    remote: str
    machine_id: str
    hardware: str
    boot_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A proved connection that asks to speak for its node."""

    node_id: str
    gateway_id: str
    connection_id: str
    end: End
    server_key: str
    """Ours (public) that the node pins: with it we proved ourselves."""


class Verdict(Enum):
    CLAIMED = auto()
    HELD = auto()
    """An identity conflict: stays connected, is neither heard nor commanded."""
    ELSEWHERE = auto()
    """Another live gateway has it; it was asked to look. Claim again."""
    UNKNOWN = auto()
    RETIRED = auto()
    REVOKED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """To a claim; name, admission and epoch are for the welcome."""

    verdict: Verdict
    name: str = ""
    admission: str = ""
    epoch: int = 1


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a connected node should be told now."""

    identity: Identity
    epoch: int
    desired: Desired | None
    lease: LeaseGrant | LeaseWait | None


def standing_of(identity: Identity | None) -> Verdict | None:
    """Why nobody may speak for this node any more, if so."""
    if identity is None:
        return Verdict.UNKNOWN
    if identity.admission == "retired":
        return Verdict.REVOKED if identity.replaced else Verdict.RETIRED
    return None


def look_up(db: Database, node_ids: Sequence[str]) -> dict[str, Identity]:
    """The nodes that exist."""
    with db.read() as conn:
        return store.identities(conn, node_ids)


def claim(db: Database, claims: Sequence[Claim], now: float) -> list[Answer]:
    """Decide about each claim, in order; one transaction."""
    with db.write(Priority.BACKGROUND) as change:
        known = store.identities(change.conn, [claim.node_id for claim in claims], lock=True)
        live = store.live_gateways(change.conn, now)
        epoch = fleet.epoch(change.conn)
        answers = []
        for each in claims:
            identity = known.get(each.node_id)
            verdict = _decide(change, each, identity, live, now)
            if identity is None:
                answers.append(Answer(verdict))
            else:
                answers.append(Answer(verdict, identity.name, identity.admission, epoch))
    return answers


def _decide(change: Change, claim: Claim, identity: Identity | None, live: set[str], now: float) -> Verdict:
    refusal = standing_of(identity)
    if refusal is not None or identity is None:
        return refusal or Verdict.UNKNOWN
    same_machine = (claim.end.machine_id, claim.end.hardware) == (identity.machine_id, identity.hardware)
    if identity.conflict is not None or not same_machine:
        _record_conflict(change, identity, [claim.end], now)
        return Verdict.HELD
    if identity.gateway_id not in (None, claim.gateway_id) and identity.gateway_id in live:
        store.ask_probe(change.conn, [claim.node_id], now)
        change.touch(f"probe:{claim.node_id}")
        return Verdict.ELSEWHERE
    _come_online(change, claim, identity, now)
    return Verdict.CLAIMED


def _come_online(change: Change, claim: Claim, identity: Identity, now: float) -> None:
    row = {
        "id": claim.node_id,
        "gateway_id": claim.gateway_id,
        "connection_id": claim.connection_id,
        "remote": claim.end.remote,
        "server_key": claim.server_key,
    }
    store.set_online(change.conn, [row], now)
    change.touch(f"node:{claim.node_id}")
    if identity.connection != "online":
        text = f"Connected from {claim.end.remote}"
        events.append(change.conn, node_id=claim.node_id, kind=EventKind.ONLINE, text=text, at=now)
        change.touch("nodes", "fleet", "events")


def hold(db: Database, node_id: str, ends: Sequence[End], now: float) -> None:
    """Two live connections with one key: record the conflict, so that neither is commanded."""
    with db.write(Priority.BACKGROUND) as change:
        identity = store.identities(change.conn, [node_id], lock=True).get(node_id)
        if identity is not None:
            _record_conflict(change, identity, ends, now)


def _record_conflict(change: Change, identity: Identity, ends: Sequence[End], now: float) -> None:
    before: Mapping[str, Any] = identity.conflict or {"since": now, "ends": []}
    shown = [asdict(end) for end in ends]
    known = [end for end in before["ends"] if all(_who(end) != _who(other) for other in shown)]
    conflict = {"since": before["since"], "ends": (known + shown)[-ENDS_SHOWN:]}
    store.set_conflict(change.conn, identity.id, conflict)
    change.touch(f"node:{identity.id}", "nodes", "fleet", f"desired:{identity.id}")
    if identity.conflict is None:
        text = (
            f"Identity conflict: the node's key is used from {_remotes(conflict)}, "
            f"and not only by the machine that joined; nobody using it is heard or commanded"
        )
        events.append(change.conn, node_id=identity.id, kind=EventKind.IDENTITY_CONFLICT, text=text, at=now)
        change.touch("events")


def _who(end: Mapping[str, Any]) -> tuple[Any, ...]:
    return end["remote"], end["machine_id"], end["hardware"], end["boot_id"]


def _remotes(conflict: Mapping[str, Any]) -> str:
    return " and ".join(dict.fromkeys(end["remote"] for end in conflict["ends"]))


@dataclass(frozen=True, slots=True)
class Gone:
    """A connection that ended."""

    node_id: str
    connection_id: str
    seen_at: float


def release(db: Database, gone: Sequence[Gone]) -> None:
    """The connections ended; their nodes turn offline after the grace, unless they come back."""
    with db.write(Priority.BACKGROUND) as change:
        store.release(change.conn, [(each.node_id, each.connection_id, each.seen_at) for each in gone])


def turn_offline(db: Database, seen_before: float, now: float) -> list[str]:
    """Nodes that did not come back within the grace are offline; their ids.

    Only call it when a gateway was up all the time since `seen_before` that could have heard them (rule 4).
    """
    with db.write(Priority.BACKGROUND) as change:
        ids = store.turn_offline(change.conn, seen_before)
        known = store.identities(change.conn, ids)
        retired = {node_id for node_id, identity in known.items() if identity.admission == "retired"}
        for node_id in ids:
            text = "Disconnected, as it is retired" if node_id in retired else "Offline: it did not come back"
            events.append(change.conn, node_id=node_id, kind=EventKind.OFFLINE, text=text, at=now)
            change.touch(f"node:{node_id}")
        if ids:
            change.touch("nodes", "fleet", "events")
    return ids


def outlooks(db: Database, node_ids: Sequence[str], settings: Settings, now: float) -> dict[str, Outlook]:
    """What each node should be told now; nodes that do not exist are missing.

    Who is not admitted, or in a conflict, is told no orders and granted nothing.
    """
    with db.read() as conn:
        epoch = fleet.epoch(conn)
        known = store.identities(conn, node_ids)
        able = [id for id, one in known.items() if one.admission == "admitted" and one.conflict is None]
        # Most nodes have nothing to do, most of the time: for them the order says it all.
        busy = desired.told(conn, sorted(store.with_something_to_do(conn, able)), settings, now)
    found = {}
    for node_id, identity in known.items():
        wish, lease = busy.get(node_id, (None, None))
        if wish is None and identity.admission == "admitted" and identity.conflict is None:
            wish = Desired(order=Order(identity.order_epoch, identity.order_generation))
        found[node_id] = Outlook(identity, epoch, wish, lease)
    return found


def standings(db: Database, gateway_id: str) -> tuple[list[store.Standing], list[str]]:
    """All nodes of this gateway as the database has them, and those that another gateway asks about."""
    with db.read() as conn:
        return store.standings(conn, gateway_id), store.probes(conn, gateway_id)


def is_asked_about(db: Database, node_id: str, connection_id: str) -> bool:
    """Whether another gateway has a second connection of the node and asks whether this one is alive."""
    with db.read() as conn:
        return store.is_asked_about(conn, node_id, connection_id)


# --- the gateway's own row ----------------------------------------------------------------------------------


def start_gateway(db: Database, gateway_id: str, address: str, now: float) -> None:
    """`address` names the listening socket among all on all machines: only one process can have it at a time."""
    with db.write(Priority.BACKGROUND) as change:
        store.start_gateway(change.conn, gateway_id, address, now)
        change.touch("fleet")


def beat(db: Database, gateway_id: str, count: int, now: float) -> None:
    """Alive, with `count` nodes: this is the "last seen" of all of them."""
    with db.write(Priority.BACKGROUND) as change:
        store.beat_gateway(change.conn, gateway_id, count, now)


def stop_gateway(db: Database, gateway_id: str, now: float) -> None:
    """A clean stop."""
    with db.write(Priority.BACKGROUND) as change:
        store.stop_gateway(change.conn, gateway_id, now)
        change.touch("fleet")
