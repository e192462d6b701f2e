"""What operators do with rollouts: each function is one intention, in one transaction with its audit entry and event.

Starting is in app.services.rollout_start, ways back are in app.services.rollout_reverse, what follows from all of it
for the nodes is done by the conductor (rollout_* steps). NotPossible, NotFound and Invalid change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.actors import Actor
from app.core.errors import NotFound, NotPossible
from app.core.nodes import Node
from app.core.rollouts import Move, RolloutKind, RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.core.snapshot import ServiceKey
from app.ids import new_id
from app.services.acting import need
from app.services.floor_overrides import override_within
from app.services.rollout_acting import (
    RolloutEventKind,
    because,
    enter,
    leads_forth,
    locked_rollout,
    not_ended,
    record,
    tell,
)
from app.services.rollout_leaving import leave, replace_canaries
from app.services.rollout_orders import take_back
from app.services.rollout_spec import Resolved, RolloutSpec, members, resolve, rollout_of
from app.services.service_views import check_known
from app.store import bad_versions, fleet, nodes, rollout_facts, rollout_nodes, rollout_seen, rollouts
from app.store.database import Change, Database
from app.store.rollout_seen import Seen
from app.store.rollouts import Rollout
from wire.messages import Phase

# --- composing ----------------------------------------------------------------------------------------------


def draft(db: Database, actor: Actor, spec: RolloutSpec, now: float) -> str:
    """Keep what was composed, moving nothing; returns the rollout's id."""
    need(spec.reason, "Say why: the reason stands with every node that this moves.")
    with db.write() as change:
        return draft_within(change, actor, spec, resolve(change.conn, spec), now).id


def draft_within(
    change: Change,
    actor: Actor,
    spec: RolloutSpec,
    resolved: Resolved,
    now: float,
    *,
    source_id: str | None = None,
    moved_channel_id: str | None = None,
) -> Rollout:
    """As `draft`, within the change of another action."""
    conn = change.conn
    fleet.lock(conn)  # the next number is nobody else's
    rollout = rollout_of(
        spec,
        resolved,
        id=new_id("rollout"),
        number=rollouts.next_number(conn),
        actor=actor.name,
        now=now,
        source_id=source_id,
        moved_channel_id=moved_channel_id,
    )
    rollouts.add(conn, rollout)
    if not rollout.selector:
        _choose(conn, rollout, resolved.node_ids, now)
    tell(change, rollout, RolloutEventKind.DRAFTED, f"Drafted by {actor.name}{because(rollout.reason)}", now)
    record(change, actor, "draft", rollout, rollout.reason, None, _described(rollout), now)
    return rollout


def _choose(conn: Connection, rollout: Rollout, chosen: tuple[str, ...], now: float) -> None:
    found = {facts.id: facts for facts in members(conn, rollout, chosen, now)}
    for node_id in chosen:
        if node_id not in found:
            raise NotFound("admitted node", node_id)
    rollout_nodes.add(conn, [new_row(rollout, facts, now) for facts in found.values()])


def new_row(rollout: Rollout, facts: rollout_facts.Facts, now: float) -> dict[str, object]:
    """A node as it comes in, waiting in wave 1; as columns."""
    return {
        "rollout_id": rollout.id,
        "node_id": facts.id,
        "state": RolloutNodeState.WAITING.value,
        "wave": 1,
        "canary": False,
        "text": "",
        "hold": None,
        "old_version": facts.version,
        "old_digest": facts.digest,
        "old_slot": facts.slot,
        "added_at": now,
        "stage_at": None,
        "ended_at": None,
    }


def _described(rollout: Rollout) -> dict[str, object]:
    return {
        "number": rollout.number,
        "kind": rollout.kind.value,
        "group": rollout.group_name,
        "targets": list(rollout.targets),
        "version": rollout.version,
        "allowances": rollouts.keys_json(rollout.allowances),
        "left_out": list(rollout.left_out),
        "allow_downgrade": rollout.allow_downgrade,
        "break_glass": rollout.break_glass,
        "source": rollout.source_id,
    }


# --- its life -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StillFinishing:
    """Nodes that finish although their rollout stops: what is armed cannot be called back."""

    node_id: str
    name: str
    text: str


def pause(db: Database, actor: Actor, rollout_id: str, reason: str, now: float) -> list[StillFinishing]:
    """No node arms any more; staging goes on. Returns the nodes that will still finish."""
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        enter(change, actor, rollout, Move.PAUSE, f"Paused by {actor.name}{because(reason)}", reason, now)
    take_back(db, now)
    return still_finishing(db, rollout_id)


def resume(db: Database, actor: Actor, rollout_id: str, reason: str, now: float) -> None:
    """Go on. After a halt, failures so far are forgiven, and canaries that failed get successors."""
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        no_bad_target(change.conn, rollout)
        was_halted = rollout.state is RolloutState.HALTED
        if was_halted:
            need(reason, "Say why it may go on after it was halted.")
        text = f"Resumed by {actor.name}{because(reason)}"
        kind = RolloutEventKind.RESUMED_FROM_HALT if was_halted else RolloutEventKind.RESUMED
        enter(change, actor, rollout, Move.RESUME, text, reason, now, kind=kind, moved_at=now)
        if was_halted:
            replace_canaries(change, rollout, now, failed_too=True)


def abort(db: Database, actor: Actor, rollout_id: str, reason: str, now: float) -> list[StillFinishing]:
    """It ends where it is: nodes that have not armed stay on what they run. Returns those that will still finish."""
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        enter(change, actor, rollout, Move.ABORT, f"Aborted by {actor.name}{because(reason)}", reason, now)
    take_back(db, now)
    return still_finishing(db, rollout_id)


