"""Each action on a node through its page, as a browser without JavaScript does it."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import insert, select, update
from werkzeug.test import TestResponse

from app.core.nodes import Admission, Node
from app.core.operations import Action
from app.store import bad_versions, channels, nodes, schema
from app.store.bad_versions import BadVersion, Cause
from tests import server_kit as kit
from tests.server_kit import NOW, count_rows
from tests.web.console_kit import Browser


@pytest.fixture
def node_id(browser: Browser) -> str:
    """web-01 runs 1.0, follows stable, which points at 2.0."""
    with browser.db.write() as change:
        conn = change.conn
        kit.add_image(conn, "1.0")
        image = kit.add_image(conn, "2.0")
        kit.add_image(conn, "9.9", arch="arm64")
        stable = channels.find(conn, "stable")
        assert stable is not None
        channels.point(conn, stable.id, "demo", "amd64", image, "mb", "first", NOW)
        return kit.add_node(conn, "web-01", channel_id=stable.id, slots=kit.two_slots("1.0", "0.9", passive_good=True))


def node(browser: Browser, node_id: str) -> Node:
    with browser.db.read() as conn:
        found = nodes.get(conn, node_id)
    assert found is not None
    return found


def act(browser: Browser, node_id: str, action: str, **values: str) -> TestResponse:
    return browser.fill(f"/nodes/{node_id}/{action}", f"/{action}", **values)


def set_columns(browser: Browser, node_id: str, **values: object) -> None:
    with browser.db.write() as change:
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(**values))


def audited(browser: Browser) -> list[tuple[str, str, str]]:
    columns = schema.audit.c
    with browser.db.read() as conn:
        rows = conn.execute(select(columns.action, columns.actor_name, columns.reason).order_by(columns.id)).all()
    return [(row.action, row.actor_name, row.reason) for row in rows if row.action.startswith("node.")]


def test_update_offers_what_fits_and_chooses_the_channels_image(browser: Browser, node_id: str) -> None:
    text = browser.get(f"/nodes/{node_id}/update").text
    assert re.findall(r'class="mono">([\d.]+)</span>', text) == ["2.0", "1.0"], "not the one for arm64"
    answer = act(browser, node_id, "update", reason="monthly")
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/nodes/{node_id}"
    operation = node(browser, node_id).operation
    assert operation is not None
    assert (operation.target_version, operation.actor, operation.reason) == ("2.0", "mb", "monthly")
    assert audited(browser) == [("node.update", "mb", "monthly")]
    page = browser.get(f"/nodes/{node_id}").text
    assert "Stage 2.0 into the passive slot" in page
    assert f"/nodes/{node_id}/cancel" in page


def test_the_same_form_sent_twice_happens_once(browser: Browser, node_id: str) -> None:
    path = f"/nodes/{node_id}/reboot"
    form = browser.form(path, "/reboot")
    answers = [browser.submit(path, form, reason="kernel") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 303]
    assert count_rows(browser.db, schema.operations) == 1


def test_a_refused_form_can_be_corrected_and_sent(browser: Browser, node_id: str) -> None:
    path = f"/nodes/{node_id}/rename"
    form = browser.form(path, "/rename")
    refused = browser.submit(path, form, name=" ", reason="a better name")
    assert refused.status_code == 422
    assert "a better name" in refused.text
    assert 'aria-invalid="true"' in refused.text
    assert browser.submit(path, form, name="web-one", reason="a better name").status_code == 303
    assert node(browser, node_id).name == "web-one"


def test_cancel(browser: Browser, node_id: str) -> None:
    act(browser, node_id, "update", reason="x")
    assert act(browser, node_id, "cancel", reason="wrong one").status_code == 303
    operation = node(browser, node_id).operation
    assert operation is not None
    assert operation.cancel_asked_at is not None
    assert "Asked to stop" in browser.get(f"/nodes/{node_id}").text


def test_roll_back_names_the_version_and_whether_it_is_there(browser: Browser, node_id: str) -> None:
    assert "Roll back to 0.9" in browser.get(f"/nodes/{node_id}").text
    text = browser.get(f"/nodes/{node_id}/rollback").text
    assert re.search(r'to <b class="mono">0.9</b>: it is in slot', text)
    assert "nothing is downloaded" in text
    assert act(browser, node_id, "rollback", reason="slow disks").status_code == 303
    operation = node(browser, node_id).operation
    assert operation is not None
    assert (operation.kind, operation.target_version) == ("rollback", "0.9")


def test_what_leads_to_a_bad_version_is_not_offered_as_the_way_back(browser: Browser, node_id: str) -> None:
    with browser.db.write() as change:
        gone = BadVersion(kit.digest_of("0.9"), "0.9", "withdrawn: it leaks", Cause.WITHDRAWN, "mb", NOW)
        bad_versions.remember(change.conn, gone)
        change.touch("images", f"node:{node_id}")
    page = browser.get(f"/nodes/{node_id}").text
    assert "Roll back to" not in page and "the way back" not in page
    assert "It has no way back: 0.9 is bad fleet-wide: withdrawn: it leaks" in page
    asked = browser.get(f"/nodes/{node_id}/rollback").text
    assert "Not possible now." in asked and "0.9 is bad fleet-wide" in asked


def test_what_failed_here_is_not_offered_as_the_way_back(browser: Browser, node_id: str) -> None:
    with browser.db.write() as change:
        failed = {"node_id": node_id, "digest": kit.digest_of("0.9"), "version": "0.9", "reason": "no boot", "at": NOW}
        change.conn.execute(insert(schema.failed_versions).values(**failed))
    page = browser.get(f"/nodes/{node_id}").text
    assert "Roll back to" not in page and "Will not try" in page


def test_pin_until_in_the_readers_zone_and_unpin(browser: Browser, node_id: str) -> None:
    browser.submit("/preferences", browser.form("/preferences", "/preferences"), time_zone="Asia/Tokyo")
    path = f"/nodes/{node_id}/pin"
    form = browser.form(path, "/pin")
    choice = next(value for words, value in form.choices["to"].items() if words.startswith("2.0"))
    assert browser.submit(path, form, to=choice, until="2030-12-01T06:00", reason="GPU driver").status_code == 303
    pin = node(browser, node_id).pin
    assert pin is not None
    assert (pin.version, pin.reason, pin.actor) == ("2.0", "GPU driver", "mb")
    assert pin.until == 1_922_302_800.0
    assert "pinned to version 2.0" in browser.get(f"/nodes/{node_id}").text
    assert act(browser, node_id, "unpin").status_code == 303
    assert node(browser, node_id).pin is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"to": ""}, "Choose a channel or a version"),
        ({"until": "tomorrow"}, "is no time"),
        ({"until": "2001-01-01T00:00"}, "over already"),
        ({"reason": ""}, "Say why"),
        ({"reason": "x" * 501}, "501 characters"),
    ],
)
def test_pin_refuses_by_name_and_keeps_what_was_typed(
    browser: Browser, node_id: str, values: dict[str, str], says: str
) -> None:
    path = f"/nodes/{node_id}/pin"
    form = browser.form(path, "/pin")
    beta = form.choices["to"]["beta"]
    answer = browser.submit(path, form, **({"to": beta, "reason": "typed with care"} | values))
    assert answer.status_code == 422
    assert says in answer.text
    if "reason" not in values:
        assert "typed with care" in answer.text
    assert node(browser, node_id).pin is None


def test_follow(browser: Browser, node_id: str) -> None:
    path = f"/nodes/{node_id}/follow"
    form = browser.form(path, "/follow")
    browser.submit(path, form, channel_id=form.choices["channel_id"]["beta"])
    assert node(browser, node_id).channel_name == "beta"
    browser.submit(path, browser.form(path, "/follow"), channel_id="")
    assert node(browser, node_id).channel_name is None


def test_approve(browser: Browser, node_id: str) -> None:
    set_columns(browser, node_id, admission="pending", admitted_at=None)
    page = browser.get(f"/nodes/{node_id}").text
    assert f"/nodes/{node_id}/approve" in page
    assert f"/nodes/{node_id}/update" not in page, "nothing is offered that is not possible"
    assert act(browser, node_id, "approve").status_code == 303
    assert node(browser, node_id).admission is Admission.ADMITTED


def test_retire_needs_the_name_typed(browser: Browser, node_id: str) -> None:
    wrong = act(browser, node_id, "retire", confirm="web-02", reason="broken board")
    assert wrong.status_code == 422
    assert "broken board" in wrong.text
    assert node(browser, node_id).admission is Admission.ADMITTED
    assert act(browser, node_id, "retire", confirm="web-01", reason="broken board").status_code == 303
    assert node(browser, node_id).admission is Admission.RETIRED
    assert "Joining again makes a new node" in browser.get(f"/nodes/{node_id}").text.replace("joining", "Joining")
    assert f'<tr id="{node_id}"' not in browser.get("/nodes").text
    assert f'<tr id="{node_id}"' in browser.get("/nodes?q=state:retired").text


def test_settle_a_conflict(browser: Browser, node_id: str) -> None:
    end = {"remote": "10.0.0.7", "machine_id": "m", "hardware": "sha256:" + "ab" * 32, "boot_id": "b", "at": NOW}
    set_columns(browser, node_id, conflict={"since": NOW, "ends": [end, end | {"remote": "10.0.0.8"}]})
    page = browser.get(f"/nodes/{node_id}").text
    assert "Two machines claim to be this node" in page
    assert "10.0.0.8" in page
    assert "is claimed by two machines" in browser.get("/").text
    assert act(browser, node_id, "settle-conflict").status_code == 303
    assert node(browser, node_id).conflict is None


def test_a_version_that_failed_here_needs_to_be_cleared(browser: Browser, node_id: str) -> None:
    digest = kit.digest_of("2.0")
    with browser.db.write() as change:
        values = {"node_id": node_id, "digest": digest, "version": "2.0", "reason": "no network", "at": NOW}
        change.conn.execute(schema.failed_versions.insert().values(**values))
    refused = act(browser, node_id, "update", reason="again")
    assert refused.status_code == 409
    assert "failed on web-01 before: no network" in refused.text
    assert "does not run" in browser.get("/").text
    assert f'<tr id="{node_id}"' in browser.get("/nodes?q=failed:yes").text
    path = f"/nodes/{node_id}/clear-failed-version?digest={digest}"
    assert browser.fill(path, "/clear-failed-version", reason="cable fixed").status_code == 303
    assert act(browser, node_id, "update", reason="again").status_code == 303


def test_rescue_and_labels(browser: Browser, node_id: str) -> None:
    assert act(browser, node_id, "rescue", reason="").status_code == 422
    assert act(browser, node_id, "rescue", reason="checks are wrong").status_code == 303
    assert act(browser, node_id, "relabel", labels="zone=a\nrole=web").status_code == 303
    assert node(browser, node_id).labels == {"zone": "a", "role": "web"}
    wrong = act(browser, node_id, "relabel", labels="zone a")
    assert wrong.status_code == 422
    assert "zone a" in wrong.text


@pytest.mark.parametrize("action", list(Action))
def test_what_is_not_possible_says_why_instead_of_a_form(browser: Browser, node_id: str, action: Action) -> None:
    set_columns(browser, node_id, admission="retired", retired_at=NOW)
    page = browser.get(f"/nodes/{node_id}/{action.value}")
    assert page.status_code == 200
    assert "web-01 is retired; join it again to use it." in page.text
    assert f'action="/nodes/{node_id}/{action.value}"' not in page.text


@pytest.mark.parametrize("action", list(Action))
def test_the_dialog_is_the_page_s_own_form(browser: Browser, node_id: str, action: Action) -> None:
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "dialog#panel-dialog"}
    fragment = browser.get(f"/nodes/{node_id}/{action.value}", headers=headers)
    assert fragment.status_code == 200
    assert "<html" not in fragment.text
    assert 'id="dialog-title"' in fragment.text


def test_an_action_of_a_node_that_is_not_there(browser: Browser) -> None:
    assert browser.get("/nodes/node_x/update").status_code == 404
