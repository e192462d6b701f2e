"""Counts of a rollout partition, equal the lists behind them, and say the same as the pure rule."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Connection

from app.core.holds import HoldCode
from app.core.rollout_progress import Progress, progress, progress_at
from app.core.rollouts import RolloutNodeState
from app.store import rollout_cells, rollout_counts
from app.store.database import Database
from app.store.rollout_cells import Wanted
from app.store.rollout_counts import Through
from tests import server_kit as kit
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW

FLOOR = {"code": "service-floor", "text": "waits: checkout has 3 of at least 3", "subject": "shop/checkout"}


@pytest.fixture
def world(database: Database) -> tuple[Database, str]:
    """A rollout with a node in each combination of state and times that can be, and some more in one wave."""
    with database.write() as change:
        id = add_rollout(change.conn)
        for number, given in enumerate(_combinations()):
            add_rollout_node(change.conn, id, kit.add_node(change.conn), wave=number % 4, **given)
        other = add_rollout(change.conn)
        add_rollout_node(change.conn, other, kit.add_node(change.conn), wave=0)
    return database, id


def _combinations() -> list[dict[str, Any]]:
    times = ("staged_at", "confirmed_at", "back_at", "back_ended_at")
    return [
        {"state": state, "hold": hold, **{name: NOW + place for place, name in enumerate(chosen)}}
        for state in RolloutNodeState
        for hold in (None, FLOOR)
        for count in range(len(times) + 1)
        for chosen in itertools.combinations(times, count)
    ]


def test_sql_and_rule_agree_on_every_combination(world: tuple[Database, str]) -> None:
    database, id = world
    with database.read() as conn:
        found = rollout_cells.passages(conn, id)
    assert len(found) == len(_combinations())
    assert [(cell.name, cell.progress) for cell, _ in found] == [(cell.name, progress(way)) for cell, way in found]


def test_counts_partition_and_equal_the_lists(world: tuple[Database, str]) -> None:
    database, id = world
    with database.read() as conn:
        counts = rollout_cells.wave_counts(conn, id)
        assert sum(each.nodes for each in counts) == len(_combinations())
        for each in counts:
            wanted = Wanted(progress=each.progress, waves=(each.wave, each.wave))
            assert rollout_cells.count(conn, id, wanted) == each.nodes
            listed = rollout_cells.listed(conn, id, wanted, limit=500)
            assert [(row.wave, row.progress) for row in listed] == [(each.wave, each.progress)] * each.nodes
        assert len(rollout_cells.cells(conn, id)) == len(_combinations())


def test_reasons_are_counted_for_those_who_wait_only(database: Database) -> None:
    with database.write() as change:
        id = add_rollout(change.conn)
        pinned = {"code": "pinned", "text": "pinned to version 4.1", "subject": ""}
        holds = (FLOOR, FLOOR, {**FLOOR, "subject": "shop/catalog"}, pinned, None)
        for hold, state in itertools.product(holds, (RolloutNodeState.WAITING, RolloutNodeState.DONE)):
            add_rollout_node(change.conn, id, kit.add_node(change.conn), state=state, hold=hold)
    with database.read() as conn:
        groups = rollout_cells.held_groups(conn, id)
        assert [(each.code, each.subject, each.nodes) for each in groups] == [
            (HoldCode.SERVICE_FLOOR, "shop/checkout", 2),
            (HoldCode.PINNED, "", 1),
            (HoldCode.SERVICE_FLOOR, "shop/catalog", 1),
        ]
        for each in groups:
            assert rollout_cells.count(conn, id, Wanted(hold=each.code, subject=each.subject)) == each.nodes
        assert rollout_cells.count(conn, id, Wanted(hold=HoldCode.SERVICE_FLOOR)) == 3


def test_what_flips_and_what_failed_come_newest_first(database: Database) -> None:
    def add(conn: Connection, id: str, name: str, **given: Any) -> None:
        add_rollout_node(conn, id, kit.add_node(conn, name), **given)

    with database.write() as change:
        id = add_rollout(change.conn)
        add(change.conn, id, "moves", state=RolloutNodeState.MOVING, moving_at=NOW + 1)
        add(change.conn, id, "soaks", state=RolloutNodeState.MOVING, moving_at=NOW, confirmed_at=NOW + 2)
        add(change.conn, id, "failed", state=RolloutNodeState.FAILED, ended_at=NOW + 3, result="fell-back", text="no")
        add(change.conn, id, "goes-back", state=RolloutNodeState.FAILED, ended_at=NOW + 1, back_at=NOW + 4)
        add(change.conn, id, "done", state=RolloutNodeState.DONE, moving_at=NOW, ended_at=NOW + 5)
    with database.read() as conn:
        flipping, more = rollout_cells.on_the_way(conn, id, 9)
        assert [row.name for row in flipping] == ["goes-back", "soaks", "moves"]
        assert more == 0 and rollout_cells.on_the_way(conn, id, 2) == (flipping[:2], 1)
        assert flipping[0].slots[0].words == "1.0 booted next boot"
        found = rollout_counts.failures(conn, id, 9)
        assert [(each.name, each.result, each.text) for each in found] == [
            ("failed", "fell-back", "no"),
            ("goes-back", "", ""),
        ]
        assert rollout_counts.failed(conn, id) == (3, 2)
        assert rollout_counts.through(conn, id, NOW + 5, back=False).nodes == 1
        assert rollout_counts.through(conn, id, NOW + 6, back=False).nodes == 0
        assert rollout_counts.through(conn, id, NOW, back=True) == Through(0, NOW + 4, None)


def test_a_failure_shows_what_its_checks_printed(database: Database) -> None:
    checks = [{"name": "web", "state": "failed", "text": "exit code 1", "output": "connection refused"}]
    with database.write() as change:
        id, node_id = add_rollout(change.conn), kit.add_node(change.conn)
        operation = kit.add_operation(change.conn, node_id, state="ended", failed_checks=checks)
        add_rollout_node(change.conn, id, node_id, state=RolloutNodeState.FAILED, ended_at=NOW, operation_id=operation)
    with database.read() as conn:
        [failure] = rollout_counts.failures(conn, id, 9)
    assert failure.checks == checks


def test_progress_of_many_rollouts_and_the_one_a_node_is_in(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn)
        ended = add_rollout(change.conn, state="succeeded")
        running = add_rollout(change.conn, version="3.0")
        empty = add_rollout(change.conn)
        add_rollout_node(change.conn, ended, node_id, state=RolloutNodeState.DONE)
        add_rollout_node(change.conn, running, node_id, state=RolloutNodeState.ORDERED, wave=4)
    with database.read() as conn:
        assert rollout_counts.progress_of(conn, [ended, running, empty]) == {
            ended: {Progress.DONE: 1},
            running: {Progress.STAGING: 1},
            empty: {},
        }
        found = rollout_counts.of_node(conn, node_id, ["running", "paused"])
        assert found is not None
        assert (found.name, found.progress, found.wave) == ("web → 3.0", Progress.STAGING, 4)
        assert rollout_counts.of_node(conn, node_id, ["draft"]) is None


def test_a_replay_ends_where_the_rollout_is(database: Database) -> None:
    with database.write() as change:
        id = add_rollout(change.conn)
        times = {"ordered_at": NOW, "staged_at": NOW + 5, "moving_at": NOW + 9, "confirmed_at": NOW + 20}
        add_rollout_node(
            change.conn, id, kit.add_node(change.conn), state=RolloutNodeState.DONE, ended_at=NOW + 30, **times
        )
    with database.read() as conn:
        [(cell, way)] = rollout_cells.passages(conn, id)
    assert cell.progress is progress_at(way, NOW + 30) is Progress.DONE


def test_rows_of_other_rollouts_do_not_count(world: tuple[Database, str]) -> None:
    database, _ = world
    with database.write() as change:
        empty = add_rollout(change.conn)
    with database.read() as conn:
        assert rollout_cells.wave_counts(conn, empty) == []
        assert rollout_cells.held_groups(conn, empty) == []
