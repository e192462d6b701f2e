"""What the operations of a rollout's nodes show, written down, and judged in the same transaction. Conductor steps.

Judged at once, because a canary that failed must shut the gate before anybody else can be admitted through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.canaries import Standing
from app.core.clocks import LONGEST_STEP_S
from app.core.group_policy import OnFailure
from app.core.rollout_ends import CALLED_BACK, ENDS, Tally, blames_version, nothing_attempted, stops
from app.core.rollout_entry import offline_hold
from app.core.rollouts import Move, RolloutKind, RolloutNodeState, RolloutState
from app.core.slots import ARMED
from app.services import rollout_canaries
from app.services.rollout_acting import RolloutEventKind, enter, tell, touch
from app.services.rollout_leaving import end_text, hold_json, replace_canaries, stopped_before, tell_end, tell_stayed
from app.services.rollout_turns import tell_passed_over
from app.services.version_failures import remember_bad
from app.store import canary_clocks, rollout_facts, rollout_nodes, rollout_seen, rollouts
from app.store.database import Change, Database, Priority
from app.store.rollout_seen import Seen
from app.store.rollouts import Rollout
from wire.messages import Phase, Result

_BATCH = 200
_JUDGED = (RolloutState.RUNNING, RolloutState.PAUSED)


def observe(db: Database, now: float) -> int:
    """Bring the rows of nodes up to what their operations show; how many changed."""
    with db.read() as conn:
        found = rollout_seen.behind(conn, _BATCH)
    by_rollout = sorted(found, key=lambda seen: seen.row.rollout_id)
    return sum(
        _write_down(db, rollout_id, list(some), now)
        for rollout_id, some in groupby(by_rollout, key=lambda seen: seen.row.rollout_id)
    )


def _write_down(db: Database, rollout_id: str, found: Sequence[Seen], now: float) -> int:
    with db.write(Priority.BACKGROUND) as change:
        rollout = rollouts.get(change.conn, rollout_id, lock=True)
        if rollout is None:
            return 0
        changed = {seen.row.node_id: values for seen in found if (values := _apply(change, rollout, seen, now))}
        if changed:
            if any(values.get("text") == stopped_before(rollout) for values in changed.values()):
                tell_stayed(change, rollout, now)
            if any("operation_id" not in values for values in changed.values()):  # who waits again got no further
                rollouts.note_movement(change.conn, rollout.id, now)
            touch(change, rollout.id)
            change.touch(*(f"node:{node_id}" for node_id in changed))
            replace_canaries(change, rollout, now)
            _judge(change, rollout, now)
            if any(values.get("state") == RolloutNodeState.FAILED.value for values in changed.values()):
                targets = rollout_facts.targets(change.conn, rollout.targets)
                remember_bad(change, [target.digest for target in targets], now)
    return len(changed)


def _apply(change: Change, rollout: Rollout, seen: Seen, now: float) -> dict[str, Any]:
    """The columns that were changed."""
    values = _under_way(seen, now) if seen.open else _ended(rollout, seen, now)
    if not values or not rollout_nodes.change(change.conn, seen.row, **values):
        return {}
    if values.get("state") == RolloutNodeState.FAILED.value:
        text = f"{seen.row.name}: {values['text']}"
        tell(change, rollout, RolloutEventKind.NODE_FAILED, text, now, node_id=seen.row.node_id)
    elif values.get("state") == RolloutNodeState.LEFT.value:
        tell_end(change, rollout, seen.row, values["text"], now)
    return values


def _under_way(seen: Seen, now: float) -> dict[str, Any]:
    """Columns that change, of a node whose operation is open."""
    row, since = seen.row, seen.phase_at or now
    beyond = seen.phase in ARMED or seen.phase is Phase.SOAKING
    if beyond or (seen.holds_lease and row.state is not RolloutNodeState.WAITING):
        soaks = seen.phase is Phase.SOAKING
        return {
            "state": RolloutNodeState.MOVING.value,
            "hold": None,
            "staged_at": row.staged_at or seen.granted_at or since,
            "moving_at": row.moving_at or seen.granted_at or since,
            "confirmed_at": (row.confirmed_at or since) if soaks else None,
        }
    if row.state is RolloutNodeState.MOVING:  # its lease came back unused
        return {"state": RolloutNodeState.ORDERED.value, "moving_at": None, "confirmed_at": None}
    return {"staged_at": row.staged_at or since} if row.state is RolloutNodeState.ORDERED else {}


def _ended(rollout: Rollout, seen: Seen, now: float) -> dict[str, Any]:
    row, result = seen.row, seen.result or Result.UNKNOWN
    if _goes_on(rollout) and _called_back(seen) and _taken_back(seen, result):
        return {**_WAITS_AGAIN, "moving_at": None}
    if _goes_on(rollout) and not seen.cancel_asked and _waited_in_vain(rollout, seen, result):
        return {**_WAITS_AGAIN, "hold": None if seen.online else hold_json(offline_hold(row.node_id))}
    if result is Result.TIMED_OUT and (_taken_back(seen, result) or _waited_in_vain(rollout, seen, result)):
        result = Result.CANCELLED  # nothing was attempted with it
    state = ENDS[result]
    values: dict[str, Any] = {
        "state": state.value,
        "result": result.value,
        "text": end_text(rollout, seen, result),
        "hold": None,
        "ended_at": seen.ended_at or now,
        "moving_at": row.moving_at or seen.granted_at,
    }
    if state is RolloutNodeState.DONE:
        values["staged_at"] = row.staged_at or seen.granted_at
        values["confirmed_at"] = row.confirmed_at or seen.ended_at or now
    return values


_WAITS_AGAIN = {
    "state": RolloutNodeState.WAITING.value,
    "operation_id": None,
    "ordered_at": None,
    "staged_at": None,
    "text": "",
}
"""It is ordered anew when it is seen again."""


def _waited_in_vain(rollout: Rollout, seen: Seen, result: Result) -> bool:
    """A way back judges no version, and is owed to a node also when it was gone before it began."""
    asked = seen.asked or rollout.leads_back
    return nothing_attempted(result, seen.phase, asked=asked, had_lease=seen.granted_at is not None)


def _called_back(seen: Seen) -> bool:
    """By its rollout: it waits since, also where it was on its way to arm at that moment and then did not."""
    unarmed = seen.phase not in ARMED and seen.phase is not Phase.SOAKING
    return seen.row.state is RolloutNodeState.WAITING or (unarmed and seen.row.text == CALLED_BACK)


def _taken_back(seen: Seen, result: Result) -> bool:
    """We called it back ourselves: also where the node, which never had a lease, was not heard of since."""
    unheard = result is Result.TIMED_OUT and seen.cancel_asked and seen.granted_at is None
    return result is Result.CANCELLED or unheard


def _goes_on(rollout: Rollout) -> bool:
    return rollout.state in (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)


# --- judging ------------------------------------------------------------------------------------------------


def judge(db: Database, now: float) -> int:
    """Stop rollouts whose image was withdrawn or became bad, note when the last canary has soaked and which failure
    domains were passed over; how many were looked at."""
    with db.read() as conn:
        open_ones = rollouts.in_states(conn, _JUDGED)
        due = [rollout for rollout in open_ones if _worth_a_look(conn, rollout)]
    for found in due:
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, found.id, lock=True)
            if rollout is not None:
                _judge(change, rollout, now)
    tell_passed_over(db, open_ones, now)
    return len(due)


def _worth_a_look(conn: Connection, rollout: Rollout) -> bool:
    if _stopped_by(conn, rollout) is not None:
        return True
    return rollout.canaries_soaked_at is None and _soaked_at(conn, rollout) is not None


def watch_canaries(db: Database, now: float) -> int:
    """What becomes of canaries between their own soak and the opening of the gate, written down and judged; of how
    many rollouts."""
    with db.read() as conn:
        unwell = rollout_canaries.unwell(conn, rollouts.in_states(conn, _JUDGED), now)
    due = [
        rollout_id
        for rollout_id, found in unwell.items()
        if any(one.verdict.standing is not Standing.AWAY for one in found)
    ]
    for rollout_id in due:
        with db.write(Priority.BACKGROUND) as change:
            rollout = rollouts.get(change.conn, rollout_id, lock=True)
            if rollout is not None:
                _judge(change, rollout, now)
    return len(due)


def _judge(change: Change, rollout: Rollout, now: float) -> None:
    if rollout.state not in _JUDGED or rollout.kind is RolloutKind.ROLLBACK:
        return
    conn = change.conn
    well = rollout_canaries.write_down(change, rollout, now)
    why = _stopped_by(conn, rollout)
    if why is not None:
        _stop(change, rollout, why, now)
        return
    soaked_at = _soaked_at(conn, rollout)
    if soaked_at is None or not well:
        return
    waited_s = min(max(0.0, now - soaked_at), LONGEST_STEP_S)
    if canary_clocks.begin(conn, rollout.id, min(soaked_at, now), waited_s, now):
        text = "All canaries have soaked"
        tell(change, rollout, RolloutEventKind.CANARIES_SOAKED, text, now)


def _stopped_by(conn: Connection, rollout: Rollout) -> str | None:
    """Why it has to stop, as a sentence; None while it may go on."""
    if rollout.kind is RolloutKind.ROLLBACK:
        return None
    return _shunned(conn, rollout) or _failing(conn, rollout)


def _shunned(conn: Connection, rollout: Rollout) -> str | None:
    for target in rollout_facts.targets(conn, rollout.targets):
        if target.withdrawn:
            return f"{target.version} was withdrawn"
        if target.bad:
            return f"{target.version} is bad fleet-wide: {target.bad}"
    return None


def _failing(conn: Connection, rollout: Rollout) -> str | None:
    return stops(rollout.policy, _tally(conn, rollout))


def _tally(conn: Connection, rollout: Rollout) -> Tally:
    forgiven = rollouts.last_event(conn, rollout.id, RolloutEventKind.RESUMED_FROM_HALT.value)
    return rollout_nodes.tally(conn, rollout.id, forgiven)


def _stop(change: Change, rollout: Rollout, why: str, now: float) -> None:
    failing = rollout.kind is RolloutKind.UPDATE and blames_version(rollout.policy, _tally(change.conn, rollout))
    back = failing and rollout.policy.on_failure is OnFailure.ROLL_BACK
    by, words = (Move.ROLL_BACK, "Rolls back") if back else (Move.HALT, "Halted")
    enter(change, CONDUCTOR, rollout, by, f"{words}: {why}", why, now, moved_at=now)
    change.touch("attention")


def _soaked_at(conn: Connection, rollout: Rollout) -> float | None:
    """When the last canary had proved itself; None while one has not, or where there are none."""
    canaries = rollout_nodes.canaries(conn, rollout.id)
    proved = [row.ended_at for row in canaries if row.state is RolloutNodeState.DONE and row.ended_at is not None]
    return max(proved) if canaries and len(proved) == len(canaries) else None
