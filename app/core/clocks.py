"""Clocks that run only while a node's silence could have been heard (rule 4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.core.nodes import Operation
from app.core.policy import Policy
from wire.messages import Phase

GATEWAY_FRESH_S = 15.0
"""Three heartbeats of a gateway: older, and it may be dead."""
STEP_S = 5.0
"""Clocks are written at most this often: deadlines are minutes and hours."""
LONGEST_STEP_S = 30.0
"""What one step may add at most: while no conductor ran, nobody knows who could have been heard."""


@dataclass(frozen=True, slots=True)
class GatewaySeen:
    id: str
    started_at: float
    heartbeat_at: float
    stopped_at: float | None

    def fresh(self, now: float) -> bool:
        """A heartbeat of the future is from before our clock was set back: whoever lives gives another in seconds."""
        return self.stopped_at is None and abs(now - self.heartbeat_at) <= GATEWAY_FRESH_S

    def lost_at(self, now: float) -> float:
        """Since when it cannot hear anybody, when it is not fresh; long ago where our clock cannot tell."""
        at = self.stopped_at if self.stopped_at is not None else self.heartbeat_at
        return at if at <= now else 0.0


def listening(gateways: Mapping[str, GatewaySeen], now: float, policy: Policy) -> bool:
    """Whether some gateway was up long enough that every node could have come back to it."""
    return any(
        gateway.fresh(now) and now - gateway.started_at > policy.reconnect_allowance_s for gateway in gateways.values()
    )


def could_hear(gateways: Mapping[str, GatewaySeen], gateway_id: str | None, now: float, policy: Policy) -> bool:
    """Whether this node's silence means something. `gateway_id`: whose connection it is on, as far as is written.

    A node on a live connection can be heard; one whose gateway died gets the reconnect allowance from then on.
    """
    own = gateways.get(gateway_id) if gateway_id is not None else None
    if own is not None and own.fresh(now):
        return True
    if not listening(gateways, now, policy):
        return False
    return own is None or now - own.lost_at(now) > policy.reconnect_allowance_s


def presumed_gone(gateways: Mapping[str, GatewaySeen], gateway_id: str, now: float, policy: Policy) -> bool:
    """Whether a node still written as online on this gateway is offline: the gateway is dead, and the node did not
    come to another one within allowance and grace."""
    own = gateways.get(gateway_id)
    if own is not None and own.fresh(now):
        return False
    lost_at = own.lost_at(now) if own is not None else 0.0
    patience_s = policy.reconnect_allowance_s + policy.offline_grace_s
    return listening(gateways, now, policy) and now - lost_at > patience_s


def due(clock_at: float | None, now: float) -> bool:
    """Whether the clock is to be written: a step has passed, or it has to begin (anew, after ours was set back)."""
    return clock_at is None or clock_at > now or step_s(clock_at, now) > 0


def step_s(clock_at: float | None, now: float) -> float:
    """How many seconds to count since the clock was last looked at; 0: not yet."""
    if clock_at is None:
        return 0.0
    passed_s = now - clock_at
    return min(passed_s, LONGEST_STEP_S) if passed_s >= STEP_S else 0.0


def counted_since(clock_at: float | None, counted_s: float, now: float) -> float:
    """Since when it would have been counted without a break, by the server's clock as it goes at `now`: a moment that
    stays the same while the clock goes on, and moves with it where it is set."""
    running_s = 0.0 if clock_at is None else min(max(0.0, now - clock_at), LONGEST_STEP_S)
    return now - counted_s - running_s


def deadline_s(operation: Operation, policy: Policy) -> float:
    """How long the operation may stay in its phase while we can hear the node."""
    return {
        # Before it begins, a node may have to keep its way back, which the policy itself asks for.
        Phase.IDLE: policy.stage_deadline_s + policy.keep_way_back_s,
        Phase.STAGING: policy.stage_deadline_s,
        Phase.STAGED: policy.stage_deadline_s,
        Phase.DRAINING: policy.reboot_deadline_s,
        Phase.REBOOTING: policy.reboot_deadline_s,
        # The node goes back by itself at confirm_s; after that it needs time for the reboot.
        Phase.CONFIRMING: policy.confirm_s + policy.reboot_deadline_s,
        # A reboot during the soak starts it over.
        Phase.SOAKING: policy.soak_s + policy.reboot_deadline_s,
        # It tries to go back three times before it stays and calls for a person.
        Phase.ROLLING_BACK: 3 * policy.reboot_deadline_s,
    }[operation.phase]


_TOO_LONG = {
    Phase.IDLE: "did not begin it",
    Phase.STAGING: "did not finish staging",
    Phase.STAGED: "staged it and did not ask for a lease",
    Phase.DRAINING: "did not finish draining",
    Phase.REBOOTING: "did not come back from the reboot",
    Phase.CONFIRMING: "neither confirmed nor went back",
    Phase.SOAKING: "did not end the soak",
    Phase.ROLLING_BACK: "did not come back from going back",
}


def timed_out_text(operation: Operation, policy: Policy) -> str:
    if operation.phase in (Phase.IDLE, Phase.STAGED) and operation.lease_asked_at is not None:
        within = _span(deadline_s(operation, policy))
        return f"the node asked for its lease and was not heard to ask again within {within}; nothing was armed"
    return f"the node {_TOO_LONG[operation.phase]} within {_span(deadline_s(operation, policy))}"


def _span(seconds: float) -> str:
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 120 else f"{seconds:g} s"


def listened_s(gateways: Iterable[GatewaySeen], since: float, now: float) -> float:
    """For how many seconds since then some gateway was up that could have heard a node."""
    heard_s, until = 0.0, since
    for gateway in sorted(gateways, key=lambda each: each.started_at):
        end = min(gateway.stopped_at if gateway.stopped_at is not None else gateway.heartbeat_at, now)
        heard_s += max(0.0, end - max(gateway.started_at, until))
        until = max(until, end)
    return heard_s
