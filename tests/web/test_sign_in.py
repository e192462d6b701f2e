from __future__ import annotations

import pytest

from app.config import Settings
from app.services.sign_in import LINK_TTL_S, SESSION_TTL_S, create_login_link
from app.store.database import Database
from tests.server_kit import NOW
from tests.web.console_kit import Browser


@pytest.fixture
def stranger(database: Database, settings: Settings) -> Browser:
    return Browser(database, settings, name="")


def link(browser: Browser) -> str:
    return f"/sign-in/{create_login_link(browser.db, 'mb', NOW)}"


def test_a_link_signs_in_at_once_and_only_once(stranger: Browser) -> None:
    there = link(stranger)
    first = stranger.get(there)
    assert (first.status_code, first.location) == (303, "/")
    assert stranger.get("/images").status_code == 200
    stranger.client.delete_cookie("twinroot_session")
    again = stranger.get(there)
    assert again.status_code == 401
    assert "twinroot login-link" in again.text
    assert stranger.get("/images").status_code == 303


def test_an_expired_link_says_what_to_do(stranger: Browser) -> None:
    there = link(stranger)
    stranger.now += LINK_TTL_S
    answer = stranger.get(there)
    assert answer.status_code == 401
    assert "has expired" in answer.text


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(stranger: Browser) -> None:
    cookies = [header for name, header in stranger.get(link(stranger)).headers if name == "Set-Cookie"]
    session = next(header for header in cookies if header.startswith("twinroot_session="))
    assert "HttpOnly" in session
    assert "SameSite=Lax" in session


def test_the_link_leaks_neither_by_referrer_nor_by_cache(stranger: Browser) -> None:
    answer = stranger.get(link(stranger))
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_only_looks_ahead_does_not_spend_the_link(stranger: Browser) -> None:
    there = link(stranger)
    assert stranger.client.head(there).status_code == 204
    assert stranger.get(there, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 204
    assert stranger.get(there).status_code == 303


def test_a_page_that_asked_for_the_sign_in_is_where_it_leads(stranger: Browser) -> None:
    refused = stranger.get("/joining/new?x=1")
    assert refused.status_code == 303
    assert stranger.get(refused.location or "").status_code == 200
    assert stranger.get(link(stranger)).location == "/joining/new?x=1"
    assert stranger.get(link(stranger)).location == "/"  # once


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
def test_nobody_is_led_to_another_site(stranger: Browser, target: str) -> None:
    assert stranger.get(f"{link(stranger)}?next={target}").location == "/"
    stranger.get("/sign-in", query_string={"next": target})
    assert stranger.get(link(stranger)).location == "/"


def test_a_link_may_lead_to_a_page(stranger: Browser) -> None:
    assert stranger.get(f"{link(stranger)}?next=/images").location == "/images"


@pytest.mark.parametrize(
    "path", ["/images", "/images/upload", "/images/register", "/joining", "/joining/new", "/channels/new"]
)
def test_pages_need_a_session(stranger: Browser, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 303
    assert (answer.location or "").startswith("/sign-in?next=")


@pytest.mark.parametrize("path", ["/images/upload", "/images/register", "/joining/new", "/channels/new", "/sign-out"])
def test_changes_need_a_session(stranger: Browser, path: str) -> None:
    assert stranger.client.post(path, data={}).status_code == 401
    assert stranger.client.put("/images/content", data=b"x").status_code == 401


def test_signing_out_ends_the_session(database: Database, settings: Settings) -> None:
    browser = Browser(database, settings)
    answer = browser.fill("/images", "/sign-out")
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert browser.get("/images").status_code == 303


def test_signing_out_needs_a_form_of_our_own(database: Database, settings: Settings) -> None:
    browser = Browser(database, settings)
    assert browser.client.post("/sign-out").status_code == 403
    assert browser.get("/images").status_code == 200


def test_a_session_ends_when_nobody_looks_at_pages(database: Database, settings: Settings) -> None:
    browser = Browser(database, settings)
    browser.now += SESSION_TTL_S - 60
    assert browser.get("/images").status_code == 200
    browser.now += SESSION_TTL_S - 60
    assert browser.get("/images").status_code == 200
    browser.now += SESSION_TTL_S
    assert browser.get("/images").status_code == 303
