"""Floors while nodes come back: what ran before a connection was opened is no claim about what runs now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from app.core.snapshot import NodeView
from app.services import connections, declare, intake
from app.services.admission import grant_leases
from app.services.admission_apply import Chosen
from app.services.connections import Claim, End, Gone, Verdict
from app.services.intake import Fate, Report, Sections
from app.services.node_views import NodeReader, read_setting
from app.services.service_watch import ServiceWatch
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW, OPERATOR
from tests.services import admission_kit as fleet
from tests.services.admission_kit import asks, choose, grant, group, holders, node, told
from wire.messages import Container, OperationKind, Placement

LABELLED = ("web", {"replicas": 3})


@pytest.fixture
def three(database: Database) -> list[str]:
    """A replica on each of three nodes, and a floor of two; they are connected and said what runs there."""
    fleet.gateway(database)
    group(database, max_unavailable={"count": 3})
    ids = [node(database, name, [LABELLED]) for name in "abc"]
    ServiceWatch().step(database, NOW)
    return ids


def row(db: Database, node_id: str) -> Any:
    with db.read() as conn:
        return conn.execute(select(schema.nodes).where(schema.nodes.c.id == node_id)).one()


def claim_of(db: Database, node_id: str, boot_id: str = "", machine_id: str = "") -> Claim:
    """A new connection of the node; on the boot that it was on, unless it names another."""
    known = row(db, node_id)
    end = End("10.0.0.1", machine_id or known.machine_id, known.hardware, boot_id or known.boot_id, NOW)
    return Claim(node_id, fleet.GATEWAY, f"conn_{node_id}", end, "our key")


def comes_back(db: Database, node_id: str, boot_id: str = "") -> None:
    (answer,) = connections.claim(db, [claim_of(db, node_id, boot_id)], NOW)
    assert answer.verdict is Verdict.CLAIMED


def says(db: Database, node_id: str, placement: Placement) -> None:
    """The first status over the connection with which it came back."""
    report = Report(node_id, f"conn_{node_id}", NOW, Sections(placement=placement))
    (outcome,) = intake.apply(db, [report], NOW)
    assert outcome.fate is Fate.STORED


def runs(health: str = "healthy") -> Placement:
    return Placement(
        known=True,
        containers=[
            Container(
                id="c1",
                name="web-1",
                image="web",
                service="web",
                scope="shop",
                state="running",
                health=health,
                replicas=3,
            )
        ],
    )


def view_of(db: Database, node_id: str) -> NodeView:
    with db.read() as conn:
        (view,) = NodeReader(read_setting(conn, NOW)).read(conn, [node_id])
    return view


def everybody(ids: Sequence[str]) -> list[Chosen]:
    return [Chosen(f"op_{each}", each, None, OperationKind.ACTIVATE, False) for each in ids]


@pytest.mark.parametrize("boot_id", ["the next boot", ""])
def test_who_has_come_back_serves_when_it_has_said_so(database: Database, three: list[str], boot_id: str) -> None:
    """After a reboot that nobody saw its containers start anew; on the same boot they may have stopped meanwhile."""
    back, other, _ = three
    comes_back(database, back, boot_id)
    asks(database, other)
    grant_leases(database, NOW + 1)
    assert holders(database) == set() and told(database, other) == "service-floor"
    says(database, back, runs("starting"))
    asks(database, other, NOW + 2, nonce="n2")
    grant_leases(database, NOW + 2)
    assert holders(database) == set() and told(database, other) == "service-floor"
    says(database, back, runs())
    asks(database, other, NOW + 3, nonce="n3")
    grant_leases(database, NOW + 3)
    assert holders(database) == {"b"}


def test_the_transaction_looks_who_has_come_back(database: Database, three: list[str]) -> None:
    """It was chosen while all three served."""
    back, other, _ = three
    asks(database, other)
    chosen = choose(database, NOW + 1)
    assert chosen[1] == everybody([other])
    comes_back(database, back, "the next boot")
    assert grant(database, chosen, NOW + 1).stale
    assert holders(database) == set()


def test_who_has_come_back_waits_itself_until_it_has_said_what_runs_there(database: Database, three: list[str]) -> None:
    """One more replica may have come up there than anybody knows; it is not down either, so it would cost nothing."""
    back, *_ = three
    asks(database, back)
    chosen = choose(database, NOW + 1)
    assert chosen[1] == everybody([back])
    comes_back(database, back)
    assert grant(database, chosen, NOW + 1).stale
    grant_leases(database, NOW + 2)
    assert holders(database) == set() and told(database, back) == "placement-unknown"
    says(database, back, runs())
    asks(database, back, NOW + 3, nonce="n2")
    grant_leases(database, NOW + 3)
    assert holders(database) == {"a"}


def test_what_was_declared_counts_once_the_node_has_said_that_it_cannot_say(database: Database) -> None:
    fleet.gateway(database)
    group(database, max_unavailable={"count": 3})
    mute = node(database, "mute", placement_known=False)
    declare.declare_placement(database, OPERATOR, mute, [(("shop", "web"), 1)], "I looked", NOW)
    other, _ = (node(database, name, [LABELLED]) for name in "bc")
    ServiceWatch().step(database, NOW)
    asks(database, other)
    chosen = choose(database, NOW + 1)
    comes_back(database, mute, "the next boot")
    assert grant(database, chosen, NOW + 1).stale
    grant_leases(database, NOW + 2)
    assert told(database, other) == "service-floor"
    says(database, mute, Placement(known=False, reason="no engine answers"))
    asks(database, other, NOW + 3, nonce="n2")
    grant_leases(database, NOW + 3)
    assert holders(database) == {"b"}


def test_when_all_come_back_to_a_new_gateway_admission_rests_and_no_replica_was_lost(
    database: Database, three: list[str]
) -> None:
    watch = ServiceWatch()
    watch.step(database, NOW)
    for each in three:
        asks(database, each)
        comes_back(database, each)
    watch.note(f"node:{each}" for each in three)
    assert watch.step(database, NOW + 1) == 0
    grant_leases(database, NOW + 1)
    assert holders(database) == set()
    for each in three:
        says(database, each, runs())
    watch.note(f"node:{each}" for each in three)
    assert watch.step(database, NOW + 2) == 0
    for each in three:
        asks(database, each, NOW + 2, nonce="n2")
    grant_leases(database, NOW + 2)
    assert len(holders(database)) == 1


def test_who_left_before_it_said_anything_is_away_with_what_was_last_seen(database: Database, three: list[str]) -> None:
    """A forecast counts on it to serve that again."""
    back, *_ = three
    comes_back(database, back)
    connections.release(database, [Gone(back, f"conn_{back}", NOW)])
    view = view_of(database, back)
    assert (view.up, view.placement_known, view.placements) == (False, True, ((0, 1),))


def test_what_a_lease_took_stays_taken_when_its_node_comes_back(database: Database, three: list[str]) -> None:
    back, *others = three
    asks(database, back)
    grant_leases(database, NOW + 1)
    assert holders(database) == {"a"}
    with database.write() as change:
        kit.add_container(change.conn, back, "web", scope="shop")
    comes_back(database, back, "the next boot")
    assert view_of(database, back).placements == ((0, 2),), "as last seen, which is more than its lease took"
    for each in others:
        asks(database, each)
    grant_leases(database, NOW + 2)
    assert holders(database) == {"a"}


def test_nothing_that_ran_before_an_identity_conflict_serves(database: Database, three: list[str]) -> None:
    """Nobody who uses the key is heard any more."""
    cloned, other, _ = three
    (answer,) = connections.claim(database, [claim_of(database, cloned, machine_id="another machine")], NOW)
    assert answer.verdict is Verdict.HELD
    asks(database, other)
    grant_leases(database, NOW + 1)
    assert holders(database) == set() and told(database, other) == "service-floor"
