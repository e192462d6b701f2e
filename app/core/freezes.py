"""Freezes: decisions that nothing is activated for a while, in the fleet or in a group. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from app.core.holds import Hold, HoldCode


@dataclass(frozen=True, slots=True)
class Freeze:
    id: str
    group_id: str | None
    """None: the whole fleet."""
    group_name: str
    actor: str
    reason: str
    starts_at: float
    ends_at: float | None
    """None: until somebody lifts it."""
    lifted_at: float | None = None
    lifted_by: str | None = None
    lifted_reason: str | None = None

    def holds_at(self, now: float) -> bool:
        return self.lifted_at is None and self.starts_at <= now and (self.ends_at is None or now < self.ends_at)

    @property
    def what(self) -> str:
        return f"group “{self.group_name}”" if self.group_id is not None else "the whole fleet"


def freeze_hold(freezes: Iterable[Freeze], group_ids: Collection[str], now: float) -> Hold | None:
    """What holds nodes of these groups now, with the moment at which no freeze holds them any more."""
    binding = [each for each in freezes if each.group_id is None or each.group_id in group_ids]
    holding = [each for each in binding if each.holds_at(now)]
    if not holding:
        return None
    speaks = max(holding, key=lambda each: (each.ends_at is None, each.ends_at or 0.0, each.group_id is None))
    return Hold(
        HoldCode.FREEZE,
        f"{speaks.what} is frozen by {speaks.actor}: “{speaks.reason}”",
        subject=speaks.group_id or "",
        until=_end(binding, now),
    )


def _end(binding: Collection[Freeze], now: float) -> float | None:
    """When the last of those that follow each other without a gap is over; None: when somebody lifts one."""
    while True:
        holding = [each.ends_at for each in binding if each.holds_at(now)]
        if not holding:
            return now
        if None in holding:
            return None
        now = max(end for end in holding if end is not None)
