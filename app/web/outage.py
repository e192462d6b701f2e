"""What web remembers for the outage page, while the database cannot be asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Outage:
    """The last moment the database answered, and who held a lease then. Torn reads between threads are harmless."""

    answered_at: float | None = None
    lease_holders: tuple[str, ...] = ()

    def answered(self, now: float) -> None:
        self.answered_at = now

    def leases(self, node_names: tuple[str, ...]) -> None:
        self.lease_holders = node_names
