"""The pages that stand in the navigation; only those that exist."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    path: str
    key: str
    """Pressed after `g`."""


LINKS = (
    Link("Fleet", "/", "f"),
    Link("Nodes", "/nodes", "n"),
    Link("Rollouts", "/rollouts", "r"),
    Link("Services", "/services", "s"),
    Link("Groups", "/groups", "o"),
    Link("Images", "/images", "i"),
    Link("Events", "/events", "e"),
    Link("Joining", "/joining", "j"),
)
