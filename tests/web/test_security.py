"""Sessions, forged requests, headers, error pages, outage."""

from __future__ import annotations

import re

import pytest
from sqlalchemy.exc import OperationalError

from app.config import Settings
from app.store.database import Database, open_database
from app.web.security import local_path, origin_of
from tests import server_kit as kit
from tests.web.console_kit import Browser

OWN = "http://127.0.0.1:8080"


@pytest.fixture
def node(browser: Browser) -> str:
    with browser.db.write() as change:
        return kit.add_node(change.conn, name="web-01")


def name_of(browser: Browser, node: str) -> str:
    from app.store import nodes

    with browser.db.read() as conn:
        found = nodes.get(conn, node)
        assert found is not None
        return found.name


def test_a_change_needs_the_token_of_this_session(browser: Browser, node: str) -> None:
    form = browser.form(f"/nodes/{node}/rename", "/rename")
    other = Browser(browser.db, browser.settings, "other").form(f"/nodes/{node}/rename", "/rename")
    for token in ("", "0" * 64, other.values["csrf"], "é"):
        data = form.values | {"csrf": token, "name": "web-02", "reason": "typed with care"}
        answer = browser.client.post(f"/nodes/{node}/rename", data=data, headers={"Origin": OWN})
        assert answer.status_code == 403
        assert "typed with care" in answer.text, "typed input is kept"
        assert name_of(browser, node) == "web-01"
    again = browser.client.post(f"/nodes/{node}/rename", data=data, headers={"Origin": OWN})
    token = re.search(r'name="csrf" value="(\w+)"', again.text[again.text.index("typed with care") - 2000 :])
    assert token, "the page that refuses carries a good token, so that it can be sent again"
    good = browser.client.post(f"/nodes/{node}/rename", data=data | {"csrf": token[1]}, headers={"Origin": OWN})
    assert good.status_code == 303
    assert name_of(browser, node) == "web-02"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:8080"},
        {"Origin": "http://127.0.0.1:8081"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": OWN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_foreign_origins_change_nothing(browser: Browser, node: str, headers: dict[str, str]) -> None:
    form = browser.form(f"/nodes/{node}/rename", "/rename")
    answer = browser.client.post(f"/nodes/{node}/rename", data=form.values | {"name": "web-02"}, headers=headers)
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert name_of(browser, node) == "web-01"


def test_without_a_session_pages_lead_to_sign_in(database: Database, settings: Settings) -> None:
    nobody = Browser(database, settings, name="")
    page = nobody.get("/nodes?q=slot:B")
    assert page.status_code == 303
    assert page.headers["Location"] == "/sign-in?next=%2Fnodes%3Fq%3Dslot%3AB"
    for path in ("/", "/nodes.csv", "/events", "/preferences", "/go?q=x", "/nodes/x/update"):
        assert nobody.get(path).status_code == 303, path
    for path in ("/healthz", "/readyz", "/metrics", "/static/console.css"):
        assert nobody.get(path).status_code == 200, path


def test_an_expired_session_loses_no_typed_input(browser: Browser, node: str) -> None:
    form = browser.form(f"/nodes/{node}/pin", "/pin")
    browser.now += 13 * 3600
    answer = browser.client.post(
        f"/nodes/{node}/pin", data=form.values | {"reason": "a long reason"}, headers={"Origin": OWN}
    )
    assert answer.status_code == 401
    assert answer.text.count("a long reason") == 2, "shown, and in the form that sends it again"
    assert "Nothing was changed" in answer.text
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#list"}
    fragment = browser.get("/nodes", headers=headers)
    assert fragment.status_code == 401
    assert fragment.headers["HX-Reswap"] == "none", "an error must not take the place of a section"


def test_open_pages_do_not_keep_a_session_alive(browser: Browser) -> None:
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#list"}
    for _ in range(14):
        browser.now += 3600
        last = browser.get("/nodes", headers=headers).status_code
    assert last == 401


def test_headers_of_every_answer(browser: Browser, node: str) -> None:
    for path in ("/", f"/nodes/{node}", "/nodes/none", "/static/console.css", "/healthz", f"/nodes/{node}/retire"):
        headers = browser.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == "'self' ws://127.0.0.1:8090"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Referrer-Policy" in headers


def test_no_page_needs_what_the_policy_forbids(seeded: Browser) -> None:
    node = re.search(r"/nodes/(node_\w+)", seeded.get("/nodes").text)
    assert node
    paths = [
        "/",
        "/nodes",
        f"/nodes/{node[1]}",
        f"/nodes/{node[1]}/pin",
        "/events",
        "/images",
        "/joining",
        "/preferences",
    ]
    for path in paths:
        text = seeded.get(path).text
        assert not re.search(r"<[^>]+\sstyle=", text), f"{path}: inline style"
        assert not re.search(r"<[^>]+\son[a-z]+=", text), f"{path}: inline handler"
        assert "<style" not in text
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), f"{path}: inline script"
        assert "hx-on" not in text
        assert "js:" not in text


def test_unknown_pages_and_methods(browser: Browser) -> None:
    assert browser.get("/nowhere").status_code == 404
    assert browser.get("/nodes/x/dance").status_code == 404
    form = browser.form("/preferences", "/preferences")
    answer = browser.client.post("/events", data={"csrf": form.values["csrf"]}, headers={"Origin": OWN})
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_the_database_away(settings: Settings, database: Database) -> None:
    browser = Browser(database, settings)
    browser.get("/")
    away = open_database("postgresql://nobody@127.0.0.1:1/none")
    try:
        with pytest.raises(OperationalError), away.read():
            pass
        console = browser.app.extensions["twinroot"]
        object.__setattr__(console, "db", away)
        browser.now += 60
        page = browser.get("/nodes")
        assert page.status_code == 503
        assert page.headers["Retry-After"]
        assert "The database is away" in page.text
        assert "1 min ago" in page.text, "since when"
        typed = browser.client.post(
            "/nodes/x/rename", data={"name": "n", "reason": "kept words"}, headers={"Origin": OWN}
        )
        assert typed.status_code == 503
        assert "kept words" in typed.text
        assert browser.get("/healthz").status_code == 200
        assert browser.get("/readyz").status_code == 503
    finally:
        away.close()


def test_metrics(browser: Browser) -> None:
    browser.get("/nodes")
    text = browser.get("/metrics").text
    assert 'twinroot_web_requests_total{endpoint="nodes.index",method="GET",status="200"} 1.0' in text


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/nodes?q=slot:B", True),
        ("/", True),
        ("//evil.example/", False),
        ("/\\evil.example", False),
        ("https://evil.example/", False),
        ("javascript:alert(1)", False),
        ("/a\nb", False),
        ("/\t/evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_only_local_paths_are_followed(target: str | None, kept: bool) -> None:
    assert local_path(target) == (target if kept else None)


def test_origins() -> None:
    assert origin_of("https://console.example:443/x") == "https://console.example"
    assert origin_of("http://[::1]:8080") == "http://[::1]:8080"
