"""Going to a node, service, group, rollout, page or action by name."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from sqlalchemy import select

from app.services.service_watch import ServiceWatch
from app.store.schema import nodes
from tests.server_kit import NOW
from tests.web.console_kit import Browser
from tests.web.rollout_seed import seed_rollouts


def test_go_leads_to_nodes_and_pages(seeded: Browser) -> None:
    with seeded.db.read() as conn:
        node = conn.execute(select(nodes.c.id).order_by(nodes.c.id)).scalars().all()[4]
    assert seeded.get(f"/go?q={node}").headers["Location"] == f"/nodes/{node}"
    assert seeded.get("/go?q=Events").headers["Location"] == "/events"
    several = urlsplit(seeded.get("/go?q=eu west").headers["Location"])
    assert several.path == "/nodes"
    assert parse_qs(several.query) == {"q": ['"eu west"']}
    found = seeded.get("/go?q=web", headers={"Accept": "application/json"}).json
    assert found
    assert all(item["kind"] == "node" and "web" in item["name"] for item in found)
    assert [item["href"] for item in asked(seeded, "freeze")] == ["/freezes", "/freezes/new"]
    assert seeded.get("/go?q=upload").headers["Location"] == "/images/upload"
    assert asked(seeded, "no such thing") == []


def asked(browser: Browser, text: str) -> list[dict[str, str]]:
    """What the palette is told."""
    found: list[dict[str, str]] = browser.get(f"/go?q={text}", headers={"Accept": "application/json"}).json
    return found


def test_go_leads_to_services_groups_rollouts_and_what_can_be_done_with_them(seeded: Browser) -> None:
    services, running = ServiceWatch(), seed_rollouts(seeded.db, NOW)["running"]
    services.step(seeded.db, NOW)
    assert {"name": "shop/ledger", "href": "/service?scope=shop&name=ledger", "kind": "service"} in asked(
        seeded, "ledg"
    )
    assert seeded.get("/go?q=shop/ledger").headers["Location"] == "/service?scope=shop&name=ledger"
    assert "/groups/" in next(item["href"] for item in asked(seeded, "web") if item["kind"] == "group")
    pause = [item for item in asked(seeded, f"pause {running}") if item["kind"] == "action"]
    assert [item["href"] for item in pause] == [f"/rollouts/{running}/pause"]
    assert [item["href"] for item in asked(seeded, f"rollout {running}") if item["kind"] == "rollout"]
