from __future__ import annotations

import re

import pytest

from app.config import Settings
from app.services.joining import JoinRefused
from app.services.server_keys import current_key
from app.store import channels, join_tokens, schema
from app.store.database import Database
from app.store.join_tokens import JoinToken
from tests.server_kit import NOW, count_rows
from tests.services.test_joining import attempt, join_with
from tests.web.console_kit import Browser

COMMAND = re.compile(r"<code tabindex=\"0\">(twinroot-agent join [^<]+)</code>")


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    return Browser(database, settings)


def made(browser: Browser, **values: str) -> str:
    """The join command that the form answers with."""
    answer = browser.fill("/joining/new", "/joining/new", **values)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found = COMMAND.search(answer.text)
    assert found
    return found[1]


def token_in(command: str) -> str:
    return command.split()[3]


def tokens(browser: Browser) -> list[JoinToken]:
    with browser.db.read() as conn:
        return join_tokens.newest(conn)


def test_without_tokens_the_page_shows_the_exact_command(browser: Browser) -> None:
    page = browser.get("/joining").text
    assert "twinroot join-token create" in page
    assert "Nobody has joined yet" in page


def test_the_form_makes_a_command_that_lets_a_machine_in(browser: Browser) -> None:
    command = made(browser, admit="at-once", note="rack 7")
    key = current_key(browser.db, browser.settings, NOW)
    assert command.split()[:3] == ["twinroot-agent", "join", browser.settings.agent_url]
    assert command.split()[4:] == ["--fingerprint", key.fingerprint]
    joined = attempt(browser.db, join_with(token_in(command)))
    page = browser.get("/joining").text
    assert f'href="/nodes/{joined.node_id}"' in page
    assert "rack 7" in page
    assert "0 of 1" in page


def test_the_token_is_shown_once(browser: Browser) -> None:
    token = token_in(made(browser))
    assert token not in browser.get("/joining").text
    assert token not in browser.get("/events").text


def test_the_same_form_sent_twice_makes_one_token(browser: Browser) -> None:
    form = browser.form("/joining/new", "/joining/new")
    assert browser.submit("/joining/new", form).status_code == 200
    again = browser.submit("/joining/new", form)
    assert (again.status_code, again.location) == (303, "/joining")
    assert count_rows(browser.db, schema.join_tokens) == 1


def test_all_of_the_form_is_kept(browser: Browser) -> None:
    with browser.db.read() as conn:
        stable = channels.find(conn, "stable")
    assert stable is not None
    made(
        browser,
        max_uses="12",
        lifetime="3600",
        networks="10.0.0.0/8\n2001:db8::/32",
        labels="zone=a, role=web",
        channel=stable.id,
    )
    (token,) = tokens(browser)
    assert (token.max_uses, token.expires_at, token.admit) == (12, NOW + 3600, False)
    assert token.networks == ("10.0.0.0/8", "2001:db8::/32")
    assert token.labels == {"zone": "a", "role": "web"}
    assert (token.channel, token.created_by) == ("stable", "mb")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_uses": "many"}, "“many” is no number of uses"),
        ({"max_uses": "0"}, "can be used 1 to"),
        ({"networks": "10.0.0.1/8"}, "10.0.0.1/8"),
        ({"labels": "zone"}, "is no label such as zone=a"),
        ({"lifetime": "1"}, "Choose how long"),
    ],
)
def test_a_wrong_field_is_named_and_the_rest_is_kept(browser: Browser, values: dict[str, str], said: str) -> None:
    answer = browser.fill("/joining/new", "/joining/new", note="kept", **values)
    assert answer.status_code == 422
    assert said in answer.text
    assert 'value="kept"' in answer.text
    assert tokens(browser) == []


def test_a_refused_join_is_listed_with_its_reason(browser: Browser) -> None:
    token = token_in(made(browser, networks="10.0.0.0/8"))
    with pytest.raises(JoinRefused):
        attempt(browser.db, join_with(token, name="intruder"), remote="192.0.2.66")
    page = browser.get("/joining").text
    assert "intruder" in page
    assert "refused" in page
    assert "192.0.2.66" in page
    assert "may be used from 10.0.0.0/8" in page


def test_a_node_that_waits_is_shown_with_its_approval(browser: Browser) -> None:
    joined = attempt(browser.db, join_with(token_in(made(browser, admit="approval"))))
    page = browser.get("/joining").text
    assert "Wait for approval" in page
    assert f'href="/nodes/{joined.node_id}/approve"' in page


def test_a_token_is_revoked_with_its_page(browser: Browser) -> None:
    made(browser, note="leaky")
    (token,) = tokens(browser)
    answer = browser.fill(f"/joining/{token.id}/revoke", "/revoke", reason="leaked")
    assert (answer.status_code, answer.location) == (303, "/joining")
    assert "revoked" in browser.get("/joining").text
    again = browser.fill(f"/joining/{token.id}/revoke", "/revoke")
    assert again.status_code == 409
    assert browser.get("/joining/join_none/revoke").status_code == 404


def test_what_a_machine_says_of_itself_is_shown_as_text(browser: Browser) -> None:
    with pytest.raises(JoinRefused):
        attempt(browser.db, join_with("trj_invented", name="<script>alert(1)</script>"))
    page = browser.get("/joining").text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_token_expires_on_the_page_without_any_change(browser: Browser) -> None:
    made(browser, lifetime="3600")
    first = browser.get("/joining")
    browser.now += 3601
    later = browser.get("/joining", headers={"If-None-Match": first.headers["ETag"]})
    assert later.status_code == 200
    assert "expired" in later.text
