"""Prometheus gates at the conductor: nobody who has not been asked lets anything pass."""

from __future__ import annotations

import threading

from app.conductor.gates import Gatekeeper
from app.core.group_policy import PrometheusGate
from app.core.holds import Hold, HoldCode
from app.services.admission import Admission, gates_in_use
from app.store.database import Database
from tests.server_kit import NOW
from tests.services.admission_kit import asks, gateway, group, holders, node, told

GATE = PrometheusGate("errors", "http://127.0.0.1:9", "up")
ASKED = {"prometheus": [{"name": "errors", "url": "http://127.0.0.1:9", "query": "up"}]}


def test_a_gate_that_nobody_has_asked_is_shut(database: Database) -> None:
    keeper = Gatekeeper(database)
    (hold,) = keeper.holds([GATE])
    assert hold.code is HoldCode.HEALTH_GATE and "has not been asked" in hold.text


def test_it_asks_only_while_something_is_under_way(database: Database) -> None:
    gateway(database)
    group(database, **ASKED)
    node_id = node(database, "a")
    assert gates_in_use(database) == set()
    asks(database, node_id)
    assert gates_in_use(database) == {GATE}


def test_a_gate_that_cannot_be_reached_says_so(database: Database) -> None:
    gateway(database)
    group(database, **ASKED)
    asks(database, node(database, "a"))
    keeper, stop = Gatekeeper(database), threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        waited = threading.Event()
        while "cannot be reached" not in keeper.holds([GATE])[0].text:
            assert not waited.wait(0.02) and thread.is_alive()
    finally:
        stop.set()
        thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_shut_gate_holds_an_order_and_not_the_way_back(database: Database) -> None:
    gateway(database)
    group(database, **ASKED)
    forward, back = node(database, "forward"), node(database, "back")
    asks(database, forward)
    asks(database, back, kind="rollback")
    shut = Hold(HoldCode.HEALTH_GATE, "errors", "errors")
    Admission(lambda gates: (shut,) if GATE in set(gates) else ()).tick(database, NOW + 1)
    assert holders(database) == {"back"}
    assert told(database, forward) == "health-gate"
