"""Who did it: every change has one author (rule 9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    PERSON = "person"
    COMMAND = "command"
    NODE = "node"
    CONDUCTOR = "conductor"


@dataclass(frozen=True, slots=True)
class Actor:
    kind: ActorKind
    id: str
    name: str


CONDUCTOR = Actor(ActorKind.CONDUCTOR, "conductor", "conductor")
