"""One placement from those of several container engines."""

from __future__ import annotations

from collections.abc import Mapping

from wire.messages import Placement

NO_RUNTIME = Placement(known=False, reason="no container engine is configured on this node")


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
