"""What needs a person: each condition makes an entry, people take it or put it aside, and it leaves by itself."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from app.core.actors import CONDUCTOR, Actor, ActorKind
from app.core.errors import Invalid, NotFound, NotPossible
from app.services import attention
from app.services.attention import EntryKind
from app.services.freezes import freeze
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW, OPERATOR
from tests.services.test_service_watch import lease_row

ANA = Actor(ActorKind.PERSON, "ana", "ana")
FLOOR = {"code": "service-floor", "text": "waits for db", "subject": "shop/db"}
WINDOW = {"code": "window", "text": "waits for the window", "subject": ""}


def seen(db: Database, now: float = NOW, put_aside: bool = False) -> list[tuple[EntryKind, str]]:
    with db.read() as conn:
        return [(one.kind, one.subject) for one in attention.entries(conn, now, put_aside=put_aside)]


@pytest.fixture
def halted(database: Database) -> str:
    """Subject of a halted rollout."""
    with database.write() as change:
        return f"rollout:{add_rollout(change.conn, state='halted', state_text='Halted: n1 failed', moved_at=NOW)}"


def test_each_condition_makes_an_entry_in_the_order_of_urgency(database: Database, halted: str) -> None:
    with database.write() as change:
        conn = change.conn
        slow = {"moved_at": NOW - 5 * 3600, "policy": {}}
        stuck, timed, young = add_rollout(conn, **slow), add_rollout(conn, **slow), add_rollout(conn, moved_at=NOW)
        draft = add_rollout(conn, state="draft", state_text="Not started by itself: no node")
        add_rollout(conn, state="draft")
        for rollout_id, hold in ((stuck, FLOOR), (timed, WINDOW), (young, FLOOR)):
            add_rollout_node(conn, rollout_id, kit.add_node(conn), hold=hold)
        kit.add_node(conn, "new", id="node_new", admission="pending")
    freeze(database, CONDUCTOR, group_id=None, reason="the database is older than the fleet", now=NOW, ends_at=None)
    assert seen(database, NOW + 1) == [
        (EntryKind.NEW_EPOCH, "fleet"),
        (EntryKind.HALTED, halted),
        (EntryKind.NOT_MOVING, f"rollout:{stuck}"),
        (EntryKind.NOT_STARTED, f"rollout:{draft}"),
        (EntryKind.PENDING, "node:node_new"),
    ]


def test_what_is_lost_at_once_is_one_entry_until_half_of_it_is_back(database: Database) -> None:
    """Six of eight nodes, all four of zone a among them; the list of long offline ones takes over after an hour."""
    with database.write() as change:
        conn = change.conn
        ids = [kit.add_node(conn, labels={"zone": "ab"[place // 4]}, last_seen_at=NOW) for place in range(8)]
        gone = schema.nodes.c.id.in_(ids[:6])
        conn.execute(update(schema.nodes).where(gone).values(connection="offline", last_seen_at=NOW - 60))
    assert seen(database) == [(EntryKind.LOST, "fleet")], "the zone in it is no entry of its own"
    with database.read() as conn:
        [entry] = attention.entries(conn, NOW)
        assert (entry.name, entry.at) == ("The whole fleet", NOW - 60)
        assert entry.text == "6 of 8 nodes went silent at about the same time, and are offline"
    assert seen(database, NOW + 3400) == [(EntryKind.LOST, "fleet")], "longer than clocks stand still for it"
    assert {kind for kind, _ in seen(database, NOW + 3700)} == {EntryKind.OFFLINE}
    with database.write() as change:
        back = schema.nodes.c.id.in_(ids[4:6] + ids[:1])
        change.conn.execute(update(schema.nodes).where(back).values(connection="online", last_seen_at=NOW))
    assert seen(database) == [(EntryKind.LOST, "domain:zone=a")], "three of eight are no half of the fleet"
    with database.write() as change:
        operation = kit.add_operation(change.conn, ids[1], "reboot")
        change.conn.execute(insert(schema.leases).values(lease_row(ids[1], operation)))
    assert seen(database) == [], "who reboots under a lease of ours is not lost"


def test_taking_belongs_to_one_and_anybody_releases(database: Database, halted: str) -> None:
    attention.take(database, OPERATOR, "halted", halted, "looking", NOW)
    with database.read() as conn:
        (entry,) = attention.entries(conn, NOW)
    assert entry.mark is not None and (entry.mark.owner, entry.mark.note) == ("mb", "looking")
    with pytest.raises(NotPossible, match="mb has it"):
        attention.take(database, ANA, "halted", halted, "", NOW)
    attention.release(database, ANA, "halted", halted, "mb is on holiday", NOW)
    attention.take(database, ANA, "halted", halted, "", NOW)
    with database.read() as conn:
        actions = [row.action for row in conn.execute(schema.audit.select().order_by(schema.audit.c.id))]
    assert actions == ["attention.take", "attention.release", "attention.take"]


def test_what_is_put_aside_returns_when_the_time_is_over(database: Database, halted: str) -> None:
    attention.snooze(database, OPERATOR, "halted", halted, NOW + 60, "lunch", NOW)
    assert seen(database) == [] and seen(database, put_aside=True) == [(EntryKind.HALTED, halted)]
    assert seen(database, NOW + 60) == [(EntryKind.HALTED, halted)]


def test_an_entry_leaves_with_its_condition(database: Database, halted: str) -> None:
    """What somebody said of it stays in the audit log."""
    attention.take(database, OPERATOR, "halted", halted, "mine, after lunch", NOW)
    attention.snooze(database, OPERATOR, "halted", halted, NOW + 60, "lunch", NOW)
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(state="running"))
    assert seen(database) == []
    assert attention.forget_over(database, NOW) == 1 and attention.forget_over(database, NOW) == 0
    assert kit.count_rows(database, schema.attention_marks) == 0
    with database.read() as conn:
        (entry,) = conn.execute(select(schema.audit).where(schema.audit.c.action == "attention.forget"))
    assert (entry.actor_name, entry.object, entry.after) == ("conductor", f"halted {halted}", None)
    assert entry.before == {"owner": OPERATOR.name, "until": NOW + 60, "note": "lunch"}


def test_wrong_marks(database: Database, halted: str) -> None:
    for until in (NOW, NOW + 40 * 86_400):
        with pytest.raises(Invalid):
            attention.snooze(database, OPERATOR, "halted", halted, until, "", NOW)
    with pytest.raises(NotFound):
        attention.take(database, OPERATOR, "halted", "rollout:no", "", NOW)
    with pytest.raises(NotPossible):
        attention.release(database, OPERATOR, "halted", halted, "", NOW)
    assert kit.count_rows(database, schema.attention_marks) == 0
