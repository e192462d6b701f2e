"""`status.json`: what the running agent shows of itself to people on the node."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from agent.link import Standing
from agent.picture import Picture
from agent.state import Identity, write_atomically
from wire.messages import Activity, Facts, Health, Slot

STALE_S = 60.0
"""The agent writes at least every few seconds while anything moves, and each minute otherwise."""


class Shown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    at: float
    """Unix seconds when it was written."""
    node_id: str
    name: str
    url: str
    link: str
    link_text: str = ""
    conflict: bool = False
    facts: Facts
    slots: list[Slot]
    health: Health
    activity: Activity
    placement_known: bool
    placement_reason: str = ""
    containers: int = 0


def shown(identity: Identity, picture: Picture, standing: Standing, wall: float) -> Shown:
    """What status.json says of this moment."""
    return Shown(
        at=wall,
        node_id=identity.node_id,
        name=identity.name,
        url=identity.url,
        link=standing.state.value,
        link_text=standing.text,
        conflict=standing.conflict,
        facts=picture.facts,
        slots=picture.slots,
        health=picture.health,
        activity=picture.activity,
        placement_known=picture.placement.known,
        placement_reason=picture.placement.reason,
        containers=len(picture.placement.containers),
    )


class StatusFile:
    """Writes `path`. A run folder that cannot be written is said once on stderr and stops nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problem = ""

    def write(self, value: Shown) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_atomically(self.path, msgspec.json.encode(value), mode=0o644, sync=False)
            self._problem = ""
        except OSError as problem:
            text = f"twinroot-agent: {self.path} cannot be written: {problem.strerror}"
            if text != self._problem:
                print(text, file=sys.stderr)
            self._problem = text
