"""What the transaction that grants refuses whatever a plan thought: domains, turns, and all but one of many claims."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import func, select, update

from app.services.admission_apply import Chosen
from app.services.node_views import Setting
from app.store import schema
from app.store.database import Database, open_database
from tests.rollout_kit import add_rollout, add_rollout_node
from tests.server_kit import NOW
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, change_node, choose, grant, group, holders, node
from wire.messages import OperationKind

CLAIMS = 50


def zoned(db: Database, *names: str) -> dict[str, str]:
    """Nodes that ask, each in the zone that its name begins with; ids by name."""
    fleet.gateway(db)
    ids = {name: node(db, name, labels={"zone": name[0]}) for name in names}
    for node_id in ids.values():
        asks(db, node_id)
    return ids


def all_of(ids: Sequence[str], *, canary: bool = False, kind: OperationKind = OperationKind.ACTIVATE) -> list[Chosen]:
    """The plan of a conductor that lets all of these go at once."""
    return [Chosen(f"op_{node_id}", node_id, None, kind, canary) for node_id in ids]


def setting_of(db: Database) -> Setting:
    return choose(db, NOW + 1)[0]


def test_no_more_of_a_domain_than_may_be_away(database: Database) -> None:
    group(database, domain_label="zone", max_per_domain=1, max_unavailable={"count": 4})
    ids = zoned(database, "a1", "a2", "b1", "b2")
    applied = grant(database, (setting_of(database), all_of(list(ids.values()))), NOW + 1)
    assert holders(database) == {"a1", "b1"} and applied.stale
    applied = grant(database, (setting_of(database), all_of([ids["a2"], ids["b2"]])), NOW + 2)
    assert applied.granted == () and holders(database) == {"a1", "b1"}


def test_a_node_of_the_domain_that_is_away_by_itself_counts(database: Database) -> None:
    group(database, domain_label="zone", max_per_domain=1, max_unavailable={"count": 4})
    ids = zoned(database, "a1", "a2", "b1")
    seen = setting_of(database), all_of([ids["a2"], ids["b1"]])
    change_node(database, ids["a1"], connection="offline")
    grant(database, seen, NOW + 1)
    assert holders(database) == {"b1"}


def test_one_domain_after_another(database: Database) -> None:
    group(database, domain_label="zone", one_domain_after_another=True, max_unavailable={"count": 4})
    ids = zoned(database, "b1", "a1", "a2")
    applied = grant(database, (setting_of(database), all_of([ids["a1"], ids["b1"], ids["a2"]])), NOW + 1)
    assert holders(database) == {"a1", "a2"} and applied.stale


def test_a_domain_keeps_its_turn_while_a_node_of_it_is_away(database: Database) -> None:
    group(database, domain_label="zone", one_domain_after_another=True, max_unavailable={"count": 4})
    ids = zoned(database, "a1", "b1", "b2")
    seen = setting_of(database)
    assert grant(database, (seen, all_of([ids["a1"]])), NOW + 1).granted
    assert grant(database, (seen, all_of([ids["b1"]])), NOW + 2).granted == ()
    grant(database, (seen, all_of([ids["b2"]], canary=True)), NOW + 2)
    assert holders(database) == {"a1", "b2"}, "canaries go before all turns"
    with database.write() as change:
        change.conn.execute(update(schema.leases).values(ended_at=NOW + 2))
    assert grant(database, (seen, all_of([ids["b1"]])), NOW + 3).granted


def test_a_domain_keeps_its_turn_while_a_node_of_it_soaks(database: Database) -> None:
    group_id = group(database, domain_label="zone", one_domain_after_another=True, max_unavailable={"count": 4})
    ids = zoned(database, "a1", "b1")
    with database.write() as change:
        rollout_id = add_rollout(change.conn, group_id=group_id)
        exposed = {"state": "moving", "operation_id": f"op_{ids['a1']}", "moving_at": NOW, "confirmed_at": NOW}
        add_rollout_node(change.conn, rollout_id, ids["a1"], **exposed)
        soaks = {"rollout_id": rollout_id, "phase": "soaking"}
        of_a1 = schema.operations.c.id == f"op_{ids['a1']}"
        change.conn.execute(update(schema.operations).where(of_a1).values(**soaks))
        change.touch("rollouts")
    seen = setting_of(database)
    assert grant(database, (seen, all_of([ids["b1"]])), NOW + 1).granted == ()
    with database.write() as change:
        change.conn.execute(update(schema.operations).where(of_a1).values(state="ended", ended_at=NOW))
        change.conn.execute(update(schema.rollout_nodes).values(state="done", ended_at=NOW))
        change.touch("rollouts")
    assert grant(database, (setting_of(database), all_of([ids["b1"]])), NOW + 1).granted


def test_fifty_claims_at_once_on_a_budget_of_one(database: Database) -> None:
    """Fifty conductors, each with a connection of its own, have chosen each another node before any of them grants."""
    fleet.gateway(database)
    group(database, max_unavailable={"count": 1})
    ids = [node(database, f"n{number:02}") for number in range(CLAIMS)]
    for node_id in ids:
        asks(database, node_id)
    setting = setting_of(database)
    ready = threading.Barrier(CLAIMS)
    granted: list[int] = []

    def conduct(node_id: str) -> None:
        url = database.engine.url.render_as_string(hide_password=False)
        with closing(open_database(url)) as own:
            with own.read() as conn:
                conn.execute(select(schema.fleet.c.id)).all()  # it is connected
            ready.wait()
            granted.append(len(grant(own, (setting, all_of([node_id])), NOW + 1).granted))

    threads = [threading.Thread(target=conduct, args=(node_id,)) for node_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [0] * (CLAIMS - 1) + [1]
    with database.read() as conn:
        assert conn.execute(select(func.count()).select_from(schema.leases)).scalar_one() == 1