def roll_back(
    db: Database, actor: Actor, rollout_id: str, reason: str, now: float, *, override_floor: bool = False
) -> None:
    """All its nodes that moved go back; those that have not stay. One that has ended: see rollout_reverse.reverse.
    `override_floor`: although services fall below their floors (app.services.floor_overrides)."""
    need(reason, "Say why it is rolled back.")
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        if rollout.kind is RolloutKind.REBOOT:
            raise NotPossible("no-way-back", "A reboot changed no version: there is nothing to roll back. Abort it.")
        leads_forth(change.conn, rollout)
        text = f"Rolled back by {actor.name}{because(reason)}"
        enter(change, actor, rollout, Move.ROLL_BACK, text, reason, now, moved_at=now)
        if override_floor:
            override_within(change, actor, rollout, reason, now)
    take_back(db, now)


# --- while it is under way ----------------------------------------------------------------------------------


def set_break_glass(db: Database, actor: Actor, rollout_id: str, on: bool, reason: str, now: float) -> None:
    """Whether it passes freezes and windows."""
    need(reason, "Say why: passing a freeze is what others will ask about.")
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        not_ended(rollout)
        if rollout.break_glass == on:
            raise NotPossible("no-change", f"That is so already with rollout {rollout.number}.")
        rollouts.change(change.conn, rollout.id, break_glass=on)
        word = "Passes freezes and windows" if on else "Heeds freezes and windows again"
        tell(change, rollout, RolloutEventKind.CHANGED, f"{word}, by {actor.name}{because(reason)}", now)
        before, after = {"break_glass": rollout.break_glass}, {"break_glass": on}
        record(change, actor, "break-glass", rollout, reason, before, after, now)


def leave_out(db: Database, actor: Actor, rollout_id: str, node_id: str, reason: str, now: float) -> None:
    """The node stays as it is; NotPossible once it is armed, or has come to its end."""
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        not_ended(rollout)
        row = rollout_nodes.get(change.conn, rollout.id, node_id)
        known = row if row is not None else _of_draft(change.conn, rollout, node_id)
        if known is None:
            raise NotFound("node of this rollout", node_id)
        if row is not None:
            words = f"left out by {actor.name}{because(reason)}"
            if row.state is RolloutNodeState.LEFT and row.hold is not None:  # it would have come in again
                rollout_nodes.change(change.conn, row, text=words, hold=None)
            else:
                leave(change, actor, rollout, row, words, now)
        left_out = list(dict.fromkeys([*rollout.left_out, node_id]))
        rollouts.change(change.conn, rollout.id, left_out=left_out)
        text = f"{known.name} is left out by {actor.name}{because(reason)}"
        tell(change, rollout, RolloutEventKind.NODE_LEFT, text, now, actor=actor.name, node_id=node_id)
        before, after = {"left_out": list(rollout.left_out)}, {"left_out": left_out}
        record(change, actor, "leave-out", rollout, reason, before, after, now)


def _of_draft(conn: Connection, rollout: Rollout, node_id: str) -> Node | None:
    """A draft of a group has no rows yet: any node may be left out of it."""
    return nodes.get(conn, node_id) if rollout.state is RolloutState.DRAFT else None


def allow_single(db: Database, actor: Actor, rollout_id: str, service: ServiceKey, reason: str, now: float) -> None:
    """The single replica of this service may move in this rollout: it is away meanwhile."""
    need(reason, "Say why the service may be away: its users will ask.")
    with db.write() as change:
        rollout = locked_rollout(change, rollout_id)
        not_ended(rollout)
        check_known(change.conn, [service])
        allowances = rollout.allowances | {service}
        rollouts.change(change.conn, rollout.id, allowances=rollouts.keys_json(allowances))
        name = f"{service[0]}/{service[1]}" if service[0] else service[1]
        text = f"The single replica of {name} may move, by {actor.name}{because(reason)}"
        tell(change, rollout, RolloutEventKind.CHANGED, text, now, actor=actor.name)
        before = {"allowances": rollouts.keys_json(rollout.allowances)}
        after = {"allowances": rollouts.keys_json(allowances)}
        record(change, actor, "allow-single", rollout, reason, before, after, now)
        change.touch("services")


def still_finishing(db: Database, rollout_id: str) -> list[StillFinishing]:
    """Nodes whose orders, or whose orders to go back, are beyond being called back: those that have armed, and those
    that have their lease and cannot be told."""
    with db.read() as conn:
        found = rollout_seen.under_way(conn, rollout_id) + rollout_seen.under_way_back(conn, rollout_id)
    return [StillFinishing(seen.row.node_id, seen.row.name, _finishing(seen)) for seen in found if _beyond(seen)]


def _beyond(seen: Seen) -> bool:
    return seen.phase in ARMED or seen.phase is Phase.SOAKING or (seen.holds_lease and not seen.online)


def _finishing(seen: Seen) -> str:
    if seen.phase not in ARMED and seen.phase is not Phase.SOAKING:
        return "is not connected and has its lease: it may still arm, or has"
    return {
        Phase.DRAINING: "is being drained for its reboot",
        Phase.REBOOTING: "is rebooting",
        Phase.CONFIRMING: "is on trial",
        Phase.SOAKING: "soaks",
        Phase.ROLLING_BACK: "is going back by itself",
    }[seen.phase]


def no_bad_target(conn: Connection, rollout: Rollout) -> None:
    """NotPossible when it leads to a version that is withdrawn or bad fleet-wide."""
    for target in rollout_facts.targets(conn, rollout.targets):
        if target.withdrawn:
            raise NotPossible("withdrawn", f"{target.version} is withdrawn: the rollout cannot go on.")
        found = bad_versions.get(conn, target.digest)
        if found is not None:
            text = f"{target.version} is bad fleet-wide: {found.reason}. Clear the version first."
            raise NotPossible("bad-version", text)
