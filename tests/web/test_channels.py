from __future__ import annotations

import pytest

from app.config import Settings
from app.services.channels import promote
from app.store import channels, schema
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_image, count_rows
from tests.web.console_kit import Browser


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    browser = Browser(database, settings)
    with database.write() as change:
        for version in ("1.0", "2.0"):
            add_image(change.conn, version, id=f"img_{version}")
        add_image(change.conn, "7.0", id="img_arm", arch="arm64")
    return browser


def stable(browser: Browser) -> str:
    with browser.db.read() as conn:
        found = channels.find(conn, "stable")
    assert found is not None
    return found.id


def current(browser: Browser) -> str | None:
    with browser.db.read() as conn:
        return channels.current(conn, stable(browser), "demo", "amd64")


def page(browser: Browser) -> str:
    return f"/channels/{stable(browser)}/promote?os=demo&arch=amd64"


def test_a_channel_is_promoted_with_a_reason(browser: Browser) -> None:
    answer = browser.fill(page(browser), "/promote", image="img_1.0", reason="first release")
    assert (answer.status_code, answer.location) == (303, f"/channels/{stable(browser)}")
    assert current(browser) == "img_1.0"
    history = browser.get(answer.location or "").text
    assert "mb: “first release”" in history
    assert "first release" in browser.get("/images").text


def test_only_images_for_the_same_os_and_architecture_are_offered(browser: Browser) -> None:
    assert set(browser.form(page(browser), "/promote").choices["image"].values()) == {"", "img_1.0", "img_2.0"}
    from_image = browser.form(f"/channels/{stable(browser)}/promote?image=img_arm", "/promote")
    assert list(from_image.choices["image"].values()) == ["", "img_arm"]
    assert from_image.values["image"] == "img_arm"


def test_a_promotion_without_reason_keeps_the_choice(browser: Browser) -> None:
    answer = browser.fill(page(browser), "/promote", image="img_2.0", reason=" ")
    assert answer.status_code == 422
    assert '<option value="img_2.0" selected>' in answer.text
    assert current(browser) is None


def test_two_operators_do_not_cross_silently(browser: Browser) -> None:
    form = browser.form(page(browser), "/promote")  # what this operator sees: it points nowhere
    promote(browser.db, OPERATOR, stable(browser), "img_1.0", seen_image_id=None, reason="other", now=NOW)
    answer = browser.submit(page(browser), form, image="img_2.0", reason="mine")
    assert answer.status_code == 409
    assert "moved by somebody else since you looked" in answer.text
    assert 'It points at <b class="mono">1.0</b>' in answer.text
    assert current(browser) == "img_1.0"


def test_a_new_channel_is_made_once(browser: Browser) -> None:
    answer = browser.fill("/channels/new", "/channels/new", name="edge", reason="for the edge")
    assert (answer.status_code, answer.location) == (303, "/images")
    assert "edge" in browser.get("/images").text
    again = browser.fill("/channels/new", "/channels/new", name="edge", reason="again")
    assert again.status_code == 409
    bad = browser.fill("/channels/new", "/channels/new", name="No Name", reason="x")
    assert bad.status_code == 422
    assert count_rows(browser.db, schema.channels) == 4


def test_a_promotion_without_choice_says_so(browser: Browser) -> None:
    answer = browser.fill(page(browser), "/promote", reason="x")  # nothing is chosen for the operator
    assert answer.status_code == 422
    assert "Choose the image" in answer.text
