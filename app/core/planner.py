"""The planner: from a fleet snapshot to what may happen now and what will happen later. Pure.

`plan(Snapshot)` is what people are shown; `admit(Standing)` is what every tick of the conductor runs, and is part of
the former. The parts are in app.core.planning; docs/planner.md tells how they go together.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core.holds import Hold, HoldCode
from app.core.plan import Plan, numbers
from app.core.planning.admission import Admissions, admit, admit_ready
from app.core.planning.forecast import Forecast, forecast
from app.core.planning.gates import Gates
from app.core.planning.outlook import Blocks, loses_way_back, worst_moments
from app.core.planning.room import Room
from app.core.planning.standing import Standing
from app.core.planning.words import counted, ordinal
from app.core.snapshot import Snapshot

__all__ = ["Admissions", "Standing", "admit", "plan"]

_QUEUES = frozenset(
    {
        HoldCode.EXPOSURE,
        HoldCode.GROUP_BUDGET,
        HoldCode.DOMAIN_BUDGET,
        HoldCode.DOMAIN_ORDER,
        HoldCode.SERVICE_FLOOR,
    }
)
"""Holds that say more with the node's place in the queue."""


def plan(snapshot: Snapshot) -> Plan:
    """What would happen now, and the forecast of the rest. Its admitted set is the one of `admit`."""
    standing = Standing.of(snapshot)
    gates = Gates(standing)
    room = Room(standing, gates)
    made = forecast(standing, gates, room)
    blocks = Blocks(standing, gates, room, made)
    never = [place for place in range(len(snapshot.candidates)) if place not in made.wave_of]
    for_good = {place: hold for place in never if (hold := blocks.hold_for_good(place)) is not None}
    impossible = blocks.impossible(never)
    admissions = admit_ready(standing, gates, room)
    return Plan(
        at=snapshot.now,
        admitted=admissions.admitted,
        waves=made.waves,
        holds=_holds(standing, gates, admissions, made, for_good),
        worst=worst_moments(standing, made),
        impossible=impossible,
        absent=tuple(place for place, node in enumerate(snapshot.nodes) if node.absent),
        loses_way_back=loses_way_back(standing, gates),
    )


def _holds(
    standing: Standing, gates: Gates, admissions: Admissions, made: Forecast, for_good: Mapping[int, Hold]
) -> dict[int, Hold]:
    """Of each candidate that is not admitted: for good where it is in no wave, else what it waits for now."""
    admitted = set(admissions.admitted)
    before = [0]
    for wave in made.waves:
        before.append(before[-1] + len(wave.nodes))
    people = numbers(made.waves)
    queues = [
        f"{f'{ordinal(people[wave.number])} wave' if people[wave.number] else 'with the canaries'}, "
        f"{counted(ahead, 'node')} before it"
        for wave, ahead in zip(made.waves, before, strict=False)
    ]
    holds: dict[int, Hold] = {}
    for place in range(len(standing.candidates)):
        if place in admitted:
            continue
        hold = for_good.get(place) or admissions.holds.get(place) or gates.first(place)
        assert hold is not None, "who is not ready is held, and who is ready is admitted or held"
        number = made.wave_of.get(place, 0)
        if number > 1 and hold.code in _QUEUES:
            hold = Hold(hold.code, f"{hold.text}; {queues[number - 1]}", hold.subject, hold.until)
        holds[place] = hold
    return holds
