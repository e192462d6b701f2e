"""What the agent's work does to the invented machine, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.phases.model import Work, WorkKind
from sim.machine import Deed, Machine

SHORT_S = (0.05, 0.5)
"""Marks, arming and asking witnesses: a few bytes through a tool."""


class Labour:
    """The one piece of work under way: `work` until `done_at`."""

    __slots__ = ("done_at", "work")

    def __init__(self) -> None:
        self.work: Work | None = None
        self.done_at = math.inf

    def begin(self, work: Work, done_at: float) -> None:
        assert self.work is None, "one piece of work at a time"
        self.work, self.done_at = work, done_at

    def stop(self) -> Work | None:
        """Nothing is under way any more; what was."""
        work, self.work, self.done_at = self.work, None, math.inf
        return work


def carry_out(machine: Machine, work: Work, tell: Callable[[Deed, str], None]) -> None:
    """Change the machine's record as this work does; Refused. A reboot, a probe and the download change none."""
    match work.kind:
        case WorkKind.STAGE:
            assert work.image is not None, "only an image is staged"
            machine.end_stage(work.image)
            tell(Deed.WROTE, machine.passive)
        case WorkKind.ARM:
            machine.arm(work.slot)
            tell(Deed.ARMED, work.slot)
        case WorkKind.DISARM:
            machine.disarm()
            tell(Deed.DISARMED, "")
        case WorkKind.MARK_GOOD:
            machine.mark_good()
            tell(Deed.MARKED_GOOD, machine.booted)
        case WorkKind.MARK_BAD:
            machine.mark_bad(work.slot)
            tell(Deed.MARKED_BAD, work.slot)
        case _:
            pass
