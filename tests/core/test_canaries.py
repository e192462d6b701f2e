"""Canaries leave the most room to their services, and are spread over failure domains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.canaries import Standing, Watched, judged, pick
from app.core.snapshot import NodeView, ServiceView, Snapshot
from tests.server_kit import NOW, digest_of
from wire.messages import Result

TIGHT, LOOSE = 0, 1


def node(name: str, zone: str = "a", services: tuple[int, ...] = (), online: bool = True) -> NodeView:
    return NodeView(
        id=f"node_{name}",
        name=name,
        labels={"zone": zone},
        groups=("g",),
        os_id="demo",
        arch="amd64",
        version="1.0",
        digest=digest_of("1.0"),
        online=online,
        healthy=True,
        on_trial=False,
        soaking=False,
        reserved=False,
        absent=False,
        commandable=True,
        placement_known=True,
        placements=tuple((service, 1) for service in services),
        has_local_way_back=False,
        staged_digest="",
        pinned_to="",
        pin_digest="",
        failed=frozenset(),
    )


def picked(nodes: list[NodeView], count: int, label: str = "") -> list[str]:
    services = (ServiceView(("", "db"), 2, 1), ServiceView(("", "web"), 4, 1))
    snapshot = Snapshot(now=NOW, nodes=tuple(nodes), services=services, groups=(), rollouts=(), candidates=())
    return [nodes[place].name for place in pick(snapshot, range(len(nodes)), count, label)]


def test_nodes_that_leave_the_most_room_go_first() -> None:
    nodes = [node("a", services=(TIGHT,)), node("b", services=(TIGHT,)), node("c", services=(LOOSE,)), node("d")]
    nodes += [node(name, services=(LOOSE,)) for name in "efg"]
    assert picked(nodes, 7) == ["d", "c", "e", "f", "g", "a", "b"]


def test_who_does_not_serve_goes_last() -> None:
    unknown = replace(node("b"), placement_known=False)
    assert picked([node("a", online=False), unknown, node("c", services=(TIGHT,))], 2) == ["c", "a"]


def test_one_of_each_domain_then_a_second() -> None:
    nodes = [node("a1"), node("a2"), node("a3"), node("b1", "b"), node("c1", "c")]
    assert picked(nodes, 4, "zone") == ["a1", "b1", "c1", "a2"]
    assert picked(nodes, 9, "zone") == ["a1", "b1", "c1", "a2", "a3"]


WELL = Watched(
    taken=False, online=True, healthy=True, on_trial=False, digest=digest_of("2.0"), version="2.0", silent_s=0.0
)
BACK = replace(WELL, digest=digest_of("1.0"), version="1.0")
GONE = replace(WELL, online=False)


@pytest.mark.parametrize(
    ("canary", "standing", "result"),
    [
        (WELL, Standing.WELL, None),
        (replace(WELL, digest=""), Standing.WELL, None),  # its evidence class does not tell
        (BACK, Standing.FAILED, Result.FELL_BACK),
        (replace(BACK, taken=True), Standing.LED_ON, None),
        (replace(WELL, healthy=False), Standing.FAILED, Result.UNHEALTHY),
        (replace(WELL, on_trial=True, healthy=False), Standing.AWAY, None),
        (replace(GONE, silent_s=60.0), Standing.AWAY, None),
        (replace(GONE, silent_s=61.0), Standing.FAILED, Result.TIMED_OUT),
        (replace(GONE, healthy=False), Standing.AWAY, None),
    ],
)
def test_a_canary_that_is_through_proves_only_what_is_seen(
    canary: Watched, standing: Standing, result: Result | None
) -> None:
    verdict = judged(canary, {digest_of("2.0")}, grace_s=60.0)
    assert (verdict.standing, verdict.result) == (standing, result)
    assert bool(verdict.text) is (standing is not Standing.WELL)


def test_a_reboot_leads_to_no_digest() -> None:
    assert judged(BACK, (), grace_s=60.0).standing is Standing.WELL
