"""Canaries that are through are watched until the others may go: a gate opens on what is seen, not on what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from app.core.actors import CONDUCTOR
from app.core.canaries import Standing, Verdict, Watched, judged
from app.core.clocks import GatewaySeen, listened_s
from app.core.nodes import Admission
from app.core.nodes import Connection as Connected
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.services import domain_losses
from app.services.rollout_acting import RolloutEventKind, record, tell, touch
from app.services.rollout_leaving import promote
from app.store import canary_watch, failed_versions, gateways, operations, rollout_facts, rollout_nodes
from app.store.database import Change
from app.store.rollout_nodes import RolloutNode
from app.store.rollouts import Rollout
from wire.messages import HealthState

_WATCHED = (RolloutState.RUNNING, RolloutState.PAUSED)


@dataclass(frozen=True, slots=True)
class Unwell:
    """A canary that keeps the gate shut."""

    node_id: str
    name: str
    verdict: Verdict

    @property
    def text(self) -> str:
        return f"waits for canary {self.name}, which {self.verdict.text}"


def still_waited_for(rollout: Rollout) -> bool:
    """Whether others of it wait for its canaries, or for the time after them that was counted while they were well."""
    if rollout.state not in _WATCHED or rollout.kind is RolloutKind.ROLLBACK:
        return False
    if rollout.policy.canaries.count == 0:
        return False
    return rollout.canaries_soaked_at is None or rollout.canaries_waited_s < rollout.policy.canary_soak_s


def unwell(
    conn: Connection, found: Sequence[Rollout], now: float, seen: Mapping[str, GatewaySeen] | None = None
) -> dict[str, list[Unwell]]:
    """By rollout, of those whose others still wait: canaries that are through and cannot be seen to be well now."""
    waiting = {rollout.id: rollout for rollout in found if still_waited_for(rollout)}
    rows = canary_watch.through(conn, sorted(waiting))
    if not rows:
        return {}
    seen = gateways.all_seen(conn) if seen is None else seen
    away = [row for row in rows if row.connection != Connected.ONLINE.value]
    lost = {node_id for loss in domain_losses.current(conn, now) for node_id in loss.nodes} if away else set()
    targets = {
        id: {target.digest for target in rollout_facts.targets(conn, rollout.targets)}
        for id, rollout in waiting.items()
    }
    bad: dict[str, list[Unwell]] = {}
    for row in rows:
        gateway = seen.get(row.gateway_id) if row.gateway_id is not None else None
        offline = row.connection != Connected.ONLINE.value and row.last_seen_at is not None
        silent = offline and row.node_id not in lost  # what its whole domain went through says nothing of the node
        canary = Watched(
            taken=row.admission != Admission.ADMITTED.value or row.lost_at is not None or bool(row.led_on),
            online=row.connection == Connected.ONLINE.value and gateway is not None and gateway.fresh(now),
            healthy=row.health_state != HealthState.UNHEALTHY.value,
            on_trial=bool(row.trial),
            digest=row.booted_digest or "",
            version=row.version or "",
            silent_s=listened_s(seen.values(), row.last_seen_at, now) if silent else 0.0,
        )
        grace_s = waiting[row.rollout_id].policy.timing.reboot_deadline_s
        verdict = judged(canary, targets[row.rollout_id], grace_s)
        if verdict.standing is not Standing.WELL:
            bad.setdefault(row.rollout_id, []).append(Unwell(row.node_id, row.name, verdict))
    return bad


def write_down(change: Change, rollout: Rollout, now: float) -> bool:
    """Of the locked rollout: canaries that failed after their soak have failed, and those that were taken elsewhere
    are none any more, others take their place; whether all that are through are well."""
    found = unwell(change.conn, [rollout], now).get(rollout.id, [])
    led_on = 0
    for one in found:
        row = rollout_nodes.get(change.conn, rollout.id, one.node_id)
        if row is None or one.verdict.standing is Standing.AWAY:
            continue
        if one.verdict.standing is Standing.LED_ON:
            led_on += _judged(change, rollout, row, one.verdict, now, canary=False)
        elif one.verdict.result is not None:
            _fail(change, rollout, row, one.verdict, now)
        touch(change, rollout.id)
    if led_on:
        promote(change, rollout, led_on, now)
    return not found


def _judged(
    change: Change, rollout: Rollout, row: RolloutNode, verdict: Verdict, now: float, **values: str | float | bool
) -> bool:
    """The conductor takes back what the canary had proved: for it, alone, nobody else is the author."""
    if not rollout_nodes.change(change.conn, row, **values):
        return False
    before, after = (
        {"node": row.node_id, "state": row.state.value, "canary": row.canary},
        {"node": row.node_id, **values},
    )
    record(change, CONDUCTOR, "canary", rollout, f"{row.name} {verdict.text}", before, after, now)
    return True


def _fail(change: Change, rollout: Rollout, row: RolloutNode, verdict: Verdict, now: float) -> None:
    assert verdict.result is not None, "it failed"
    failed: dict[str, str | float | bool] = {"state": RolloutNodeState.FAILED.value, "result": verdict.result.value}
    if not _judged(change, rollout, row, verdict, now, **failed, text=verdict.text, ended_at=now):
        return
    text = f"{row.name}: {verdict.text}"
    tell(change, rollout, RolloutEventKind.NODE_FAILED, text, now, node_id=row.node_id)
    change.touch(f"node:{row.node_id}")
    order = operations.get(change.conn, row.operation_id) if row.operation_id is not None else None
    if order is not None and order.target_digest and rollout.kind is RolloutKind.UPDATE:
        of = (row.node_id, order.target_digest, order.target_version)
        failed_versions.remember(change.conn, *of, verdict.text, order.id, now)
        change.touch("images")
