"""Why a node waits: the chain on its page and the one line in lists."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from app.core.fleet import NodeState
from app.core.nodes import Node
from app.core.waiting import Step, chain
from app.core.why import why
from app.store import nodes, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from wire.messages import Activity, Hold, Outcome, Phase, Result, Trial


def waiting(database: Database, operation: dict[str, Any], **columns: Any) -> list[tuple[str, str]]:
    """The chain of a node whose open operation has these columns."""
    with database.write() as change:
        conn = change.conn
        id = kit.add_node(conn, "web-01", **columns)
        desired = kit.add_operation(conn, id, **operation)
        where = schema.nodes.c.id == id
        conn.execute(update(schema.nodes).where(where).values(desired_operation_id=desired))
    with database.read() as conn:
        node = nodes.get(conn, id)
    assert isinstance(node, Node)
    return [(link.step.value, link.text) for link in chain(node)]


def stops(links: list[tuple[str, str]]) -> list[str]:
    return [text for step, text in links if step == Step.STOPS]


def test_nothing_asked_is_no_chain(database: Database) -> None:
    with database.write() as change:
        id = kit.add_node(change.conn)
    with database.read() as conn:
        node = nodes.get(conn, id)
    assert node is not None
    assert chain(node) == []


def test_a_fresh_update(database: Database) -> None:
    assert waiting(database, {}) == [
        ("passed", "Not pinned"),
        ("passed", "Connected"),
        ("later", "Stage 2.0 into the passive slot"),
        ("later", "Lease: one node of the fleet reboots at a time"),
        ("later", "Reboot"),
        ("later", "Confirm by its checks, then soak"),
    ]


def test_offline_stops_and_nothing_is_under_way_behind_it(database: Database) -> None:
    links = waiting(database, {"phase": "staging"}, connection="offline", last_seen_at=NOW - 60)
    assert stops(links) == ["Not connected; it goes on by itself when it is back"]
    assert ("later", "Staging 2.0") in links
    assert not any(step == "under-way" for step, _ in links)


def test_the_lease_of_another_stops(database: Database) -> None:
    hold = {"code": "lease", "text": "waits for web-02, which is being updated"}
    links = waiting(database, {"phase": "staged", "lease_asked_at": NOW, "hold": hold}, phase="staged")
    assert stops(links) == ["Waits for web-02, which is being updated"]
    repeated = {"phase": "staged", "holds": [{"code": "lease", "text": hold["text"]}]}
    assert stops(waiting(database, {"hold": hold, "phase": "staged"}, activity=repeated)) == stops(links), "said once"
    assert ("passed", "2.0 is written to the passive slot and verified") in links


def test_what_holds_on_the_node_itself(database: Database) -> None:
    activity = {"phase": "staged", "inhibitors": ["backup runs"], "holds": [{"code": "way-back", "text": "keeps 1.0"}]}
    links = waiting(database, {"phase": "staged"}, activity=activity)
    assert stops(links) == ["Keeps 1.0", "Held on the node itself: backup runs"]


def test_conflict_and_approval_come_first(database: Database) -> None:
    links = waiting(database, {}, admission="pending", conflict={"since": NOW})
    assert [text.split(";")[0] for text in stops(links)] == [
        "Waits for approval",
        "Two machines claim to be this node",
    ]
    assert links[0] == ("stops", "Waits for approval")


@pytest.mark.parametrize(
    ("phase", "under_way"),
    [
        ("rebooting", "Rebooting"),
        ("confirming", "On trial: checks must pass"),
        ("soaking", "Soaking"),
        ("rolling-back", "Going back by itself: the new slot did not prove itself"),
    ],
)
def test_what_is_under_way_in_each_phase(database: Database, phase: str, under_way: str) -> None:
    links = waiting(database, {"phase": phase}, phase=phase)
    assert [text for step, text in links if step == "under-way"] == [under_way]


def test_a_reboot_stages_nothing_and_a_roll_back_asks_no_pin(database: Database) -> None:
    assert not any("tage" in text for _, text in waiting(database, {"kind": "reboot", "target_version": ""}))
    assert waiting(database, {"kind": "rollback"})[0] == ("passed", "Roll back: pins and gates do not stop it")


def line(**given: Any) -> str:
    values: dict[str, Any] = {
        "state": NodeState.HEALTHY,
        "conflict": False,
        "phase": "idle",
        "activity": Activity(),
        "operation_hold": None,
        "pinned_to": None,
        "pin_reason": None,
    }
    return why(**(values | given))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, ""),
        ({"conflict": True}, "two machines claim to be this node; neither is commanded"),
        ({"state": NodeState.PENDING}, "waits for approval"),
        ({"pinned_to": "4081.2.0", "pin_reason": "GPU driver"}, "pinned to 4081.2.0: “GPU driver”"),
        ({"phase": "staging", "activity": Activity(phase=Phase.STAGING, target="2", progress=0.43)}, "staging 2, 43 %"),
        ({"phase": "staged", "activity": Activity(holds=[Hold(code="x", text="keeps 1.0")])}, "keeps 1.0"),
        ({"phase": "staged", "operation_hold": "waits for web-02"}, "waits for web-02"),
        ({"phase": "soaking", "activity": Activity(trial=Trial(confirmed=True, left_s=9.0))}, "soaks"),
        (
            {
                "activity": Activity(
                    outcome=Outcome(result=Result.FELL_BACK, operation_id="o", at=NOW, version="2.0", reason="no net")
                ),
                "pinned_to": "1",
            },
            "fell back from 2.0: no net",
        ),
        (
            {"activity": Activity(outcome=Outcome(result=Result.SUCCEEDED, operation_id="o", at=NOW, version="2.0"))},
            "",
        ),
    ],
)
def test_the_line_in_lists(given: dict[str, Any], text: str) -> None:
    assert line(**given) == text
