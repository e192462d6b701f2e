"""What people who mean harm send to the console, and what nodes that lie have it show."""

from __future__ import annotations

import csv
import io
import re
import threading
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.services import sign_in
from app.store import schema
from app.store.database import Database
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser, forms_of

OWN = "http://127.0.0.1:8080"
ANSWERS_S = 20.0


@pytest.fixture
def node(browser: Browser) -> str:
    with browser.db.write() as change:
        return kit.add_node(change.conn, name="web-01")


def reasons(browser: Browser) -> list[str]:
    with browser.db.read() as conn:
        return [row.reason for row in conn.execute(schema.audit.select()) if row.action == "node.rename"]


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_what_a_foreign_page_sends_is_never_offered_to_be_sent_again(
    browser: Browser, node: str, headers: dict[str, str], signed_in: bool
) -> None:
    """Browsers leave the cookie out of such a request: the person then looks as if their session had ended."""
    sender = browser if signed_in else Browser(browser.db, browser.settings, name="")
    answer = sender.client.post(
        f"/nodes/{node}/rename", data={"name": "pwned", "reason": "harmless words"}, headers=headers
    )
    assert answer.status_code == 403
    assert "harmless words" not in answer.text


def test_methods_of_all_names_are_one_line_of_the_metrics(browser: Browser) -> None:
    for number in range(20):
        browser.client.open("/nodes", method=f"FETCH{number}")
    text = browser.get("/metrics").text
    assert "FETCH" not in text and 'method="other"' in text


@pytest.mark.parametrize(
    "path",
    [
        "/nodes?q=%00",
        "/nodes?q=name:a%00",
        "/nodes/%00",
        "/nodes/a%00/rename",
        "/events?node=%00",
        "/events?kind=%00",
        "/go?q=%00",
        "/images/%00",
        "/channels/%00",
        "/channels/x/promote?image=%00",
        "/?group=%00",
        "/nodes.csv?q=%00",
    ],
)
def test_characters_that_databases_do_not_store_are_refused(browser: Browser, path: str) -> None:
    assert browser.get(path).status_code in (400, 404)


def test_nor_in_forms(browser: Browser, node: str) -> None:
    form = browser.form(f"/nodes/{node}/rename", "/rename")
    answer = browser.submit(f"/nodes/{node}/rename", form, name="web-02", reason="a\0b")
    assert answer.status_code == 422
    assert reasons(browser) == []


def test_what_an_outage_swallowed_is_done_when_it_is_sent_again(browser: Browser, node: str) -> None:
    """The nonce of the form was claimed before the database went away: the form that is offered has its own."""
    form = browser.form(f"/nodes/{node}/rename", "/rename")
    console = browser.app.extensions["twinroot"]
    whole = console.db

    class Leaving(Database):
        """Goes away after the first write: the nonce is claimed, and neither the change nor its release happens."""

        writes = 0

        def write(self, *given: Any) -> Any:
            self.writes += 1
            if self.writes > 1:
                raise OperationalError("", {}, ConnectionError("gone"), connection_invalidated=True)
            return super().write(*given)

    object.__setattr__(console, "db", Leaving(whole.engine, whole.nudges))
    away = browser.client.post(
        f"/nodes/{node}/rename", data=form.values | {"name": "web-02", "reason": "why"}, headers={"Origin": OWN}
    )
    assert away.status_code == 503
    object.__setattr__(console, "db", whole)
    again = next(one for one in forms_of(away) if "reason" in one.values)
    token = browser.form(f"/nodes/{node}/rename", "/rename").values["csrf"]
    sent = browser.client.post(f"/nodes/{node}/rename", data=again.values | {"csrf": token}, headers={"Origin": OWN})
    assert sent.status_code == 303
    assert reasons(browser) == ["why"]


def test_guesses_at_sign_in_links_wait_for_no_write_and_block_none(browser: Browser) -> None:
    answers: list[int] = []
    nobody = Browser(browser.db, browser.settings, name="")

    def guess() -> None:
        answers.append(nobody.get("/sign-in/guess").status_code)

    thread = threading.Thread(target=guess)
    with browser.db.write():
        thread.start()
        thread.join(timeout=ANSWERS_S)
        assert answers == [401]


def test_a_link_signs_in_once_however_many_try(database: Database) -> None:
    link = sign_in.create_login_link(database, "mb", NOW)
    ready = threading.Barrier(6)
    opened: list[str] = []

    def use() -> None:
        ready.wait()
        try:
            opened.append(sign_in.use_login_link(database, link, NOW))
        except sign_in.Unauthenticated:
            return

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }} javascript:alert(1)"


