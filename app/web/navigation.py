"""The pages that stand in the navigation; only those that exist."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    path: str
    key: str
    """Pressed after `g`; empty: none."""


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

OTHERS = (Link("Needs a person", "/attention", ""), Link("Freezes", "/freezes", ""))
"""Reached from other pages, and by name."""
