"""One placement of several engines, and what of it a reboot would take down."""

from __future__ import annotations

import pytest

from agent.phases.model import Serving
from agent.placement import merged, serving
from wire.messages import Container, Placement


def container(service: str, scope: str = "shop", **more: object) -> Container:
    return Container(
        id=f"{scope}-{service}-{len(more)}-{more}", name=service, image="i", service=service, scope=scope, **more
    )


def test_replicas_are_counted_by_scope_and_service() -> None:
    placement = Placement(
        known=True,
        containers=[container("web"), container("web", health="healthy"), container("db"), container("web", scope="")],
    )
    assert serving(placement) == Serving(known=True, replicas={"shop/db": 1, "shop/web": 2, "web": 1})


@pytest.mark.parametrize(
    "more",
    [{"state": "exited"}, {"state": "paused"}, {"health": "starting"}, {"health": "unhealthy"}, {"per_node": True}],
)
def test_what_does_not_serve_or_is_everywhere_counts_nothing(more: dict[str, object]) -> None:
    assert serving(Placement(known=True, containers=[container("web", **more)])) == Serving(known=True)


def test_unknown_is_not_empty() -> None:
    hangs = Placement(known=False, reason="the engine hangs")
    assert serving(hangs) == Serving(reason="the engine hangs")
    both = merged({0: Placement(known=True, containers=[container("web")]), 1: hangs}, 2)
    assert not serving(both).known