def test_words_of_nodes_are_shown_as_words(browser: Browser) -> None:
    db = browser.db
    check = {"name": HOSTILE, "state": "failed", "text": HOSTILE, "output": HOSTILE}
    with db.write() as change:
        conn = change.conn
        node = kit.add_node(
            conn,
            name=HOSTILE,
            labels={"zone": HOSTILE, "b": HOSTILE},
            version=HOSTILE,
            booted_slot=HOSTILE,
            slots=[
                {"name": HOSTILE, "booted": True, "next_boot": True, "version": HOSTILE},
                {"name": "B", "booted": False, "next_boot": False, "version": HOSTILE},
            ],
            os_name=HOSTILE, os_id=HOSTILE, kernel=HOSTILE, arch=HOSTILE, driver=HOSTILE, remote=HOSTILE,
            agent_version=HOSTILE, agent_mode=HOSTILE, boot_id=HOSTILE, evidence=HOSTILE, engine=HOSTILE,
            machine_id=HOSTILE, hardware=HOSTILE,
            health_state="unhealthy",
            health={"state": "unhealthy", "reasons": [HOSTILE], "checks": [check]},
            phase="staging",
            activity={
                "phase": "staging", "target": HOSTILE, "holds": [{"code": HOSTILE, "text": HOSTILE}],
                "inhibitors": [HOSTILE],
                "outcome": {
                    "result": "fell-back", "operation_id": HOSTILE, "at": NOW, "version": HOSTILE, "reason": HOSTILE,
                    "failed_checks": [check],
                },
                "way_back": {"slot": HOSTILE, "version": HOSTILE},
            },
            conflict={"since": NOW, "ends": [{"remote": HOSTILE, "machine_id": HOSTILE, "hardware": HOSTILE,
                                              "boot_id": HOSTILE, "at": NOW}]},
            pin_actor=HOSTILE, pin_reason=HOSTILE, pinned_at=NOW,
            desired_operation_id="op_1",
        )  # fmt: skip
        image = kit.add_image(conn, notes=HOSTILE, created_by=HOSTILE)
        conn.execute(update(schema.nodes).values(pin_image_id=image))
        kit.add_operation(conn, node, id="op_1", actor=HOSTILE, reason=HOSTILE, target_version=HOSTILE,
                          hold={"code": "x", "text": HOSTILE, "retry_s": 1})  # fmt: skip
        kit.add_container(conn, node, HOSTILE, image=HOSTILE, scope=HOSTILE, state=HOSTILE, health=HOSTILE)
        conn.execute(
            schema.events.insert().values(
                node_id=node, at=NOW, kind=HOSTILE, text=HOSTILE, cause=HOSTILE, actor=HOSTILE, boot_id=HOSTILE,
                checks=[check],
            )
        )  # fmt: skip
        conn.execute(
            schema.failed_versions.insert().values(
                node_id=node, digest="sha256:" + "0" * 64, version=HOSTILE, reason=HOSTILE, at=NOW
            )
        )
        conn.execute(
            schema.join_attempts.insert().values(at=NOW, remote=HOSTILE, name=HOSTILE, code=HOSTILE, text=HOSTILE)
        )
    pages = ["/", "/?color=version", "/?color=phase", "/?group=b", "/nodes", f"/nodes/{node}", "/events", "/joining",
             "/images", f"/images/{image}", "/go?q=script", f"/nodes?q={'%22script'}"]  # fmt: skip
    pages += [f"/nodes/{node}/{action}" for action in ("pin", "retire", "rename", "relabel", "settle-conflict")]
    for page in pages:
        text = browser.get(page).text
        assert "<script>alert" not in text, page
        assert "<img src=x" not in text, page
        assert "49 javascript" not in text, page
        assert not re.search(r"""(?:href|src|action|hx-\w+)=["']\s*javascript:""", text), page
        assert not re.search(r"<[^>]*\sonerror=", re.sub(r'"[^"]*"', '""', text)), page


def test_a_spreadsheet_takes_no_word_of_a_node_for_a_formula(browser: Browser) -> None:
    with browser.db.write() as change:
        for word in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
            kit.add_node(change.conn, name=word, version=word, labels={"a": word})
    rows = list(csv.reader(io.StringIO(browser.get("/nodes.csv").text, newline="")))
    assert len(rows) == 7
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


@pytest.mark.parametrize("path", ["/", "/nodes", "/events", "/images", "/joining"])
@pytest.mark.parametrize("block", ["main", "title", "list", "fleet", "nothing-such"])
def test_no_part_of_a_page_carries_another_persons_token(browser: Browser, path: str, block: str) -> None:
    """Parts are rendered once for everybody: only those may be that have nothing of one person's own."""
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": f"div#{block}"}
    mine = browser.form("/preferences", "/preferences").values["csrf"]
    browser.get(path, headers=headers)
    other = browser.app.test_client()
    secret = sign_in.use_login_link(browser.db, sign_in.create_login_link(browser.db, "other", NOW), NOW)
    other.set_cookie(sign_in.SESSION_COOKIE, secret, domain="127.0.0.1")
    answer = other.get(path, headers=headers, base_url=OWN)
    assert answer.status_code == 200
    assert mine not in answer.text
