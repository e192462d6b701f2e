"""The view of the fleet that admission keeps from tick to tick: it is what a new one would be."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, update

from app.services.admission import FULL_S, Admission
from app.services.fleet_snapshot import gather
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.services.admission_kit import THREE, asks, change_node, holders, node, three_asking


@pytest.fixture
def three(database: Database) -> list[str]:
    return three_asking(database)


def test_a_tick_without_news_does_nothing(database: Database, three: list[str]) -> None:
    admission = Admission()
    unsubscribe = database.nudges.subscribe(admission.note)
    try:
        for second in range(1, 5):
            admission.tick(database, NOW + second)
        before = kit.revisions(database)
        assert not admission.tick(database, NOW + 5)
        assert kit.revisions(database) == before
    finally:
        unsubscribe()


def test_what_a_nudge_told_is_seen_at_once(database: Database, three: list[str]) -> None:
    admission = Admission()
    admission.tick(database, NOW + 1)
    (first,) = holders(database)
    node_id = three[THREE.index(first)]
    change_node(database, node_id, boot_id="boot-new", phase="soaking")
    other = next(each for each in three if each != node_id)
    asks(database, other, NOW + 2, "n2")
    admission.note({f"node:{node_id}", f"desired:{other}", "operations"})
    assert admission.tick(database, NOW + 2)
    assert holders(database) == {THREE[three.index(other)]}


def test_what_no_nudge_told_is_seen_all_the_same(database: Database, three: list[str]) -> None:
    admission = Admission()
    admission.tick(database, NOW + 1)
    (first,) = holders(database)
    node_id = three[THREE.index(first)]
    change_node(database, node_id, boot_id="boot-new", phase="soaking")
    other = next(each for each in three if each != node_id)
    for second in range(2, 8):
        asks(database, other, NOW + second, f"n{second}")
        admission.tick(database, NOW + second)
    assert holders(database) == {THREE[three.index(other)]}


def test_the_view_is_the_same_kept_or_gathered(database: Database, three: list[str]) -> None:
    admission = Admission()
    admission.tick(database, NOW + 1)
    change_node(database, three[1], health_state="unhealthy", labels={"zone": "x"})
    node(database, "late", ["web", "cache"])
    with database.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == three[2]))
    admission.note({f"node:{id}" for id in three} | {"operations"})
    with database.read() as conn:
        late = conn.execute(select(schema.nodes.c.id).where(schema.nodes.c.name == "late")).scalar_one()
    admission.note({f"node:{late}"})
    with database.write() as change:
        change.conn.execute(update(schema.gateways).values(heartbeat_at=NOW + 2))
    admission.tick(database, NOW + 2)
    kept, fresh = admission.snapshot(), gather(database, NOW + 2)
    assert kept is not None and FULL_S > 2
    assert {view.id: view.up for view in kept.nodes} == {view.id: view.up for view in fresh.nodes}
    assert _by_name(kept) == _by_name(fresh)


def _by_name(snapshot: Any) -> Any:
    return {
        view.name: (
            view.labels,
            view.healthy,
            view.missing,
            {snapshot.services[place].key: replicas for place, replicas in view.placements},
        )
        for view in snapshot.nodes
    }
