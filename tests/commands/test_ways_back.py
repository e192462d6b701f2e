"""Sending rollouts and nodes back by command, below floors too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from app.commands.ways_back import node, rollout
from app.core.errors import TwinrootError
from app.services.fleet import ensure_fleet
from app.store import schema
from app.store.database import Database, open_database
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW, add_node, add_operation, digest_of, two_slots

HOLD = {"code": "service-floor", "text": "waits for web/db", "subject": "web/db", "until": None}


@pytest.fixture
def url(tmp_path: Path, sqlite_template: Path) -> str:
    (tmp_path / "twinroot.db").write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path / 'twinroot.db'}"


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(open_database(url)) as found:
        ensure_fleet(found, NOW)
        yield found


def run(url: str, command: click.Command, *arguments: str) -> str:
    """What it says; of a refusal the sentence."""
    done = CliRunner().invoke(
        command, arguments, env={"TWINROOT_DATABASE_URL": url, "TWINROOT_SECRET_KEY": "a secret of the tests"}
    )
    if isinstance(done.exception, TwinrootError):
        assert done.exit_code != 0
        return done.exception.text
    assert done.exit_code == 0, done.output
    return done.stdout


def moved(db: Database, state: str, **given: Any) -> None:
    """Rollout 1, which brought web-1 (a canary) and web-2 to 2.0."""
    with db.write() as change:
        rollout_id = add_rollout(change.conn, state=state, number=1, **given)
        for wave, name in enumerate(("web-1", "web-2")):
            slots = two_slots("2.0", "1.0", passive_good=True)
            node_id = add_node(change.conn, name, version="2.0", booted_digest=digest_of("2.0"), slots=slots)
            over = {"state": "ended", "result": "succeeded", "ended_at": NOW}
            operation = add_operation(change.conn, node_id, rollout_id=rollout_id, **over)
            row = {"state": "done", "operation_id": operation, "moving_at": NOW, "ended_at": NOW}
            add_rollout_node(change.conn, rollout_id, node_id, wave=wave, **row)


def going_back(db: Database) -> None:
    """web-1 has its order to go back in rollout 1, and a floor holds it."""
    moved(db, "rolling-back")
    with db.write() as change:
        rows, nodes = schema.rollout_nodes, schema.nodes
        (rollout_id, node_id) = change.conn.execute(
            select(rows.c.rollout_id, rows.c.node_id).join(nodes, nodes.c.id == rows.c.node_id).where(rows.c.wave == 0)
        ).one()
        order = {"rollout_id": rollout_id, "target_version": "1.0", "phase": "staged", "hold": HOLD}
        operation = add_operation(change.conn, node_id, kind="rollback", **order)
        change.conn.execute(update(nodes).where(nodes.c.id == node_id).values(desired_operation_id=operation))
        back = update(rows).where(rows.c.node_id == node_id).values(back_operation_id=operation, back_at=NOW, hold=HOLD)
        change.conn.execute(back)


def rollouts(db: Database) -> list[tuple[int, str, bool]]:
    columns = schema.rollouts.c
    with db.read() as conn:
        query = select(columns.number, columns.state, columns.override_floor).order_by(columns.number)
        return [tuple(row) for row in conn.execute(query)]  # type: ignore[misc]


def overridden(db: Database) -> int:
    with db.read() as conn:
        return len(conn.execute(select(schema.operations.c.id).where(schema.operations.c.override_floor)).all())


def test_a_rollout_that_runs_is_rolled_back(url: str, db: Database) -> None:
    moved(db, "running")
    assert run(url, rollout, "roll-back", "1", "--reason", "slow") == "Rollout 1 sends them back.\n"
    assert rollouts(db) == [(1, "rolling-back", False)]
    assert "Rollout 7" not in run(url, rollout, "roll-back", "7", "--reason", "x")


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_a_wave_is_sent_back_below_floors(url: str, db: Database, state: str) -> None:
    moved(db, state)
    said = run(url, rollout, "roll-back", "1", "--wave", "0", "--override-floor", "--reason", "slow")
    assert said == "Rollout 2 sends them back.\n"
    paused = "paused" if state == "running" else state
    assert rollouts(db) == [(1, paused, False), (2, "running", True)]


def test_a_rollout_that_is_going_back_is_let_go(url: str, db: Database) -> None:
    going_back(db)
    assert "is rolling back" in run(url, rollout, "roll-back", "1", "--reason", "slow")
    assert "leave --wave out" in run(
        url, rollout, "roll-back", "1", "--wave", "0", "--override-floor", "--reason", "slow"
    )
    assert overridden(db) == 0
    assert run(url, rollout, "roll-back", "1", "--override-floor", "--reason", "it burns")
    assert rollouts(db) == [(1, "rolling-back", True)] and overridden(db) == 1


def test_a_node_that_is_going_back_is_let_go(url: str, db: Database) -> None:
    going_back(db)
    assert "is going back to 1.0 already" in run(url, node, "roll-back", "web-1", "--reason", "again")
    said = run(url, node, "roll-back", "web-1", "--override-floor", "--reason", "users wait")
    assert said == "web-1 goes back, also below floors.\n"
    assert overridden(db) == 1 and rollouts(db) == [(1, "rolling-back", False)]
    assert "There is no node" in run(url, node, "roll-back", "web-9", "--reason", "x")
