"""What a node waits for, from the rows: its rollout, its groups, its services, its deadline."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from app.core.nodes import Node
from app.services.freezes import freeze
from app.services.service_watch import ServiceWatch
from app.services.waiting import waiting
from app.store import bad_versions, images, nodes, rollouts, schema
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR

FLOOR = {"code": "service-floor", "text": "shop/db has 2 healthy replicas, its floor is 2", "subject": "shop/db"}
NEVER_NOW = {"days": ["mon"], "opens": "03:00", "closes": "04:00", "zone": "UTC"}
"""NOW is a Sunday."""


def chain(database: Database, node_id: str, now: float = NOW) -> list[tuple[str, str]]:
    with database.read() as conn:
        node = nodes.get(conn, node_id)
        assert isinstance(node, Node)
        return [(link.step.value, link.text) for link in waiting(conn, node, now)]


def stops(links: list[tuple[str, str]]) -> list[str]:
    return [text for step, text in links if step == "stops"]


def ordered(database: Database, node_id: str, **operation: Any) -> None:
    with database.write() as change:
        id = kit.add_operation(change.conn, node_id, **operation)
        where = schema.nodes.c.id == node_id
        change.conn.execute(update(schema.nodes).where(where).values(desired_operation_id=id))


def add_node(database: Database, **given: Any) -> str:
    with database.write() as change:
        return kit.add_node(change.conn, labels={"role": "web"}, os_id="demo", **given)


def test_nothing_is_asked_of_it(database: Database) -> None:
    assert chain(database, add_node(database)) == []


def test_a_rollout_has_it_waiting_and_says_why(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        rollout_kit.add_rollout_node(change.conn, rollout_kit.add_rollout(change.conn), id, hold=FLOOR)
    links = chain(database, id)
    assert stops(links) == [FLOOR["text"]]
    assert ("under-way", "Has not been ordered to stage 2.0 yet") in links


@pytest.mark.parametrize(
    ("state", "text"), [("paused", "Paused by mb: lunch"), ("halted", "Halted: 2 of 9 nodes failed")]
)
def test_a_rollout_that_does_not_run_is_what_it_waits_for(database: Database, state: str, text: str) -> None:
    id = add_node(database)
    with database.write() as change:
        rollout = rollout_kit.add_rollout(change.conn, state=state, state_text=text)
        rollout_kit.add_rollout_node(change.conn, rollout, id, hold=FLOOR)
        number = rollouts.get(change.conn, rollout).number
    links = chain(database, id)
    assert stops(links) == [f"Waits for rollout {number}: {text[0].lower()}{text[1:]}"]
    assert ("later", "Has not been ordered to stage 2.0 yet") in links


def test_a_rollout_whose_version_is_withdrawn_or_bad_never_comes_to_it(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        image = kit.add_image(change.conn, "2.0")
        rollout = rollout_kit.add_rollout(change.conn, state="halted", targets=[image], state_text="Halted: it is gone")
        rollout_kit.add_rollout_node(change.conn, rollout, id)
        number = rollouts.get(change.conn, rollout).number
        failed = BadVersion(kit.digest_of("2.0"), "2.0", "fell back on 3 nodes", Cause.FAILED, "conductor", NOW)
        bad_versions.remember(change.conn, failed)
    assert stops(chain(database, id)) == [f"2.0 is bad (fell back on 3 nodes): rollout {number} cannot go on"]
    with database.write() as change:
        images.withdraw(change.conn, image, "mb", "it leaks", NOW)
    assert stops(chain(database, id)) == [f"2.0 is withdrawn: rollout {number} cannot go on"]


def test_rollouts_that_are_drafts_or_over_ask_nothing(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        for state in ("draft", "aborted", "succeeded"):
            rollout_kit.add_rollout_node(change.conn, rollout_kit.add_rollout(change.conn, state=state), id)
        done = rollout_kit.add_rollout(change.conn)
        rollout_kit.add_rollout_node(change.conn, done, id, state="done")
    assert chain(database, id) == []


def test_budgets_of_all_its_groups_and_the_shut_window_of_the_first(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        policy = {"windows": [NEVER_NOW], "max_unavailable": {"share": 0.1}}
        rollout_kit.add_group(change.conn, policy=policy)
        rollout_kit.add_group(change.conn, "all", selector="*", precedence=1, policy={"max_unavailable": {"count": 4}})
    ordered(database, id, phase="staged")
    links = chain(database, id)
    (stop,) = stops(links)
    assert stop.startswith("The window of group web is shut: opens in ")
    assert ("later", "Budget: of web 10 %; of all 4 may be missing at once") in links
    assert ("later", "Health gate: group web must be healthy") in links


def test_an_unhealthy_node_has_no_health_gate_of_nodes_before_it(database: Database) -> None:
    id = add_node(database, health_state="unhealthy")
    with database.write() as change:
        rollout_kit.add_group(change.conn)
    ordered(database, id, phase="staged")
    assert ("later", "No health gate") in chain(database, id)


def test_a_freeze_stops_before_admission_has_looked(database: Database) -> None:
    id = add_node(database)
    ordered(database, id, phase="staged")
    freeze(database, OPERATOR, group_id=None, reason="quarter end", now=NOW)
    assert stops(chain(database, id, NOW + 1)) == ["The whole fleet is frozen by mb: “quarter end”"]


def test_the_service_with_the_least_room_speaks(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        conn = change.conn
        kit.add_container(conn, id, "db", scope="shop")
        kit.add_container(conn, kit.add_node(conn), "db", scope="shop")
        kit.add_container(conn, id, "ledger", scope="shop")
        kit.add_container(conn, id, "exporter", per_node=True)
    ServiceWatch().step(database, NOW)
    ordered(database, id, phase="staged")
    wanted = "Service floors: without it shop/ledger has 0 of 1, its floor is 1"
    assert ("later", wanted) in chain(database, id)


def test_a_version_edge_stops_what_nobody_has_ordered_yet(database: Database) -> None:
    id = add_node(database)
    with database.write() as change:
        image = kit.add_image(change.conn, "2.0")
        images.set_edges(change.conn, image, ["1.5"], [])
        rollout = rollout_kit.add_rollout(change.conn, targets=[image])
        rollout_kit.add_rollout_node(change.conn, rollout, id)
    assert stops(chain(database, id)) == ["Must pass 1.5 on the way to 2.0"]


def test_the_clock_of_the_deadline(database: Database) -> None:
    id = add_node(database)
    ordered(database, id, phase="staging", heard_s=600.0)
    assert chain(database, id)[-1][1].endswith("the clock stands, because no gateway could hear the node")
    with database.write() as change:
        gateway = kit.add_gateway(change.conn, started_at=NOW - 9999, heartbeat_at=NOW)
        change.conn.execute(update(schema.nodes).values(gateway_id=gateway))
    assert chain(database, id)[-1] == (
        "later",
        "Deadline of this phase: 4 h left; the clock runs while the node could be heard",
    )
    with database.write() as change:
        change.conn.execute(update(schema.operations).values(phase="staged", lease_nonce="n", lease_nonce_at=NOW))
    assert chain(database, id)[-1][1].endswith("the clock stands, because it waits for us")
