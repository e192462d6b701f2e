"""The time line of services: what came and went, once, with its cause; and the most that was seen."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert, update

from app.core.services import LASTS_S, ChangeCause
from app.services import services
from app.services.service_watch import SWEEP_S, ServiceWatch
from app.store import schema
from app.store import services as rows
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, node

WEB = ("shop", "web")
DAY_S = 86_400


@pytest.fixture
def watch(database: Database) -> ServiceWatch:
    fleet.gateway(database)
    return ServiceWatch()


def line(db: Database) -> list[tuple[int, int, str, str]]:
    """(change, healthy after it, cause, text) of shop/web, oldest first."""
    with db.read() as conn:
        found = services.time_line(conn, WEB)
    return [(each.change, each.healthy, each.cause.value, each.text) for each in reversed(found)]


def look(db: Database, watch: ServiceWatch, *node_ids: str, at: float = NOW + 5) -> int:
    watch.note(f"node:{node_id}" for node_id in node_ids)
    return watch.step(db, at)


def stop(db: Database, node_id: str) -> None:
    with db.write() as change:
        change.conn.execute(delete(schema.containers).where(schema.containers.c.node_id == node_id))


def test_what_is_there_at_the_beginning_is_no_news(database: Database, watch: ServiceWatch) -> None:
    node(database, "a", ["web", "web"])
    assert watch.step(database, NOW) == 0
    with database.read() as conn:
        (found,) = services.listing(conn, NOW)
    assert (found.key, found.healthy, found.view.expected, found.view.floor, found.headroom) == (WEB, 2, 2, 1, 1)


def test_a_container_that_stops_and_one_that_starts(database: Database, watch: ServiceWatch) -> None:
    a, b = node(database, "a", ["web"]), node(database, "b", ["web"])
    watch.step(database, NOW)
    stop(database, a)
    assert look(database, watch, a) == 1
    with database.write() as change:
        kit.add_container(change.conn, b, "web", scope="shop")
    look(database, watch, b, at=NOW + 100)
    assert line(database) == [
        (-1, 1, "container", "stopped or turned unhealthy on a"),
        (1, 2, "container", "runs and is healthy on b"),
    ]


def test_of_one_look_what_came_stands_before_what_went(database: Database, watch: ServiceWatch) -> None:
    """Nobody knows the order within it, and the other one would tell of a moment at which too few were there."""
    went, came = node(database, "a", ["web"]), node(database, "b", ["web"])
    node(database, "c", ["web"])
    watch.step(database, NOW)
    change_node(database, came, connection="offline", last_seen_at=NOW)
    look(database, watch, came, at=NOW + 1)
    change_node(database, went, connection="offline", last_seen_at=NOW + 1)
    change_node(database, came, connection="online")
    look(database, watch, went, came)
    assert [each[:2] for each in line(database)] == [(-1, 2), (1, 3), (-1, 2)]


def test_a_container_that_moves(database: Database, watch: ServiceWatch) -> None:
    a, b = node(database, "a", ["web"]), node(database, "b")
    watch.step(database, NOW)
    with database.write() as change:
        change.conn.execute(update(schema.containers).values(node_id=b))
    look(database, watch, a, b)
    assert line(database) == [(-1, 0, "moved", "moved away from a"), (1, 1, "moved", "moved to b")]


def test_a_node_that_goes_offline_and_comes_back_in_another_boot(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    change_node(database, a, connection="offline")
    look(database, watch, a)
    boot_event(database, a, "boot-2", "panic", None)
    change_node(database, a, connection="online", boot_id="boot-2")
    look(database, watch, a)
    assert [each[2:] for each in line(database)] == [
        ("offline", "a went offline"),
        ("reboot", "back: a rebooted without us (panic)"),
    ]


def test_a_reboot_that_nobody_saw_is_told_by_its_boot(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    node(database, "b", ["web"])
    watch.step(database, NOW)
    boot_event(database, a, "boot-2", "local command", None)
    change_node(database, a, boot_id="boot-2")
    look(database, watch, a)
    assert line(database) == [
        (-1, 1, "reboot", "a rebooted without us (local command)"),
        (1, 2, "reboot", "back: a rebooted without us (local command)"),
    ]


def test_our_own_update_is_named_with_its_rollout_and_author(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    operation_id = asks(database, a, rollout_id=add_rollout(database))
    change_node(database, a, phase="rebooting")
    with database.write() as change:
        change.conn.execute(insert(schema.leases).values(lease_row(a, operation_id)))
    look(database, watch, a)
    boot_event(database, a, "boot-2", "operation", operation_id)
    change_node(database, a, phase="soaking", boot_id="boot-2")
    look(database, watch, a)
    with database.read() as conn:
        back, away = services.time_line(conn, WEB)
    assert (away.change, away.cause, away.text) == (-1, ChangeCause.OPERATION, "a: Update to 2.0 by mb (rollout 12)")
    assert (back.change, back.text) == (1, "back on a after Update to 2.0 by mb (rollout 12)")
    assert (back.operation_id, back.rollout_id) == (operation_id, "rollout_a")


def test_two_watchers_tell_it_once(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    stop(database, a)
    other = ServiceWatch()
    assert look(database, watch, a) == 1
    assert other.step(database, NOW + 5) == 0
    assert len(line(database)) == 1


def test_what_no_nudge_told_is_found_by_the_sweep(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web"])
    watch.step(database, NOW)
    stop(database, a)
    assert watch.step(database, NOW + 1) == 0
    assert watch.step(database, NOW + SWEEP_S) == 1


def test_the_most_of_seven_days_is_expected(database: Database, watch: ServiceWatch) -> None:
    a = node(database, "a", ["web", "web", "web"])
    node(database, "b", ["web"])
    watch.step(database, NOW)
    stop(database, a)
    look(database, watch, a)
    assert expected(database, NOW) == 4
    later = NOW + 6 * DAY_S
    watch.step(database, later)
    assert expected(database, later) == 4
    assert expected(database, NOW + 9 * DAY_S) == 1
    with database.read() as conn:
        assert rows.peaks(conn, int(later // DAY_S)) == {WEB: 1}, "each day is kept, also one without changes"


def test_a_move_does_not_lift_the_most_of_seven_days(database: Database, watch: ServiceWatch) -> None:
    """For a moment the old replica and the new one are healthy; only what has lasted counts."""
    a, b = node(database, "a", ["web"]), node(database, "b")
    watch.step(database, NOW)
    heard_until(database, NOW + 7200)
    watch.step(database, NOW + 3600)
    with database.write() as change:
        kit.add_container(change.conn, b, "web", scope="shop")
    look(database, watch, b, at=NOW + 3660)
    assert expected(database, NOW + 3660) == 1
    ServiceWatch().step(database, NOW + 3700)  # another conductor, to which everything is new
    stop(database, a)
    look(database, watch, a, at=NOW + 3720)
    watch.step(database, NOW + 5000)
    assert expected(database, NOW + 5000) == 1
    with database.write() as change:
        kit.add_container(change.conn, a, "web", scope="shop")
    look(database, watch, a, at=NOW + 5060)
    watch.step(database, NOW + 5060 + LASTS_S)
    assert expected(database, NOW + 5060 + LASTS_S) == 2


def test_a_day_that_begins_during_a_move_does_not_lift_it_either(database: Database, watch: ServiceWatch) -> None:
    a, b = node(database, "a", ["web"]), node(database, "b")
    watch.step(database, NOW)
    midnight = (NOW // DAY_S + 1) * DAY_S
    heard_until(database, midnight + 60)
    with database.write() as change:
        kit.add_container(change.conn, b, "web", scope="shop")
    look(database, watch, b, at=midnight - 30)
    watch.step(database, midnight + 30)
    stop(database, a)
    look(database, watch, a, at=midnight + 60)
    assert expected(database, midnight + 60) == 1


def heard_until(db: Database, now: float) -> None:
    with db.write() as change:
        change.conn.execute(update(schema.gateways).values(heartbeat_at=now))


def expected(db: Database, now: float) -> int:
    with db.read() as conn:
        return services.one(conn, WEB, now).view.expected


def boot_event(db: Database, node_id: str, boot_id: str, cause: str, operation_id: str | None) -> None:
    values = {"kind": "boot", "text": "Booted", "cause": cause, "operation_id": operation_id, "boot_id": boot_id}
    with db.write() as change:
        change.conn.execute(insert(schema.events).values(node_id=node_id, at=NOW, **values))


def add_rollout(db: Database) -> str:
    with db.write() as change:
        change.conn.execute(
            insert(schema.rollouts).values(
                id="rollout_a", number=12, kind="update", state="succeeded", targets=[], policy={}, allowances=[],
                left_out=[], actor="mb", reason="", created_at=NOW,
            )
        )  # fmt: skip
    return "rollout_a"


def lease_row(node_id: str, operation_id: str) -> dict[str, object]:
    return {
        "id": "lease_a",
        "fleet_id": 1,
        "node_id": node_id,
        "operation_id": operation_id,
        "nonce": "n",
        "duration_s": 120.0,
        "old_boot_id": "boot-a",
        "granted_at": NOW,
    }
