"""A node that floods its history loses its own oldest events, and nobody else's."""

from __future__ import annotations

from sqlalchemy import func, select

from app.services import retention
from app.store import retention as store
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW


def test_of_too_many_events_of_one_node_the_oldest_go(database: Database) -> None:
    with database.write() as change:
        loud, calm = kit.add_node(change.conn), kit.add_node(change.conn)
        events = [
            {"node_id": node, "at": NOW, "kind": "boot", "text": str(number)}
            for node, count in ((loud, store.EVENTS_OF_NODE + 700), (calm, 300))
            for number in range(count)
        ]
        change.conn.execute(schema.events.insert(), events)
        change.conn.execute(schema.events.insert().values(at=NOW, kind="boot", text="of no node"))
    assert retention.remove_old(database, NOW) == 700
    events_of = schema.events.c.node_id
    with database.read() as conn:
        counts = dict(conn.execute(select(events_of, func.count()).group_by(events_of)).all())
        oldest = select(schema.events.c.text).where(events_of == loud).order_by(schema.events.c.id).limit(1)
        assert conn.execute(oldest).scalar_one() == "700"
    assert counts == {loud: store.EVENTS_OF_NODE, calm: 300, None: 1}
