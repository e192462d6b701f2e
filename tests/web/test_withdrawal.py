from __future__ import annotations

import pytest

from app.config import Settings
from app.services.channels import promote
from app.store import bad_versions, channels, images
from app.store.bad_versions import BadVersion, Cause
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_image, add_node, digest_of, two_slots
from tests.web.console_kit import Browser


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    """Channel stable went from 1.0 to 2.0; one node runs 2.0 and has 1.0 as its way back."""
    browser = Browser(database, settings)
    with database.write() as change:
        for version in ("1.0", "2.0"):
            add_image(change.conn, version, id=f"img_{version}")
        add_node(
            change.conn, name="node-1", version="2.0", booted_digest=digest_of("2.0"), slots=two_slots("2.0", "1.0")
        )
        stable = channels.find(change.conn, "stable")
    assert stable is not None
    promote(database, OPERATOR, stable.id, "img_1.0", seen_image_id=None, reason="first", now=NOW - 20)
    promote(database, OPERATOR, stable.id, "img_2.0", seen_image_id="img_1.0", reason="second", now=NOW - 10)
    return browser


def points_at(browser: Browser) -> str | None:
    with browser.db.read() as conn:
        stable = channels.find(conn, "stable")
        assert stable is not None
        return channels.current(conn, stable.id, "demo", "amd64")


def test_withdrawing_wants_the_version_typed_and_a_reason(browser: Browser) -> None:
    page = "/images/img_2.0/withdraw"
    assert browser.fill(page, "/withdraw", typed_version="2", reason="leaks").status_code == 422
    assert browser.fill(page, "/withdraw", typed_version="2.0", reason="").status_code == 422
    assert points_at(browser) == "img_2.0"


def test_the_dialog_says_what_each_channel_will_point_at(browser: Browser) -> None:
    with browser.db.read() as conn:
        beta = channels.find(conn, "beta")
    assert beta is not None
    promote(browser.db, OPERATOR, beta.id, "img_2.0", seen_image_id=None, reason="first", now=NOW)
    text = browser.get("/images/img_2.0/withdraw").text
    assert 'stable steps back to <span class="mono">1.0</span>' in text
    assert "beta points nowhere then" in text
    assert "No channel points at it" in browser.get("/images/img_1.0/withdraw").text


def test_a_withdrawn_image_steps_back_and_lists_who_is_still_on_it(browser: Browser) -> None:
    answer = browser.fill("/images/img_2.0/withdraw", "/withdraw", typed_version="2.0", reason="leaks memory")
    assert (answer.status_code, answer.location) == (303, "/images/img_2.0")
    assert points_at(browser) == "img_1.0"
    text = browser.get("/images/img_2.0").text
    assert "“leaks memory”" in text
    assert "Nodes still on it" in text
    assert "node-1" in text
    assert "Promote to" not in text
    assert "held everywhere" in browser.get("/images").text


def test_it_can_be_used_again(browser: Browser) -> None:
    browser.fill("/images/img_2.0/withdraw", "/withdraw", typed_version="2.0", reason="leaks memory")
    assert browser.fill("/images/img_2.0/restore", "/restore", reason="it was the test").status_code == 303
    with browser.db.read() as conn:
        image = images.get(conn, "img_2.0")
    assert image is not None
    assert image.withdrawn_at is None
    assert points_at(browser) == "img_1.0"  # nothing moves by itself
    assert "held everywhere" not in browser.get("/images").text
    assert browser.fill("/images/img_2.0/restore", "/restore", reason="twice").status_code == 409


def test_a_version_that_failed_too_often_is_cleared_with_a_reason(browser: Browser) -> None:
    digest = digest_of("2.0")
    with browser.db.write() as change:
        bad_versions.remember(
            change.conn, BadVersion(digest, "2.0", "fell back on 3 nodes", Cause.FAILED, "conductor", NOW)
        )
    text = browser.get("/images").text
    assert "failed too often" in text
    assert browser.fill(f"/bad-versions/clear?digest={digest}", "/clear", reason="").status_code == 422
    assert browser.fill(f"/bad-versions/clear?digest={digest}", "/clear", reason="fixed cable").status_code == 303
    assert "failed too often" not in browser.get("/images").text
    assert browser.get("/bad-versions/clear?digest=sha256:nothing").status_code == 404
