"""A passive slot is the way back until the rollout that brought the node to what it runs is over (rule 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from app.config import Settings
from app.core.errors import NotPossible
from app.core.group_policy import Amount
from app.core.holds import HoldCode
from app.core.rollouts import RolloutKind, RolloutNodeState, RolloutState
from app.services import nodes, rollout_waiting, rollouts
from app.services.rollout_orders import give_orders
from app.services.rollout_preview import preview
from app.services.rollout_spec import RolloutSpec
from app.store import rollout_nodes, schema
from app.store import rollouts as store
from app.store.database import Change, Database, Priority
from tests import server_kit as kit
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.rollout_world import QUICK, World
from tests.services.test_rollout_orders import POLICY, hold_of, joins, ordered
from tests.services.test_rollouts import ON_SQLITE, begin

DONE, WAITING = RolloutNodeState.DONE, RolloutNodeState.WAITING
WIDE = replace(QUICK, canaries=Amount(count=0), max_unavailable=Amount(count=3))


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    """Two nodes; n0 is done in a rollout to 2.0 that is paused, and n1 has not moved in it."""
    made = World(database, settings, 2, replace(WIDE, max_unavailable=Amount(count=1)))
    with database.write() as change:
        made.images["3.0"] = kit.add_image(change.conn, "3.0")
    return made


def half_done(world: World) -> tuple[str, str]:
    """Id of the paused rollout, and the name of the node that it moved."""
    older = begin(world)
    world.run_until(lambda: DONE in world.states(older).values())
    rollouts.pause(world.db, OPERATOR, older, "lunch", world.now)
    world.run_until(
        lambda: all(world.open_operations(name) == 0 or name != _done(world, older) for name in world.nodes)
    )
    return older, _done(world, older)


def _done(world: World, rollout_id: str) -> str:
    return next(name for name, state in world.states(rollout_id).items() if state is DONE)


def held(world: World, rollout_id: str, name: str) -> Any:
    hold = world.rows(rollout_id)[name].hold
    return None if hold is None else (hold["code"], hold["subject"])


def test_a_newer_rollout_waits_until_the_one_that_moved_the_node_is_over(world: World) -> None:
    older, moved = half_done(world)
    newer = begin(world, version="3.0")
    for _ in range(6):
        world.tick()
    assert world.nodes[moved].passive.version == "1.0", "its way back is still there"
    assert world.states(newer)[moved] is WAITING
    assert held(world, newer, moved) == (HoldCode.KEEPING_WAY_BACK, older)
    assert f"rollout {world.rollout(older).number}" in world.rows(newer)[moved].hold["text"]  # type: ignore[index]
    rollouts.abort(world.db, OPERATOR, older, "3.0 is out", world.now)
    world.run(newer, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"3.0"}


@ON_SQLITE
def test_what_a_newer_rollout_takes_ends_the_older_one_and_then_all_move(world: World) -> None:
    """Nobody has to do anything where the older one runs: its nodes that have not moved are taken, which ends it."""
    older = begin(world)
    world.run_until(lambda: DONE in world.states(older).values())
    newer = begin(world, version="3.0")
    world.run(older, until=RolloutState.SUCCEEDED)
    world.run(newer, until=RolloutState.SUCCEEDED)
    assert set(world.versions().values()) == {"3.0"}


@ON_SQLITE
def test_a_paused_rollout_that_rolls_back_finds_its_way_back_where_it_was(world: World) -> None:
    older, moved = half_done(world)
    newer = begin(world, version="3.0")
    for _ in range(6):
        world.tick()
    rollouts.roll_back(world.db, OPERATOR, older, "2.0 is slow", world.now)
    world.run(older, until=RolloutState.ROLLED_BACK)
    with world.db.read() as conn:
        back = rollout_nodes.get(conn, older, world.nodes[moved].id)
        kinds = [row.kind for row in conn.execute(schema.operations.select()) if row.id == back.back_operation_id]  # type: ignore[union-attr]
    assert kinds == ["rollback"], "from the slot that was still there, not by a download"
    world.run(newer, until=RolloutState.SUCCEEDED)


@ON_SQLITE
def test_an_operator_is_refused_and_told_which_rollout_it_is(world: World) -> None:
    older, moved = half_done(world)
    node_id = world.nodes[moved].id
    number = world.rollout(older).number
    before = kit.count_rows(world.db, schema.audit)
    with pytest.raises(NotPossible, match=f"keeps its way back for rollout {number}, which is not over") as refused:
        nodes.update(world.db, OPERATOR, node_id, world.images["3.0"], "hotfix", world.now)
    assert refused.value.code == "keeping-way-back" and kit.count_rows(world.db, schema.audit) == before
    rollouts.abort(world.db, OPERATOR, older, "3.0 is out", world.now)
    nodes.update(world.db, OPERATOR, node_id, world.images["3.0"], "hotfix", world.now)


@ON_SQLITE
def test_a_way_back_is_never_kept_from_its_slot(world: World) -> None:
    _, moved = half_done(world)
    nodes.roll_back(world.db, OPERATOR, world.nodes[moved].id, "2.0 is slow", world.now)
    world.run_until(lambda: world.nodes[moved].version == "1.0" and world.open_operations(moved) == 0)
    nodes.update(world.db, OPERATOR, world.nodes[moved].id, world.images["3.0"], "back on 1.0", world.now)


@ON_SQLITE
def test_the_plan_of_a_draft_counts_who_keeps_its_way_back_and_starts_with_others(world: World) -> None:
    older, moved = half_done(world)
    spec = RolloutSpec(
        group_id=world.group_id, version="3.0", reason="why", overrides={"canaries": {"count": 1}, "canary_soak_s": 0}
    )
    seen = preview(world.db, spec, world.now)
    (hold,) = [hold for place in seen.candidates if (hold := seen.plan.holds[place]).code is HoldCode.KEEPING_WAY_BACK]
    assert hold.subject == older
    assert seen.canaries == {node.id for name, node in world.nodes.items() if name != moved}
    assert world.nodes[moved].id not in {node_id for wave in seen.waves() for node_id in wave}
    assert "keeps its way back" in seen.estimate.never
    more = preview(world.db, replace(spec, overrides={"canaries": {"count": 2}}), world.now)
    assert len(more.canaries) == 2, "where there are too few others"
    begun = begin(world, version="3.0")
    assert HoldCode.KEEPING_WAY_BACK in {
        seen.plan.holds[place].code for seen in [preview(world.db, begun, world.now)] for place in seen.candidates
    }


# --- by the query -------------------------------------------------------------------------------------------


def moved_by(db: Database, node_id: str, *, of_row: dict[str, Any] | None = None, **of_rollout: Any) -> str:
    """A rollout that brought the node to 1.0, which it runs."""
    with db.write() as change:
        rollout_id = add_rollout(change.conn, **of_rollout)
        ended = {"state": "ended", "result": "succeeded", "ended_at": NOW, "rollout_id": rollout_id}
        operation_id = kit.add_operation(change.conn, node_id, target_version="1.0", old_version="0.9", **ended)
        row = {"state": "done", "operation_id": operation_id, "moving_at": NOW - 60, "old_version": "0.9"}
        add_rollout_node(change.conn, rollout_id, node_id, **(row | (of_row or {})))
    return rollout_id


def newer(db: Database, kind: RolloutKind = RolloutKind.UPDATE) -> str:
    with db.write() as change:
        targets = [kit.add_image(change.conn, "2.0")] if kind is RolloutKind.UPDATE else []
        return add_rollout(change.conn, kind=kind.value, targets=targets, policy=store.policy_json(POLICY))


@pytest.mark.parametrize("state", list(RolloutState))
@ON_SQLITE
def test_every_state_but_the_ends_keeps_it(database: Database, state: RolloutState) -> None:
    over = state in (RolloutState.ABORTED, RolloutState.ROLLED_BACK, RolloutState.SUCCEEDED, RolloutState.DRAFT)
    id = newer(database)
    node_id = joins(database, id)
    keeper = moved_by(database, node_id, state=state.value)
    assert give_orders(database, NOW) == (1 if over else 0)
    rollout_waiting.note_holds(database, NOW)
    assert hold_of(database, id, node_id) == (None if over else HoldCode.KEEPING_WAY_BACK)
    with database.write() as change:
        change.conn.execute(
            update(schema.rollouts).where(schema.rollouts.c.id == keeper).values(state="aborted", ended_at=NOW)
        )
    rollout_waiting.note_holds(database, NOW + 1)
    give_orders(database, NOW + 1)
    assert ordered(database, id) == {node_id} and hold_of(database, id, node_id) is None


FREE: dict[str, Callable[[Database, str], object]] = {
    "a reboot moved it": lambda db, node_id: moved_by(db, node_id, kind="reboot"),
    "a way back moved it": lambda db, node_id: moved_by(db, node_id, kind="rollback"),
    "it was sent back": lambda db, node_id: moved_by(db, node_id, of_row={"back_ended_at": NOW}, state="rolling-back"),
    "it left unmoved": lambda db, node_id: moved_by(db, node_id, of_row={"state": "left", "moving_at": None}),
    "it has moved on": lambda db, node_id: _runs(db, node_id, moved_by(db, node_id)),
}


def _runs(db: Database, node_id: str, _rollout_id: str) -> None:
    with db.write() as change:
        other = {"version": "1.1", "booted_digest": digest_of("1.1")}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**other))


@pytest.mark.parametrize("why", FREE)
@ON_SQLITE
def test_who_was_not_brought_to_what_it_runs_keeps_nothing(database: Database, why: str) -> None:
    id = newer(database)
    node_id = joins(database, id)
    FREE[why](database, node_id)
    assert give_orders(database, NOW) == 1


@pytest.mark.parametrize("row", [{"state": "moving"}, {"state": "ordered"}, {"state": "failed"}, {"state": "left"}])
@ON_SQLITE
def test_also_before_its_row_says_that_it_is_done(database: Database, row: dict[str, Any]) -> None:
    id = newer(database)
    node_id = joins(database, id)
    moved_by(database, node_id, of_row=row)
    assert give_orders(database, NOW) == 0


@pytest.mark.parametrize("kind", [RolloutKind.REBOOT, RolloutKind.ROLLBACK])
@ON_SQLITE
def test_reboots_and_ways_back_do_not_wait_for_it(database: Database, kind: RolloutKind) -> None:
    id = newer(database, kind)
    node_id = joins(database, id)
    moved_by(database, node_id)
    with database.write() as change:
        change.conn.execute(update(schema.rollout_nodes).values(old_digest=digest_of("1.0")))
    assert give_orders(database, NOW) == 1


@ON_SQLITE
def test_many_who_keep_theirs_do_not_take_the_turn_of_the_others(database: Database) -> None:
    id = newer(database)
    kept = [joins(database, id, wave=1) for _ in range(30)]
    for node_id in kept:
        moved_by(database, node_id)
    free = [joins(database, id, wave=2) for _ in range(3)]
    give_orders(database, NOW)
    assert ordered(database, id) == set(free)


class Meanwhile(Database):
    """Something happens just before its first transaction."""

    def __init__(self, db: Database, happens: Callable[[], object]) -> None:
        super().__init__(db.engine, db.nudges)
        self._db, self._happens = db, [happens]

    @contextmanager
    def write(self, priority: Priority = Priority.OPERATOR) -> Iterator[Change]:
        while self._happens:
            self._happens.pop()()
        with self._db.write(priority) as change:
            yield change


def test_the_transaction_that_orders_looks_again(database: Database) -> None:
    id = newer(database)
    node_id = joins(database, id)
    assert give_orders(Meanwhile(database, lambda: moved_by(database, node_id)), NOW) == 0
    assert ordered(database, id) == set()
