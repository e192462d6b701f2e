"""Fleets as the planner sees them: values by hand with careful defaults, and random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from app.core.group_policy import Amount, GroupPolicy, Window
from app.core.holds import Hold, HoldCode
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, GroupView, NodeView, RolloutView, ServiceView, Snapshot, TargetView

NOW = 1_790_000_000.0
"""A Monday, 13:33 UTC."""
ALL = Amount(share=1.0)
SHUT = Window(days=frozenset({5}), opens="02:00", closes="04:00", zone="UTC")
OPEN = Window(days=frozenset(range(7)), opens="00:00", closes="00:00", zone="UTC")


def node(name: str, *placements: tuple[int, int], **given: Any) -> NodeView:
    """Online, healthy, idle, on 1.0, in the group g."""
    values: dict[str, Any] = {
        "id": f"id-{name}",
        "name": name,
        "labels": {},
        "groups": ("g",),
        "os_id": "demo",
        "arch": "amd64",
        "version": "1.0",
        "digest": "sha-1.0",
        "online": True,
        "healthy": True,
        "on_trial": False,
        "soaking": False,
        "reserved": False,
        "absent": False,
        "commandable": True,
        "placement_known": True,
        "placements": placements,
        "has_local_way_back": False,
        "staged_digest": "",
        "pinned_to": "",
        "pin_digest": "",
        "failed": frozenset(),
    }
    return NodeView(**(values | given))


def group(id: str = "g", **policy: Any) -> GroupView:
    return GroupView(id, id, GroupPolicy(**({"max_unavailable": ALL} | policy)))


def target(version: str = "2.0", **given: Any) -> TargetView:
    values: dict[str, Any] = {"os_id": "demo", "arch": "x86_64", "version": version, "digest": f"sha-{version}"}
    return TargetView(**(values | {"created_at": NOW - 86_400.0, "withdrawn": False} | given))


def rollout(id: str = "rollout 1", **given: Any) -> RolloutView:
    values: dict[str, Any] = {
        "id": id,
        "name": id,
        "kind": RolloutKind.UPDATE,
        "state": RolloutState.RUNNING,
        "policy": GroupPolicy(max_unavailable=ALL),
        "targets": (target(),),
        "created_at": NOW - 3600.0,
    }
    return RolloutView(**(values | given))


def wants(node: int, rollout: int = 0, **given: Any) -> Candidate:
    values: dict[str, Any] = {"operation_id": f"op-{node}", "ready": True, "canary": False, "since": NOW}
    return Candidate(node=node, rollout=rollout, **(values | given))


def service(name: str, expected: int, floor: int | None, allowed: bool = False) -> ServiceView:
    return ServiceView(("", name), expected, floor, allowed)


def snapshot(nodes: Sequence[NodeView], **given: Any) -> Snapshot:
    """One group, one rollout, and every node wants to move, where nothing else is given."""
    values: dict[str, Any] = {
        "now": NOW,
        "nodes": tuple(nodes),
        "services": (),
        "groups": (group(),),
        "rollouts": (rollout(),),
        "candidates": tuple(wants(place) for place in range(len(nodes))),
    }
    return Snapshot(**(values | given))


def without(snapshot: Snapshot, **policy: Any) -> Snapshot:
    """With other values in the policy of every group."""
    groups = tuple(replace(one, policy=replace(one.policy, **policy)) for one in snapshot.groups)
    return replace(snapshot, groups=groups)


amounts = st.one_of(
    st.integers(0, 4).map(lambda count: Amount(count=count)),
    st.sampled_from([0.1, 0.5, 1.0]).map(lambda share: Amount(share=share)),
)
policies = st.builds(
    GroupPolicy,
    max_unavailable=amounts,
    domain_label=st.sampled_from(["", "zone", "rack"]),
    max_per_domain=st.integers(0, 2),
    one_domain_after_another=st.booleans(),
    failure_limit=st.sampled_from([Amount(count=2), Amount(count=2), Amount(count=0), Amount(share=0.1)]),
    health_gate=st.booleans(),
    windows=st.sampled_from([(), (), (), (OPEN,), (SHUT,)]),
    minimum_age_s=st.sampled_from([0.0, 0.0, 3600.0, 7 * 86_400.0]),
)
_never = st.just(False)
_rarely = st.integers(0, 9).map(lambda number: number == 0)
_frozen = Hold(HoldCode.FREEZE, "is frozen by mia: quarter's end", "freeze-1")
_for_a_while = Hold(HoldCode.FREEZE, "is frozen by mia until tomorrow", "freeze-2", until=NOW + 86_400.0)
_kept = Hold(HoldCode.KEEPING_WAY_BACK, "keeps its way back for rollout 7, which is not over", "r7")
_freezes = st.sampled_from([_frozen, _for_a_while])


@st.composite
def _nodes(draw: st.DrawFn, number: int, services: int, groups: int, odd: st.SearchStrategy[bool]) -> NodeView:
    ids = draw(st.lists(st.integers(0, groups - 1), min_size=1, max_size=2, unique=True))
    known = not draw(odd)
    placed = draw(st.lists(st.integers(0, services - 1), max_size=3, unique=True)) if services and known else []
    pinned = draw(odd)
    return node(
        f"n{number:02}",
        *[(one, draw(st.sampled_from([0, 1, 1, 1, 2]))) for one in placed],
        labels={"zone": draw(st.sampled_from("abc")), "rack": draw(st.sampled_from("12"))},
        groups=tuple(f"g{one}" for one in ids),
        os_id="other" if draw(odd) else "demo",
        version="2.1" if draw(odd) else draw(st.sampled_from(["1.0", "1.5"])),
        online=not draw(odd),
        healthy=not draw(odd),
        on_trial=draw(odd),
        reserved=draw(odd),
        absent=draw(odd),
        commandable=not draw(odd),
        placement_known=known,
        has_local_way_back=draw(st.booleans()),
        pinned_to="1.0" if pinned else "",
        pin_digest=draw(st.sampled_from(["sha-1.0", "sha-2.0", ""])) if pinned else "",
        failed=frozenset({"sha-2.0"}) if draw(odd) else frozenset(),
        exposed_to=draw(st.sampled_from(["r0", "r1"])) if draw(odd) else "",
        returning=tuple((one, 1) for one in range(services) if draw(odd)),
    )


@st.composite
def _services(draw: st.DrawFn, number: int, odd: st.SearchStrategy[bool]) -> ServiceView:
    expected = draw(st.integers(1, 5))
    floor = draw(st.one_of(st.none(), st.just(expected - 1), st.integers(0, expected)))
    allowed_for = draw(st.sampled_from([(), (), ("r0",), ("r1",), ("r0", "r1")]))
    return ServiceView(("shop", f"s{number}"), expected, floor, draw(odd), allowed_for)


@st.composite
def _rollouts(draw: st.DrawFn, number: int, odd: st.SearchStrategy[bool]) -> RolloutView:
    return rollout(
        f"r{number}",
        kind=draw(st.sampled_from([RolloutKind.UPDATE, RolloutKind.UPDATE, RolloutKind.REBOOT, RolloutKind.ROLLBACK])),
        state=draw(st.sampled_from(RolloutState)) if draw(odd) else RolloutState.RUNNING,
        policy=draw(policies),
        targets=(
            target(
                must_pass=("1.5",) if draw(odd) else (),
                not_from=("1.5",) if draw(odd) else (),
                withdrawn=draw(odd),
                bad="it fails often" if draw(odd) else "",
            ),
        ),
        created_at=NOW - draw(st.integers(0, 2)),
        size=draw(st.sampled_from([0, 0, 20])),
        direct=draw(odd),
        reverse=draw(odd),
        allow_downgrade=draw(st.booleans()),
        break_glass=draw(odd),
        canaries_left=draw(st.sampled_from([0, 0, 1])),
        canaries_soaked_at=draw(st.sampled_from([None, NOW - 60, NOW - 86_400])),
        gates=(Hold(HoldCode.HEALTH_GATE, "waits for errors < 1 %", "errors"),) if draw(odd) else (),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Small fleets: half of them in order but for their policies, half with everything that can go wrong, rarely."""
    odd = draw(st.sampled_from([_never, _rarely]))
    services, groups, rollouts = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    number = draw(st.integers(1, 12))
    nodes = tuple(draw(_nodes(place, services, groups, odd)) for place in range(number))
    left_out = draw(st.sets(st.integers(0, number * rollouts - 1)))
    wanted = [(place % number, place // number) for place in range(number * rollouts) if place not in left_out]
    return Snapshot(
        now=NOW,
        nodes=nodes,
        services=tuple(draw(_services(place, odd)) for place in range(services)),
        groups=tuple(
            GroupView(f"g{place}", f"g{place}", draw(policies), draw(_freezes) if draw(odd) else None)
            for place in range(groups)
        ),
        rollouts=tuple(draw(_rollouts(place, odd)) for place in range(rollouts)),
        candidates=tuple(
            wants(
                one,
                of,
                operation_id="" if draw(odd) else f"op-{one}-{of}",
                ready=not draw(odd),
                canary=draw(_rarely),
                override_floor=draw(odd),
                override_failed=draw(st.booleans()),
                kept=_kept if draw(odd) else None,
            )
            for one, of in wanted
        ),
        fleet_hold=draw(_freezes) if draw(odd) else None,
    )
