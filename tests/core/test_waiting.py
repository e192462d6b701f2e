"""Why a node waits: the chain on its page and the one line in lists."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from app.core.conditions import Around, Clock, Conditions, Turn, place_of
from app.core.fleet import NodeState
from app.core.holds import Hold as Held
from app.core.holds import HoldCode
from app.core.nodes import Node
from app.core.waiting import Step, chain
from app.core.why import why
from app.store import nodes, schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from wire.messages import Activity, Hold, Outcome, Phase, Result, Trial

NOTHING = Around()
ASKS: dict[str, Any] = {"phase": "staged", "lease_asked_at": NOW}
TURN = Turn(7, moves=True, target="2.0", leads_back=False, break_glass=False)


def held(code: HoldCode, text: str = "waits for something") -> Around:
    return Around(hold=Held(code, text))


def waiting(
    database: Database, operation: dict[str, Any], around: Around = NOTHING, **columns: Any
) -> list[tuple[str, str]]:
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
    return [(link.step.value, link.text) for link in chain(node, around)]


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
        ("passed", "2.0 may follow 1.0"),
        ("passed", "Connected"),
        ("later", "Stage 2.0 into the passive slot"),
        ("passed", "No freeze, and no window binds it"),
        ("later", "No group's budget binds it"),
        ("later", "No service with a floor runs on it"),
        ("later", "No health gate"),
        ("later", "Ask for the lease"),
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
    assert waiting(database, {"kind": "rollback"})[0] == (
        "passed",
        "Roll back: pins, windows and health gates do not stop it",
    )


def test_every_reason_of_admission_stands_in_the_chain() -> None:
    codes = list(HoldCode)
    places = {code: place_of(Held(code, "")) for code in codes}
    assert None not in places.values()
    others = [place or 0 for code, place in places.items() if codes.index(code) >= codes.index(HoldCode.NOT_RUNNING)]
    assert others == sorted(others), "in the order in which admission asks"


@pytest.mark.parametrize("code", [code for code in HoldCode if code is not HoldCode.NOT_READY])
def test_what_admission_says_stops_once(database: Database, code: HoldCode) -> None:
    assert stops(waiting(database, ASKS, held(code))) == ["Waits for something"]


def test_conditions_before_the_one_that_stops_hold_and_the_others_count_later(database: Database) -> None:
    conditions = Conditions(budget="the budget", floor="the floors", health="the gate")
    hold = Held(HoldCode.SERVICE_FLOOR, "shop/db has 2 healthy replicas, its floor is 2", "shop/db")
    links = waiting(database, ASKS, Around(conditions, hold))
    assert [link for link in links if link[1] in ("the budget", "the floors", "the gate")] == [
        ("passed", "the budget"),
        ("later", "the gate"),
    ]
    assert stops(links) == ["shop/db has 2 healthy replicas, its floor is 2"], "names keep their letters"


def test_a_freeze_stops_now_though_admission_has_not_spoken_and_never_what_leads_back(database: Database) -> None:
    conditions = Conditions(timed=Held(HoldCode.FREEZE, "the whole fleet is frozen by mb: “move”"))
    assert stops(waiting(database, {"phase": "staged"}, Around(conditions))) == [
        "The whole fleet is frozen by mb: “move”"
    ]
    for around in (
        Around(conditions, turn=Turn(7, moves=True, target="1.0", leads_back=True, break_glass=False)),
        Around(conditions, turn=Turn(7, moves=True, target="2.0", leads_back=False, break_glass=True)),
    ):
        links = waiting(database, {"phase": "staged"}, around)
        assert stops(links) == []
        assert ("passed", "Freezes and windows do not stop it") in links


def test_who_has_the_lease_has_met_all_conditions(database: Database) -> None:
    links = waiting(database, {"phase": "rebooting"}, held(HoldCode.SERVICE_FLOOR), phase="rebooting")
    assert stops(links) == [], "what it waited for before is over"
    assert any(text.startswith("Had the lease") for _, text in links)


def test_a_rollout_has_the_node_and_has_ordered_nothing(database: Database) -> None:
    with database.write() as change:
        id = kit.add_node(change.conn)
    with database.read() as conn:
        node = nodes.get(conn, id)
    assert node is not None
    links = [(link.step.value, link.text) for link in chain(node, Around(turn=TURN))]
    assert ("under-way", "Has not been ordered to stage 2.0 yet") in links
    paused = Around(hold=Held(HoldCode.NOT_RUNNING, "waits for rollout 7 to be resumed: it is paused"), turn=TURN)
    links = [(link.step.value, link.text) for link in chain(node, paused)]
    assert stops(links) == ["Waits for rollout 7 to be resumed: it is paused"]
    assert ("later", "Has not been ordered to stage 2.0 yet") in links


def test_a_version_that_cannot_follow_stops(database: Database) -> None:
    around = Around(edge="must pass 1.5 on the way to 2.0")
    assert stops(waiting(database, {}, around)) == ["Must pass 1.5 on the way to 2.0"]
    assert stops(waiting(database, {"kind": "rollback"}, around)) == []


@pytest.mark.parametrize(
    ("clock", "text"),
    [
        (Clock(1620.0), "Deadline of this phase: 27 min left; the clock runs while the node could be heard"),
        (
            Clock(7200.0, "it waits for us"),
            "Deadline of this phase: 2 h left; the clock stands, because it waits for us",
        ),
        (Clock(-1.0), "Deadline of this phase: over; the clock runs while the node could be heard"),
    ],
)
def test_the_deadline_is_the_last_link(database: Database, clock: Clock, text: str) -> None:
    assert waiting(database, {}, Around(clock=clock))[-1] == ("later", text)


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
