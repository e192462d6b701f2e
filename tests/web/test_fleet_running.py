"""What runs on the fleet, where hundreds wait: those that move one by one, the others counted by reason."""

from __future__ import annotations

import re

from app.store import operations
from app.store.database import Database
from app.web.fleet_running import running
from tests import server_kit as kit
from tests.web.console_kit import Browser

CANARIES = {"code": "canaries", "text": "waits for the last canary to soak"}
SOAK = {"code": "canaries", "text": "waits for the soak of the canaries to end"}
OFFLINE = {"code": "offline", "text": "is not connected"}


def seed(db: Database) -> None:
    with db.write() as change:
        phases = [("rebooting", None), ("soaking", None), ("staging", None), ("idle", OFFLINE), ("staged", None)]
        for phase, hold in [*phases, *[("staged", CANARIES)] * 30, *[("staged", SOAK)] * 3]:
            kit.add_operation(change.conn, kit.add_node(change.conn), phase=phase, hold=hold)
        change.touch("fleet", "operations")


def test_those_that_move_stage_and_wait_add_up(database: Database) -> None:
    seed(database)
    with database.read() as conn:
        found = running(operations.all_open(conn))
    assert (found.moving, found.staging, found.waiting) == (2, 1, 35)
    assert [each.phase.value for each in found.rows] == ["rebooting", "soaking", "staging"]
    assert found.more == 0
    assert sum(each.operations for each in found.reasons) + found.other == found.waiting
    first = found.reasons[0]
    assert (first.title, first.text, first.alike, first.operations) == ("Canaries first", CANARIES["text"], False, 33)
    assert {each.title: each.operations for each in found.reasons[1:]} == {"Offline": 1, "Just ordered": 1}


def test_those_that_wait_are_no_rows_with_a_spinner(browser: Browser, database: Database) -> None:
    seed(database)
    text = browser.get("/").text
    panel = re.sub(r"\s+", " ", text.partition('id="running"')[2].partition("</section>")[0])
    assert "2 move, 1 stages, 35 wait<" in panel
    assert panel.count('class="strong" href="/nodes/') == 3
    assert panel.count(CANARIES["text"]) == 1 and "for example" in panel
    assert ">33<" in panel
