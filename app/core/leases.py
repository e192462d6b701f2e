"""Leases: what a request is, when its node asks again, and when budget returns (rule 3). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.clocks import GATEWAY_FRESH_S
from app.core.policy import Policy
from app.core.slots import ARMED
from wire.messages import Phase

ANSWER_WITHIN_S = 9.0
"""Agents give a request up after 10 seconds and ask anew; an answer later than this would be for nobody."""
SHORT_RETRY_S = 5.0
"""For who is next: budget that became free lies idle no longer than this."""
LONG_RETRY_S = 600.0
"""For the end of a long queue: ten thousand waiting nodes ask some seventeen times a second in all. Whose turn comes
earlier is called."""
_RETRY_STEP_S = 5.0
_ASKS_PER_S = 10.0
"""Of all that wait: each request costs the gateway and the conductor a transaction, and changes nothing."""
_LATE_S = 20.0
"""Beyond its announced time a node may be this late with its next request before its turn goes to another."""
_CALLED_S = 10.0
"""Who was called and has not asked by then is passed over; a connected node asks at once."""


@dataclass(frozen=True, slots=True)
class Asking:
    """An operation that waits for a lease. `answered`: its newest request was told to wait."""

    operation_id: str
    node_id: str
    node_name: str
    kind: str
    nonce: str
    asked_at: float
    """The first request of the operation."""
    nonce_at: float
    """The newest request."""
    answered: bool
    retry_s: float
    called_at: float | None = None
    """When it was told that its turn has come, and to ask again."""

    def is_called(self, now: float) -> bool:
        """Whether its request is on its way to us: its room is kept."""
        return self.called_at is not None and 0 <= now - self.called_at <= _CALLED_S

    def waits(self, now: float) -> bool:
        """Whether it is still asking, as far as can be known."""
        if self.called_at is not None:
            return self.is_called(now)
        announced_s = self.retry_s if self.answered else ANSWER_WITHIN_S
        return now - self.nonce_at <= announced_s + _LATE_S

    def asks_later(self, now: float) -> bool:
        """Whether it was told to wait for longer than it may be left alone when its turn has come."""
        return (
            self.answered
            and self.called_at is None
            and self.waits(now)
            and self.nonce_at + self.retry_s > now + SHORT_RETRY_S
        )

    def can_be_answered(self, now: float) -> bool:
        return not self.answered and now - self.nonce_at <= ANSWER_WITHIN_S


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that still costs budget, and its node as last seen."""

    id: str
    operation_id: str
    operation_open: bool
    node_id: str
    node_name: str
    duration_s: float
    old_boot_id: str
    granted_at: float
    counted_s: float
    """Since the grant, by steps: a jump of the server's clock ends no lease early or late."""
    counted_at: float | None
    boot_id: str
    phase: str
    on_trial: bool
    booted_good: bool
    retired: bool
    seen_at: float | None
    """While it is connected: its gateway's newest heartbeat."""


def retry_s(place: int, waiting: int = 0) -> float:
    """When a node that is told to wait asks again: the later, the more are answered before it at this moment (`place`)
    and the more wait in all (`waiting`), most of whom are not answered now because they asked before."""
    return min(SHORT_RETRY_S + place * _RETRY_STEP_S + waiting / _ASKS_PER_S, LONG_RETRY_S)


def reason_to_return(held: Held, now: float, policy: Policy) -> str | None:
    """Why the budget of this lease returns now; None while the node may still be down under it.

    Expiry alone never returns it: a node that took long to shut down is down all the same.
    """
    if held.retired:
        return "the node was retired"
    if not held.boot_id:
        return None
    if held.boot_id != held.old_boot_id:
        settled = not held.on_trial and held.phase not in ARMED
        confirmed = held.phase == Phase.SOAKING or (settled and (held.booted_good or not held.operation_open))
        return "seen confirmed on its new boot" if confirmed else None
    # Over for so long that a gateway's heartbeat that is fresh now has come after it.
    over = held.counted_s > held.duration_s + policy.reboot_deadline_s + GATEWAY_FRESH_S
    if over and held.seen_at is not None and abs(now - held.seen_at) <= GATEWAY_FRESH_S:
        return "seen on the same boot after the lease and its shutdown limit"
    return None
