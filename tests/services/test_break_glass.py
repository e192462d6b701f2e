"""Passing freezes and windows is somebody's word, for a reason: it stands in the audit log, or does not happen."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.core.errors import NotPossible
from app.services import rollouts as service
from app.services.rollout_spec import RolloutSpec
from app.store import rollouts, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_group, add_rollout
from tests.server_kit import NOW, OPERATOR


def passes(db: Database, rollout_id: str) -> bool:
    with db.read() as conn:
        found = rollouts.get(conn, rollout_id)
    assert found is not None
    return found.break_glass


@pytest.fixture
def rollout_id(database: Database) -> str:
    with database.write() as change:
        return add_rollout(change.conn)


def test_it_is_audited_when_it_is_given_and_when_it_is_taken_away(database: Database, rollout_id: str) -> None:
    service.set_break_glass(database, OPERATOR, rollout_id, True, "a hole in the kernel", NOW)
    assert passes(database, rollout_id)
    with pytest.raises(NotPossible):
        service.set_break_glass(database, OPERATOR, rollout_id, True, "again", NOW + 1)
    service.set_break_glass(database, OPERATOR, rollout_id, False, "it is closed", NOW + 2)
    assert not passes(database, rollout_id)
    with database.read() as conn:
        rows = conn.execute(select(schema.audit).order_by(schema.audit.c.id)).all()
        events = [event.text for event in rollouts.events(conn, rollout_id)]
    given = {"break_glass": True}
    taken = {"break_glass": False}
    assert [(row.action, row.object, row.actor_name, row.reason, row.before, row.after, row.at) for row in rows] == [
        ("rollout.break-glass", f"rollout:{rollout_id}", "mb", "a hole in the kernel", taken, given, NOW),
        ("rollout.break-glass", f"rollout:{rollout_id}", "mb", "it is closed", given, taken, NOW + 2),
    ]
    assert sorted(events) == [
        "Heeds freezes and windows again, by mb: “it is closed”",
        "Passes freezes and windows, by mb: “a hole in the kernel”",
    ]


@pytest.mark.parametrize("on", [True, False])
def test_without_its_audit_entry_it_does_not_happen(database: Database, rollout_id: str, on: bool) -> None:
    with database.write() as change:
        change.conn.execute(schema.rollouts.update().values(break_glass=not on))
        change.conn.execute(text("ALTER TABLE audit RENAME TO audit_away"))
    with pytest.raises(DBAPIError, match="audit"):
        service.set_break_glass(database, OPERATOR, rollout_id, on, "why", NOW)
    assert passes(database, rollout_id) is not on


def test_a_draft_that_is_made_with_it_says_so_in_the_log(database: Database) -> None:
    with database.write() as change:
        group_id = add_group(change.conn)
        kit.add_image(change.conn, "2.0")
        kit.add_node(change.conn, labels={"role": "web"})
        change.touch("groups", "nodes")
    spec = RolloutSpec(group_id=group_id, version="2.0", reason="a hole in the kernel", break_glass=True)
    made = service.draft(database, OPERATOR, spec, NOW)
    assert passes(database, made)
    with database.read() as conn:
        (entry,) = conn.execute(select(schema.audit).where(schema.audit.c.object == f"rollout:{made}"))
    assert (entry.actor_name, entry.reason, entry.after["break_glass"]) == ("mb", "a hole in the kernel", True)
