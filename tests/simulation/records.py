"""What the judge remembers of nodes and of what they lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.node import SimNode


@dataclass(eq=False)
class Loss:
    """Replicas of one service on one node that are gone, and not by our doing. `known_at`: None until it could be."""

    node: SimNode
    service: int
    lost_at: float
    known_at: float | None = None
    back_at: float | None = None

    def unknown_at(self, moment: float) -> bool:
        """Whether nobody could have counted with it at that moment."""
        return self.known_at is None or self.known_at >= moment


@dataclass(eq=False)
class Gain:
    """A replica of a service that turned healthy on a node. `known_at`: None until it could be."""

    node: SimNode
    service: int
    at: float
    known_at: float | None = None

    def unknown_at(self, moment: float) -> bool:
        """Whether nobody could have counted it as serving at that moment."""
        return self.known_at is None or self.known_at >= moment


@dataclass(eq=False)
class Span:
    """A node ran this version, confirmed. `until` None: it still does."""

    version: str
    since: float
    until: float | None = None

    def before(self, moment: float) -> float:
        """Seconds of it before that moment."""
        return max(0.0, min(moment, moment if self.until is None else self.until) - self.since)


@dataclass(eq=False)
class Record:
    """What the judge remembers of one node."""

    granted_at: float = 0.0
    """When the lease was granted under which it goes down next, or went down last."""
    live_until: float = 0.0
    """Until when a lease that was delivered to it lives."""
    down_since: float | None = None
    """Not serving, for whatever reason."""
    down_known_at: float | None = None
    unhealthy_known: bool = False
    """The newest that could be known of its checks is that they fail."""
    missing_already: bool = False
    """So it was when its lease was granted: who is missing costs its groups nothing more."""
    ours: bool = False
    """It is down by our doing."""
    failed: set[str] = field(default_factory=set)
    """Versions that did not prove themselves here."""
    confirmed_at: float = 0.0
    """Since when the booted version is confirmed; 0: since before the run."""
    proved: list[Span] = field(default_factory=list)
    """When it ran what, confirmed."""
    brought_by: str = ""
    """Id of the rollout that brought it to what it runs; empty: none, or it came back."""
    safe_slot: str = "A"
    """The slot that a power cut must boot while no lease lives."""
    may_switch: bool = False
    """It went down under a live lease, or on trial."""


def open_span(record: Record, version: str, now: float) -> None:
    close_span(record, now)
    record.proved.append(Span(version, now))


def close_span(record: Record, now: float) -> None:
    if record.proved and record.proved[-1].until is None:
        record.proved[-1].until = now
