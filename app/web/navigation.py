"""The pages that stand in the navigation; only those that exist."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    path: str
    key: str
    """Pressed after `g`; empty: none."""
    also: tuple[str, ...] = ()
    """Other pages that belong to it, by how their paths begin."""

    def covers(self, path: str) -> bool:
        """Whether a page stands below this link."""
        below = [f"{start}/" for start in (self.path, *self.also) if start != "/"]
        return path == self.path or path in self.also or path.startswith(tuple(below))


LINKS = (
    Link("Fleet", "/", "f", ("/attention",)),
    Link("Nodes", "/nodes", "n"),
    Link("Rollouts", "/rollouts", "r"),
    Link("Services", "/services", "s", ("/service",)),
    Link("Groups", "/groups", "o"),
    Link("Images", "/images", "i", ("/channels", "/bad-versions")),
    Link("Events", "/events", "e"),
    Link("Joining", "/joining", "j"),
)

OTHERS = (
    Link("Needs a person", "/attention", ""),
    Link("Freezes", "/freezes", ""),
    Link("View and keys", "/preferences", ""),
)
"""Reached from other pages, and by name."""

ACTIONS = (
    Link("Freeze", "/freezes/new", ""),
    Link("Compose a rollout", "/rollouts/new", ""),
    Link("Make a join token", "/joining/new", ""),
    Link("Upload an image", "/images/upload", ""),
    Link("Make a group", "/groups/new", ""),
    Link("What if nodes go away", "/services/what-if", ""),
)
"""What a person can begin from anywhere, by name."""
