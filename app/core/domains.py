"""Loss of much of a failure domain at once: nobody's fault but the domain's (rule 4). Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEAST = 3
"""Fewer nodes gone at once are nodes that fail, not a domain."""
SHARE = 0.5
TOGETHER_S = 60.0
"""Beyond the offline grace: a switch or a power feed takes its nodes within seconds, and connections notice it late."""
GRACE_S = 900.0
"""Fifteen minutes: power, switches and cold boots of a whole zone come back within it, and nobody waits a shift."""

Domain = tuple[str, str]
"""(label, value)"""
FLEET: Domain = ("", "")
"""The whole fleet is one domain."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A node that is offline."""

    node_id: str
    domains: tuple[Domain, ...]
    gone_at: float
    """Since when it has not been heard (Unix seconds)."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Much of one failure domain went silent at about the same time."""

    label: str
    """Empty: the whole fleet."""
    value: str
    lost: int
    of: int
    at: float
    """When the last of them went silent."""
    nodes: frozenset[str]
    """All of the domain that are not heard: their silence says nothing of a version."""

    @property
    def until(self) -> float:
        return self.at + GRACE_S

    @property
    def text(self) -> str:
        where = f"{self.label} {self.value}" if self.label else "the fleet"
        return f"{where} lost {self.lost} of {self.of} nodes at once"


def losses(
    sizes: Mapping[Domain, int], gone: Iterable[Gone], now: float, within_s: float, grace_s: float = GRACE_S
) -> list[Loss]:
    """Domains that lost much at once, at most `grace_s` ago, the fleet first, then by label and value.

    `sizes`: how many nodes each domain has, `FLEET` among them. At once: within a span of `within_s` seconds. A node
    that has been away for longer than that before the others went does not count among the lost, but is one of the
    domain.
    """
    by_domain: defaultdict[Domain, list[tuple[float, str]]] = defaultdict(list)
    for node in gone:
        for domain in (FLEET, *node.domains):
            by_domain[domain].append((node.gone_at, node.node_id))
    found = []
    for domain in sorted(by_domain):
        lost = _most_together(sorted(by_domain[domain]), within_s, now - grace_s)
        if len(lost) >= LEAST and len(lost) >= SHARE * sizes.get(domain, len(lost)):
            ids = frozenset(node_id for _, node_id in by_domain[domain])
            found.append(Loss(*domain, len(lost), sizes.get(domain, len(lost)), lost[-1][0], ids))
    return [loss for loss in found if now < loss.at + grace_s]


def _most_together(gone: list[tuple[float, str]], within_s: float, since: float) -> list[tuple[float, str]]:
    """The largest set that went within one span, the newest of equals, of those that a span since then can hold."""
    recent = [one for one in gone if one[0] > since - within_s]
    best, first = (0, 0), 0
    for end, (at, _) in enumerate(recent, 1):
        while at - recent[first][0] > within_s:
            first += 1
        if end - first >= best[1] - best[0]:
            best = first, end
    return recent[best[0] : best[1]]
