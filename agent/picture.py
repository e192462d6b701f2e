"""What the node shows of itself, and which sections of it are news to a connection."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from wire.messages import Activity, Facts, Health, NodeEvent, OperationReport, Placement, Slot, Status


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What the node shows of itself now."""

    facts: Facts
    slots: list[Slot]
    activity: Activity
    health: Health
    placement: Placement
    outbox: list[NodeEvent | OperationReport] = []


SECTIONS = ("facts", "slots", "health", "placement", "activity")


def changed(picture: Picture, said: dict[str, object], *, whole: bool) -> Status | None:
    """A status of the sections that differ from `said` (which is brought up to date), or None."""
    sections = {name: getattr(picture, name) for name in SECTIONS}
    fresh = {name: value for name, value in sections.items() if whole or _differs(said.get(name), value)}
    if not fresh:
        return None
    said.update(fresh)
    return Status(whole=whole, **{name: fresh.get(name, UNSET) for name in SECTIONS})


def _differs(before: object, now: object) -> bool:
    return _still(before) != _still(now)


def _still(section: object) -> object:
    """The section without what moves all the time: a countdown, and how long checks took."""
    if isinstance(section, Activity) and section.trial is not None:
        return msgspec.structs.replace(section, trial=msgspec.structs.replace(section.trial, left_s=0.0))
    if isinstance(section, Health):
        checks = [msgspec.structs.replace(check, duration_ms=0) for check in section.checks]
        return msgspec.structs.replace(section, checks=checks)
    return section
