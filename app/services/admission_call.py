"""Calling nodes that were told to wait: room that came free does not lie idle until somebody happens to ask again.

A call grants nothing: the node asks, and its request is decided like any other. A call that is lost costs the time
until the node asks by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.core.holds import HoldCode
from app.core.leases import Asking
from app.core.planner import Standing
from app.core.planning.admission import admit_ready
from app.core.planning.gates import Gates
from app.core.planning.room import Room
from app.services.admission_view import FleetView
from app.store import operations
from app.store.database import Database, Priority

CALL_S = 2.0
"""Between two looks: each goes over all that wait."""
_MOST = 500
"""Calls of one look: what all of them ask is granted before anybody gives up waiting for it."""
_BATCH = 200
_TURN = {"code": HoldCode.NOT_READY.value, "text": "its turn has come: it is asked to ask again", "retry_s": 0.0}


def call(db: Database, view: FleetView, standing: Standing, now: float, granted: Collection[int] = ()) -> int:
    """Ask those to ask again that would be admitted now if they did; how many were called.

    `granted`: places of candidates that have their leases since the view was made.
    """
    gates = Gates(standing)
    room = Room(standing, gates)
    waiting = _may_go(view, standing, gates, room, now)
    if not waiting:
        return 0
    beside = _coming(view, standing, now).union(granted)
    admitted = admit_ready(standing, gates, room, waiting.keys(), beside=beside).admitted
    called = [waiting[place] for place in admitted if place in waiting][:_MOST]
    for start in range(0, len(called), _BATCH):
        _call_some(db, called[start : start + _BATCH], now)
    return len(called)


def _coming(view: FleetView, standing: Standing, now: float) -> set[int]:
    """Those that were called and have not asked yet: what is free is theirs."""
    called = {id for id, asking in view.asking.items() if asking.is_called(now)}
    if not called:
        return set()
    return {place for place, candidate in enumerate(standing.candidates) if candidate.operation_id in called}


def _may_go(view: FleetView, standing: Standing, gates: Gates, room: Room, now: float) -> dict[int, Asking]:
    """Those that wait, by place, without whole rollouts in which it is nobody's turn: ten thousand may wait for a
    canary, a window, or for others to soak, and looking each of them over takes most of a second."""
    shut: dict[tuple[int, bool], bool] = {}
    found: dict[int, Asking] = {}
    for place, candidate in enumerate(standing.candidates):
        asking = view.asking.get(candidate.operation_id)
        if asking is None or not asking.asks_later(now):
            continue
        rollout, kind = standing.rollouts[candidate.rollout], (candidate.rollout, candidate.canary)
        if kind not in shut:
            shut[kind] = bool(gates.not_running(rollout) or gates.canaries(candidate))
        full = room.left[room.rollouts_at + candidate.rollout] <= 0
        exposes = standing.nodes[candidate.node].exposed_to != rollout.id
        if not (shut[kind] or (full and exposes) or gates.timed(candidate.rollout, candidate.node)):
            found[place] = asking
    return found


def _call_some(db: Database, called: Sequence[Asking], now: float) -> None:
    with db.write(Priority.BACKGROUND) as change:
        free = operations.claim(change.conn, [asking.operation_id for asking in called])
        for asking in called:
            told = {**_TURN, "nonce": asking.nonce, "called_at": now}
            if asking.operation_id in free and operations.answer_to_wait(
                change.conn, asking.operation_id, asking.nonce, told
            ):
                change.touch(f"desired:{asking.node_id}")
