"""Who belongs to a running rollout: late joiners come in, who left the group or was taken by a newer one goes.

A step of the conductor. Only updates of groups take nodes in; others have the nodes that were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.errors import NotPossible
from app.core.holds import Hold, HoldCode
from app.core.rollout_entry import RETURNS, Out, Targets, elsewhere_out
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.services.rollout_acting import RolloutEventKind, record, tell, touch
from app.services.rollout_groups import elsewhere, entry_targets
from app.services.rollout_jitter import jitter_s
from app.services.rollout_leaving import hold_json, leave, promote, tell_left
from app.services.rollout_orders import take_order
from app.services.rollout_spec import reader, selector_of
from app.services.rollouts import new_row
from app.store import audit, rollout_facts, rollout_nodes, rollout_taken, rollouts
from app.store.database import Change, Database, Priority
from app.store.rollout_facts import Facts
from app.store.rollout_nodes import RolloutNode
from app.store.rollouts import Rollout

_BATCH = 200
_NOT_MOVED = (RolloutNodeState.WAITING, RolloutNodeState.ORDERED)
_OPEN = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)


def take_in(db: Database, now: float) -> int:
    """Bring the nodes of rollouts under way up to their selectors; how many came or went."""
    with db.read() as conn:
        found = rollouts.in_states(conn, _OPEN)
    return sum(_go(db, rollout, now) + _come(db, rollout, now) for rollout in found)


# --- coming -------------------------------------------------------------------------------------------------


def _come(db: Database, rollout: Rollout, now: float) -> int:
    if rollout.state is not RolloutState.RUNNING:
        return 0
    with db.read() as conn:
        newcomers, again = _look(conn, rollout, now)
    if not newcomers and not again:
        return 0
    with db.write(Priority.BACKGROUND) as change:
        current = rollouts.get(change.conn, rollout.id, lock=True)
        if current is None or current.state is not RolloutState.RUNNING:
            return 0
        newcomers, again = _look(change.conn, current, now)
        came = _add(change, current, newcomers, now) + _return(change, current, again, now)
        if came:
            _choose_canaries(change, current, now)
            text = came[0] if len(came) == 1 else f"{came[0]} and {len(came) - 1} more nodes"
            tell(change, current, RolloutEventKind.NODES_CAME, f"{text} came in", now)
            after = {"nodes": came}
            subject = f"rollout:{current.id}"
            audit.append(change.conn, CONDUCTOR, "rollout.take-in", subject, "", None, after, now)
        touch(change, current.id)
    return len(newcomers) + len(again)


def _choose_canaries(change: Change, rollout: Rollout, now: float) -> None:
    """Of those that came, where a rollout that wants canaries has none left: no gate is open for want of them."""
    wanted = rollout.policy.canaries.of(rollout_nodes.not_ended(change.conn, rollout.id))
    if rollout.kind is RolloutKind.UPDATE and wanted and not rollout_nodes.canaries(change.conn, rollout.id):
        promote(change, rollout, wanted, now)


def _look(conn: Connection, rollout: Rollout, now: float) -> tuple[list[Facts], list[Facts]]:
    """Nodes that are not in it yet, and nodes that left it for a reason that is over."""
    selector = selector_of(conn, rollout)
    facts = reader(conn, rollout, now)
    newcomers: list[Facts] = []
    if rollout.kind is RolloutKind.UPDATE and selector is not None:
        newcomers = facts.newcomers(rollout.id, selector, _BATCH)
    return newcomers, returning(conn, rollout, now)


def returning(conn: Connection, rollout: Rollout, now: float) -> list[Facts]:
    """Nodes that left the rollout for a reason that is over, as many as come in again at once."""
    codes = [code.value for code in RETURNS]
    number = rollout.number if rollout.kind is RolloutKind.UPDATE else None
    found = rollout_taken.returnable(conn, rollout.id, number, codes, selector_of(conn, rollout))
    if not found:
        return []
    targets = entry_targets(conn, rollout)
    facts = reader(conn, rollout, now).of([node_id for node_id in found if node_id not in rollout.left_out])
    return [one for one in facts if targets.stays_out(one) is None][:_BATCH]


def _add(change: Change, rollout: Rollout, newcomers: Sequence[Facts], now: float) -> list[str]:
    """Names of those that wait in it now; the others are in it as left, with the reason."""
    wave = rollout_nodes.last_wave(change.conn, rollout.id)
    targets = entry_targets(change.conn, rollout)
    rows = [entry_row(rollout, targets, facts, now) | {"wave": max(wave, 1)} for facts in newcomers]
    added = set(rollout_nodes.add_new(change.conn, rows))
    waits = {row["node_id"] for row in rows if row["state"] == RolloutNodeState.WAITING.value}
    return [facts.name for facts in newcomers if facts.id in added & waits]


def entry_row(rollout: Rollout, targets: Targets, facts: Facts, now: float) -> dict[str, Any]:
    """A node as it comes in: waiting, or out from the beginning, with the reason; as columns."""
    row: dict[str, Any] = new_row(rollout, facts, now)
    if facts.id in rollout.left_out:
        return row | {"state": RolloutNodeState.LEFT.value, "text": "left out by its author", "ended_at": now}
    out = targets.stays_out(facts)
    if out is not None:
        left = {"state": RolloutNodeState.LEFT.value, "text": out.text, "hold": hold_json(out.hold), "ended_at": now}
        return row | left
    return row | {"stage_at": now + jitter_s(rollout.id, facts.id, rollout.policy.stage_jitter_s)}


def _return(change: Change, rollout: Rollout, again: Sequence[Facts], now: float) -> list[str]:
    came = []
    for facts in again:
        row = rollout_nodes.get(change.conn, rollout.id, facts.id)
        if row is None or row.state is not RolloutNodeState.LEFT:
            continue
        stage_at = now + jitter_s(rollout.id, facts.id, rollout.policy.stage_jitter_s)
        values = {"state": RolloutNodeState.WAITING.value, "hold": None, "text": "", "ended_at": None}
        if rollout_nodes.change(change.conn, row, **values, result=None, operation_id=None, stage_at=stage_at):
            came.append(facts.name)
    return came


# --- going --------------------------------------------------------------------------------------------------


def _go(db: Database, rollout: Rollout, now: float) -> int:
    with db.read() as conn:
        gone = rollout_facts.gone(conn, rollout.id, selector_of(conn, rollout), _BATCH)
        taken = (
            rollout_taken.taken_by_newer(conn, rollout.id, rollout.number, _BATCH)
            if rollout.kind is RolloutKind.UPDATE
            else []
        )
        others = elsewhere(conn, rollout)
        waiting = rollout_nodes.in_states(conn, rollout.id, _NOT_MOVED) if others else []
        decided = {row.node_id: others[row.node_id] for row in waiting if row.node_id in others}
        absent = {one.id for one in reader(conn, rollout, now).away(rollout.id, _BATCH) if one.absent}
    why = {node_id: _absent(node_id) for node_id in absent}
    why |= {node_id: _taken(number, newer_id) for node_id, number, newer_id in taken}
    why |= {node_id: _gone(node_id) for node_id in gone}
    why |= {node_id: elsewhere_out(text, node_id) for node_id, text in decided.items()}
    if not why:
        return 0
    with db.write(Priority.BACKGROUND) as change:
        current = rollouts.get(change.conn, rollout.id, lock=True)
        if current is None or current.state not in _OPEN:
            return 0
        left: dict[str, list[RolloutNode]] = {}
        went = {id: why[id].text for id in sorted(why) if _let_go(change, current, id, why[id], left, now)}
        for text, rows in left.items():
            tell_left(change, current, text, rows, now)
        if went:
            record(change, CONDUCTOR, "let-go", current, "", None, {"nodes": went}, now)
    return len(went)


def _absent(node_id: str) -> Out:
    return Out("it counts as absent", Hold(HoldCode.ABSENT, "counts as absent; it goes on when it is back", node_id))


def _taken(number: int, newer_id: str) -> Out:
    return Out(
        f"rollout {number} took it",
        Hold(HoldCode.OTHER_ROLLOUT, f"is with rollout {number}; it comes in again if that does not move it", newer_id),
    )


def _gone(node_id: str) -> Out:
    return Out(
        "it left the group, or the fleet",
        Hold(HoldCode.OTHER_GROUP, "is not of the group; it comes in again when it is", node_id),
    )


def _let_go(
    change: Change, rollout: Rollout, node_id: str, why: Out, left: dict[str, list[RolloutNode]], now: float
) -> bool:
    """Whether it went, or its order is called back for it. `left`: by reason, those that are out now."""
    row = rollout_nodes.get(change.conn, rollout.id, node_id)
    if row is None or row.state not in _NOT_MOVED:
        return False
    try:
        leave(change, CONDUCTOR, rollout, row, why.text, now, why.hold)
    except NotPossible:
        return row.state is RolloutNodeState.ORDERED and take_order(change, rollout, row, why.text, now)
    left.setdefault(why.text, []).append(row)
    return True
