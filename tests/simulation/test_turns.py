"""The simulation sees a lease that is out of turn, and none that goes beside one or after it."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, insert

from app.store import schema
from app.store.database import Database
from sim.scenario import parse_scenario
from tests import rollout_kit, server_kit
from tests.server_kit import NOW
from tests.simulation.story import GroupPlan, Story
from tests.simulation.turns import Turns

ZONES = {1: "a", 2: "b", 3: "a"}


def _turns(*, in_turns: bool = True) -> Turns:
    scenario = parse_scenario("[fleet]\nnodes = 3\nzones = ['a', 'b']\n")
    group = GroupPlan("all", "zone", "", 3, 0, {"domain_label": "zone", "one_domain_after_another": in_turns})
    return Turns(Story(0, scenario, "2.0.0", [group], [], [], 1, 60.0, 1.0), ZONES)


def _moves(conn: Connection, rollout_id: str, number: int, *, leased: bool = True, canary: bool = False) -> str:
    """The node moves in the rollout; `leased`: its lease is out."""
    node_id = server_kit.add_node(conn, f"node-{number}", id=f"node_{number:026d}")
    operation_id = server_kit.add_operation(conn, node_id, rollout_id=rollout_id, target_version="2.0.0")
    row = {"state": "moving", "operation_id": operation_id, "moving_at": NOW, "canary": canary}
    rollout_kit.add_rollout_node(conn, rollout_id, node_id, **row)
    if leased:
        lease = {"id": f"lease_{number}", "fleet_id": 1, "node_id": node_id, "operation_id": operation_id, "nonce": "n"}
        conn.execute(insert(schema.leases).values(**lease, duration_s=60.0, old_boot_id="", granted_at=NOW))
    return operation_id


@pytest.mark.parametrize("how", ["at once", "later", "soaks", "stopped", "not in turns"])
def test_a_lease_while_another_domain_is_on_its_way(database: Database, how: str) -> None:
    turns, exposed = _turns(in_turns=how != "not in turns"), {}
    with database.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn, state="paused" if how == "stopped" else "running")
        operation_id = _moves(change.conn, rollout_id, 1, leased=how in ("at once", "later", "not in turns"))
        if how in ("soaks", "stopped"):
            exposed = {1: operation_id}
        if how == "later":
            assert turns.look(change.conn, exposed) == ""
        _moves(change.conn, rollout_id, 2)
        found = turns.look(change.conn, exposed)
        assert bool(found) == (how not in ("stopped", "not in turns"))
        assert not found or "got its lease out of turn" in found
        assert turns.look(change.conn, exposed) == "", "it is said once"


@pytest.mark.parametrize("why", ["canary", "back", "its own domain is on its way", "it is over"])
def test_what_goes_beside_the_turns(database: Database, why: str) -> None:
    turns = _turns()
    with database.write() as change:
        conn = change.conn
        forth = rollout_kit.add_rollout(conn)
        back = rollout_kit.add_rollout(conn, kind="rollback")
        if why != "it is over":
            _moves(conn, forth, 2)
        if why == "its own domain is on its way":
            _moves(conn, forth, 3, canary=True)
        assert turns.look(conn, {}) == ""
        _moves(conn, back if why == "back" else forth, 1, canary=why == "canary")
        assert turns.look(conn, {}) == ""
