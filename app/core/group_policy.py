"""What a group demands of updates: shares, durations in seconds, windows, gates. Pure; frozen into each rollout."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from app.core.policy import Policy


class Follow(StrEnum):
    """What a move of the group's channel does."""

    DRAFT = "draft"
    """A rollout is drafted and waits for a person."""
    AT_ONCE = "at-once"


class OnFailure(StrEnum):
    HALT = "halt"
    ROLL_BACK = "roll-back"


@dataclass(frozen=True, slots=True)
class Amount:
    """A count of nodes or a share of them; exactly one is set."""

    count: int | None = None
    share: float | None = None
    """Above 0, at most 1."""

    def of(self, size: int) -> int:
        """How many of `size` nodes: a share is rounded down, and is at least one node unless there is none."""
        if self.count is not None:
            return min(self.count, size)
        assert self.share is not None, "exactly one of count and share is set"
        return min(size, max(1, int(self.share * size + 1e-9)))


@dataclass(frozen=True, slots=True)
class Window:
    """When activation may start, in the wall time of `zone`. Rolling back is never bound by it (rule 7)."""

    days: frozenset[int]
    """0 Monday to 6 Sunday: the days on which it opens."""
    opens: str
    """`HH:MM`, wall time."""
    closes: str
    """`HH:MM`; not after `opens`: on the next day."""
    zone: str
    """IANA name, such as Europe/Berlin."""


@dataclass(frozen=True, slots=True)
class PrometheusGate:
    """A query that must return at least one sample, none of them 0, for activation to go on."""

    name: str
    url: str
    query: str
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """Defaults are careful: one canary, one node at a time, halt at the second failure."""

    timing: Policy = field(default_factory=Policy)
    follow: Follow = Follow.DRAFT
    canaries: Amount = Amount(count=1)
    canary_soak_s: float = 1800.0
    """How long after the last canary's own soak the others wait."""
    max_unavailable: Amount = Amount(count=1)
    """Most nodes missing at once, whatever the cause; also the most that are exposed to an unproven version."""
    domain_label: str = ""
    """Label that names the failure domain; empty: none."""
    max_per_domain: int = 0
    """Most nodes of one domain at once; 0: no limit."""
    one_domain_after_another: bool = False
    failure_limit: Amount = Amount(count=1)
    """Stops when more than this many failed; a share is one of those attempted, and never stops before the count
    `failure_least` is reached."""
    failure_least: int = 2
    """With a share: failures below this number never stop the rollout."""
    on_failure: OnFailure = OnFailure.HALT
    windows: tuple[Window, ...] = ()
    """Empty: always open."""
    minimum_age_s: float = 0.0
    """How old an image must be before it is activated."""
    absent_after_s: float = 7 * 86_400.0
    """Nodes offline for longer leave size and budget."""
    health_gate: bool = True
    """Nodes of the group that are up must not be unhealthy beyond the failure limit, else activation waits, but for
    nodes that are unhealthy themselves."""
    prometheus: tuple[PrometheusGate, ...] = ()
    stage_parallel: int = 20
    """Downloads at once."""
    stage_jitter_s: float = 60.0
    """Over which the orders to stage are spread."""
    drain: str = ""
    """Name of the node's own drain command (see docs/drain.md); empty: none."""
    drain_s: float = 300.0
    """Its time limit."""
    mirrors: tuple[str, ...] = ()
    """Base addresses that are asked for `<base>/<digest>` before the control plane."""
    bandwidth_bytes_s: int = 0
    """Most bytes a second for one node's download; 0: no cap."""
