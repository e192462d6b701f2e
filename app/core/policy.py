"""How an update may go, with units and reasons. Groups will carry their own; the fleet has this one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Durations in seconds."""

    soak_s: float = 600.0
    """Ten minutes: long enough for crash loops and slow leaks of start-up to show."""
    confirm_s: float = 600.0
    """Slow machines with many containers take minutes until their checks pass."""
    keep_way_back_s: float = 0.0
    """How long after the soak the old slot may not be overwritten."""
    stage_deadline_s: float = 4 * 3600.0
    """A few GiB over a slow line."""
    reboot_deadline_s: float = 1800.0
    """From the lease to the node's return: servers with much memory test it for many minutes."""
    lease_s: float = 120.0
    """From the node's request to its reboot command; arming takes seconds."""
    offline_grace_s: float = 45.0
    """One and a half heartbeats: a lost packet is no outage."""
    reconnect_allowance_s: float = 60.0
    """After a gateway starts nobody is late before this: agents return with jitter."""
