"""A plan in plain text, for terminals and for scenarios that are compared line by line. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from app.core.estimate import Estimate, estimate
from app.core.holds import HoldCode
from app.core.plan import Plan, numbers
from app.core.planning.words import counted, service_name, span
from app.core.rollouts import ACTIVE, RolloutState
from app.core.snapshot import Snapshot

_MINUTE_S = 60.0
"""No range is told finer."""
_NAMED = 12
"""Nodes of a wave or a hold that are named; the others are counted."""


def render(plan: Plan, snapshot: Snapshot) -> str:
    """Admitted nodes, waves, holds by reason, worst moments, what is impossible, and how long it takes."""
    return "\n".join(_lines(plan, snapshot)) + "\n"


def _lines(plan: Plan, snapshot: Snapshot) -> Iterator[str]:
    candidates = snapshot.candidates
    yield f"{counted(len(snapshot.nodes), 'node')}, {counted(len(candidates), 'candidate')}"
    yield _listed("admitted now", [candidates[place].node for place in plan.admitted], snapshot)
    yield from _impossible(plan, snapshot)
    number = numbers(plan.waves)
    canaries = sum(wave.canary for wave in plan.waves)
    yield f"waves: {len(plan.waves) - canaries:,}{' after the canaries' if canaries else ''}"
    for wave in plan.waves:
        yield "  " + _listed(str(number[wave.number] or "canaries"), wave.nodes, snapshot)
    yield from _holds(plan, snapshot)
    yield f"services at their worst: {len(plan.worst):,}"
    for one in plan.worst:
        name = service_name(snapshot.services[one.service].key)
        yield f"  {name}: {one.healthy_now} now, {one.left} left {_when(number[one.wave])}, floor {one.floor}"
    if plan.absent:
        yield _listed("absent, counted nowhere", plan.absent, snapshot)
    if plan.loses_way_back:
        yield _listed("lose their local way back", plan.loses_way_back, snapshot)
    drafts = {candidate.rollout for candidate in snapshot.candidates}  # a draft without any is not what was planned
    for place, rollout in enumerate(snapshot.rollouts):
        if rollout.state in ACTIVE or (rollout.state is RolloutState.DRAFT and place in drafts):
            yield _duration(plan, snapshot, place)


def _impossible(plan: Plan, snapshot: Snapshot) -> Iterator[str]:
    for one in plan.impossible:
        yield f"impossible: {one.text}"
        yield "  " + _listed("holds", one.nodes, snapshot)
        yield f"  would help: {'; '.join(one.helps)}"


def _when(wave: int) -> str:
    return f"in wave {wave}" if wave else "with the canaries"


def _holds(plan: Plan, snapshot: Snapshot) -> Iterator[str]:
    """By code in the order of the chain; equal sentences once, with their nodes."""
    same: dict[tuple[str, str], list[int]] = {}
    for place, hold in sorted(plan.holds.items()):
        same.setdefault((hold.code.value, hold.text), []).append(snapshot.candidates[place].node)
    order = {code.value: rank for rank, code in enumerate(HoldCode)}
    yield f"held: {len(plan.holds):,}"
    for (code, text), nodes in sorted(same.items(), key=lambda one: (order[one[0][0]], one[1], one[0][1])):
        yield f"  {code}: {text}"
        yield "    " + _listed("", nodes, snapshot)


def _duration(plan: Plan, snapshot: Snapshot, place: int) -> str:
    found = estimate(plan, snapshot, place)
    if math.isinf(found.low_s):
        ends = "does not end within its windows"
    elif math.isinf(found.high_s):
        ends = f"ends in {span(max(_MINUTE_S, found.low_s))} at the least"
    else:
        low, high = span(max(_MINUTE_S, found.low_s)), span(max(_MINUTE_S, found.high_s))
        ends = f"ends in {low} to {high}" if low != high else f"ends in about {low}"
    return f"{snapshot.rollouts[place].name}: {found.never or ends + _basis(found)}"


def _basis(found: Estimate) -> str:
    """What the high end is counted with."""
    if not found.high_s:
        return ""
    if found.moved is None:
        return " (at most by its policy's deadlines: no node of it has moved yet)"
    times = f"{found.moved.fastest_s:,.0f} to {found.moved.slowest_s:,.0f} s"
    return f" (as {counted(found.moved.nodes, 'node')} moved so far: {times} each)"


def _listed(what: str, nodes: Sequence[int], snapshot: Snapshot) -> str:
    names = [snapshot.nodes[node].name for node in nodes]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    head = f"{what} ({len(names):,}): " if what else f"({len(names):,}) "
    return (head + " ".join(names[:_NAMED]) + more).rstrip()
