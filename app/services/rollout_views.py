"""Rollouts, their targets and what asks for a lease, as plans see them. Pure of the database: rows in, views out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.clocks import counted_since
from app.core.domains import Loss
from app.core.holds import Hold, HoldCode
from app.core.leases import ANSWER_WITHIN_S, Asking
from app.core.planning.words import span
from app.core.rollouts import RolloutState
from app.core.snapshot import RolloutView, TargetView
from app.store import snapshot as store
from app.store.rollouts import Rollout


def rollout_view(
    rollout: Rollout,
    seen: store.Progress,
    images: Mapping[str, Any],
    bad: Mapping[str, str],
    gates: tuple[Hold, ...] = (),
    *,
    now: float,
) -> RolloutView:
    """A rollout as the planner sees it at `now`. One that is rolling back leads each node to what it ran before, so its
    own image is nobody's target any more."""
    back = rollout.state is RolloutState.ROLLING_BACK
    targets = () if back else tuple(target_view(images[id], bad) for id in rollout.targets if id in images)
    waits_since = None
    if rollout.canaries_soaked_at is not None:
        waits_since = counted_since(rollout.canaries_clock_at, rollout.canaries_waited_s, now)
    return RolloutView(
        id=rollout.id,
        name=rollout.name,
        kind=rollout.kind,
        state=rollout.state,
        policy=rollout.policy,
        targets=targets,
        created_at=rollout.created_at,
        reverse=rollout.leads_back,
        allow_downgrade=rollout.allow_downgrade,
        break_glass=rollout.break_glass,
        attempted=seen.attempted,
        failed=seen.failed,
        canaries_left=seen.canaries_left,
        canaries_soaked_at=waits_since if waits_since is not None else seen.canaries_ended_at,
        size=seen.size,
        gates=gates,
    )


def target_view(image: Any, bad: Mapping[str, str]) -> TargetView:
    return TargetView(
        os_id=image.os,
        arch=image.arch,
        version=image.version,
        digest=image.digest,
        created_at=image.created_at,
        withdrawn=image.withdrawn_at is not None,
        bad=bad.get(image.digest, ""),
        must_pass=tuple(image.must_pass or ()),
        not_from=tuple(image.not_from or ()),
    )


def loss_holds(losses: Sequence[Loss], now: float) -> tuple[Hold, ...]:
    """The gate that the loss of a domain shuts (rule 4)."""
    return tuple(
        Hold(
            HoldCode.HEALTH_GATE,
            f"{loss.text}: nothing starts before they are back, or {span(loss.until - now)} have passed",
            f"{loss.label}={loss.value}" if loss.label else "",
            loss.until,
        )
        for loss in losses
    )


def asking_of(row: Any, node_name: str) -> Asking:
    """The newest lease request of an operation."""
    hold = row.hold or {}
    answered = hold.get("nonce") == row.lease_nonce
    return Asking(
        operation_id=row.id,
        node_id=row.node_id,
        node_name=node_name,
        kind=row.kind,
        nonce=row.lease_nonce,
        asked_at=row.lease_asked_at,
        nonce_at=row.lease_nonce_at,
        answered=answered,
        retry_s=float(hold.get("retry_s", 0.0)) if answered else 0.0,
        called_at=hold.get("called_at") if answered else None,
    )


def answerable_until(asking: Asking) -> float:
    """After this its node has given the request up."""
    return asking.nonce_at + ANSWER_WITHIN_S


_KNOWN_CODES = {code.value for code in HoldCode}


def said_of(row: Any, asking: Asking | None) -> Hold | None:
    """Why it is not ready: what it was told when it asked, else what the node itself says."""
    told = row.hold
    if asking is not None and told is not None:
        code = HoldCode(told["code"]) if told["code"] in _KNOWN_CODES else HoldCode.NOT_READY
        return Hold(code, told["text"], told.get("subject", ""), told.get("until"))
    activity = row.activity or {}
    own = activity.get("holds") or ()
    if own:
        return Hold(HoldCode.NOT_READY, own[0]["text"], row.node_id)
    inhibitors = activity.get("inhibitors") or ()
    return Hold(HoldCode.NOT_READY, f"held on the node itself: {inhibitors[0]}", row.node_id) if inhibitors else None
