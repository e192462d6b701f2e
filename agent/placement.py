"""One placement from those of several container engines, and what of it admission counts."""

from __future__ import annotations

from collections.abc import Mapping

from agent.phases.model import Serving
from wire.messages import Container, Placement

NO_RUNTIME = Placement(known=False, reason="no container engine is configured on this node")
NO_CONTAINERS = Placement(known=True, engine="none")
"""The owner of the machine says in its configuration that no services run here."""


def merged(placements: Mapping[int, Placement], count: int) -> Placement:
    """Known only when all `count` engines are known: what runs in an unknown one is not nothing."""
    read = [placements[number] for number in range(count) if number in placements]
    unknown = [placement for placement in read if not placement.known]
    if unknown:
        reason = "; ".join(placement.reason for placement in unknown if placement.reason)
        return Placement(known=False, reason=reason or "a container engine cannot be read")
    if len(read) < count:
        return Placement(known=False, reason="the container engine has not been read yet")
    if len(read) == 1:
        return read[0]
    return Placement(
        known=True,
        engine=", ".join(placement.engine for placement in read if placement.engine),
        containers=[container for placement in read for container in placement.containers],
    )


def serving(placement: Placement) -> Serving:
    """What a reboot would take down: replicas that run and are not unhealthy, of services that are not per-node.

    Services are named `scope/name`, as people see them.
    """
    if not placement.known:
        return Serving(reason=placement.reason)
    counts: dict[str, int] = {}
    for container in placement.containers:
        if _serves(container):
            name = f"{container.scope}/{container.service}" if container.scope else container.service
            counts[name] = counts.get(name, 0) + 1
    return Serving(known=True, replicas=dict(sorted(counts.items())))


def _serves(container: Container) -> bool:
    return container.state == "running" and container.health not in ("unhealthy", "starting") and not container.per_node
