"""Ways back that floors hold: pages say which nodes wait for what, and let them go for a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select, update

from app.store import schema
from tests import rollout_kit
from tests.rollout_kit import add_rollout_node
from tests.server_kit import NOW, add_node, add_operation, digest_of, two_slots
from tests.web.console_kit import Browser

UNKNOWN = {"code": "placement-unknown", "text": "what runs on it is not known, and it may be a service", "until": None}
FLOOR = {"code": "service-floor", "text": "waits for web/db: without it 1 of 3 replicas would be left", "until": None}
OFFLINE = {"code": "offline", "text": "is not connected; it goes on when it is back", "until": None}


@dataclass
class Back:
    """A rollout that is rolling back, with four nodes."""

    id: str
    path: str
    nodes: dict[str, str]


def going_back(change: Any, rollout_id: str, name: str, hold: dict[str, Any], **given: Any) -> str:
    slots = two_slots("2.0", "1.0", passive_good=True)
    node_id: str = add_node(change.conn, name, version="2.0", booted_digest=digest_of("2.0"), slots=slots, **given)
    order = {"rollout_id": rollout_id, "target_version": "1.0", "phase": "staged", "hold": {**hold, "subject": ""}}
    operation = add_operation(change.conn, node_id, kind="rollback", **order)
    desired = update(schema.nodes).where(schema.nodes.c.id == node_id).values(desired_operation_id=operation)
    change.conn.execute(desired)
    row = {"state": "done", "back_operation_id": operation, "back_at": NOW, "moving_at": NOW, "ended_at": NOW}
    add_rollout_node(change.conn, rollout_id, node_id, hold={**hold, "subject": ""}, **row)
    return node_id


@pytest.fixture
def back(browser: Browser) -> Back:
    with browser.db.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn, state="rolling-back", state_text="Rolled back by mb")
        nodes = {
            "web-1": going_back(change, rollout_id, "web-1", UNKNOWN, placement_known=False),
            "web-2": going_back(change, rollout_id, "web-2", UNKNOWN, placement_known=False),
            "web-3": going_back(change, rollout_id, "web-3", FLOOR),
            "web-4": going_back(change, rollout_id, "web-4", OFFLINE),
        }
        change.touch("rollouts")
    return Back(rollout_id, f"/rollouts/{rollout_id}", nodes)


def overridden(browser: Browser) -> list[str]:
    """Names of the nodes whose orders may go below floors."""
    query = select(schema.nodes.c.name).join(schema.operations, schema.operations.c.node_id == schema.nodes.c.id)
    with browser.db.read() as conn:
        return sorted(conn.execute(query.where(schema.operations.c.override_floor)).scalars())


def test_a_rollout_that_rolls_back_says_who_waits_for_floors_and_lets_them_go(browser: Browser, back: Back) -> None:
    with browser.db.read() as conn:
        number = conn.execute(select(schema.rollouts.c.number)).scalar_one()
    action = f"/rollouts/{number}/override-floor"
    page = browser.get(back.path).text
    assert action in page and "Let them go back" in page
    asked = browser.get(f"{back.path}/override-floor").text
    for text in (page, asked):
        floors = text[text.index('<ul class="chain">') :]
        assert floors.index("web-1</a>, ") < floors.index("web-2</a>: what runs on it is not known")
        assert "web-3</a>: waits for web/db" in text
        assert "web-4</a>: is not connected" not in text, "no override brings that one back"
    refused = browser.fill(f"{back.path}/override-floor", "/override-floor", reason="")
    assert refused.status_code == 422 and overridden(browser) == []
    assert browser.fill(f"{back.path}/override-floor", "/override-floor", reason="it burns").status_code == 303
    assert overridden(browser) == ["web-1", "web-2", "web-3", "web-4"]
    page = browser.get(back.path).text
    assert action not in page and "ways back pass floors" in page and "it burns" in page
    assert "so already" in browser.get(f"{back.path}/override-floor").text


def test_a_node_that_waits_to_go_back_is_let_go_from_its_page(browser: Browser, back: Back) -> None:
    path = f"/nodes/{back.nodes['web-3']}"
    assert "Let it go back" in browser.get(path).text
    asked = browser.get(f"{path}/rollback").text
    assert "is going back to <b" in asked and FLOOR["text"] in asked
    refused = browser.fill(f"{path}/rollback", "/rollback", override_floor="yes", reason="")
    assert refused.status_code == 422 and overridden(browser) == []
    assert browser.fill(f"{path}/rollback", "/rollback", override_floor="yes", reason="users wait").status_code == 303
    assert overridden(browser) == ["web-3"]
    page = browser.get(path).text
    assert "Let it go back" not in page and "below floors, by mb: “users wait”" in page
    assert "already" in browser.get(f"{path}/rollback").text
    assert "Let it go back" not in browser.get(f"/nodes/{back.nodes['web-4']}").text, "it is not connected"


@pytest.mark.parametrize(("state", "action"), [("running", "roll-back"), ("succeeded", "reverse")])
def test_rolling_back_can_let_nodes_go_below_floors_at_once(browser: Browser, state: str, action: str) -> None:
    with browser.db.write() as change:
        ended_at = NOW if state == "succeeded" else None
        rollout_id = rollout_kit.add_rollout(change.conn, state=state, ended_at=ended_at)
        slots = two_slots("2.0", "1.0", passive_good=True)
        now = {"version": "2.0", "booted_digest": digest_of("2.0"), "slots": slots, "placement_known": False}
        node_id = add_node(change.conn, "web-1", **now)
        over = {"state": "ended", "result": "succeeded", "ended_at": NOW}
        operation = add_operation(change.conn, node_id, rollout_id=rollout_id, **over)
        row = {"state": "done", "operation_id": operation, "moving_at": NOW, "ended_at": NOW}
        add_rollout_node(change.conn, rollout_id, node_id, **row)
        change.touch("rollouts")
    path = f"/rollouts/{rollout_id}"
    asked = browser.get(f"{path}/{action}").text
    assert "Nobody knows what runs on" in asked and 'name="override_floor"' in asked
    done = browser.fill(f"{path}/{action}", f"/{action}", override_floor="yes", reason="it burns")
    assert done.status_code == 303
    with browser.db.read() as conn:
        columns = schema.rollouts.c
        kept = conn.execute(select(columns.id).where(columns.override_floor)).scalars().all()
    assert len(kept) == 1 and (kept[0] == rollout_id) == (state == "running")


def test_what_leads_forth_offers_no_override(browser: Browser) -> None:
    with browser.db.write() as change:
        rollout_id = rollout_kit.add_rollout(change.conn)
    assert "override-floor" not in browser.get(f"/rollouts/{rollout_id}").text
    assert "does not lead back" in browser.get(f"/rollouts/{rollout_id}/override-floor").text
