"""A draft's plan, and what operators do: each page says before what it does, and does it once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.core import snapshot_file
from app.core.plan_text import render
from app.core.planner import plan
from app.core.rollouts import RolloutState
from app.store import rollout_nodes, rollouts, schema
from app.store.database import Database
from app.store.rollouts import Rollout
from app.web.rollout_plan import broad_words
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser


@pytest.fixture
def fleet(browser: Browser, database: Database) -> dict[str, str]:
    """Seven nodes of the group web: name → id. Checkout runs on three, a single ledger on one; one is pinned, one is
    up to date already."""
    with database.write() as change:
        conn = change.conn
        gateway = kit.add_gateway(conn)
        kit.add_image(conn, "2.0")
        old = kit.add_image(conn, "1.0")
        rollout_kit.add_group(conn, policy={"max_unavailable": {"count": 2}, "canary_soak_s": 60.0})
        given = {
            "done": {"version": "2.0", "booted_digest": kit.digest_of("2.0"), "slots": kit.two_slots("2.0")},
            "pinned": {"pin_image_id": old, "pin_actor": "mb", "pin_reason": "driver", "pinned_at": NOW},
        }
        names = ("a", "b", "c", "ledger", "idle", "done", "pinned")
        made = {
            name: kit.add_node(conn, name, labels={"role": "web"}, gateway_id=gateway, **given.get(name, {}))
            for name in names
        }
        for name in ("a", "b", "c"):
            kit.add_container(conn, made[name], "checkout", scope="shop")
        kit.add_container(conn, made["ledger"], "ledger", scope="shop")
        made["gateway"] = gateway
    return made


@pytest.fixture
def draft(browser: Browser, database: Database, fleet: dict[str, str]) -> str:
    """Address of a drafted update of the group."""
    response = browser.fill("/rollouts/new?group=web", "/new", target="version:2.0", reason="monthly update")
    assert response.status_code == 303
    return str(response.location)


def stored(database: Database) -> Rollout:
    with database.read() as conn:
        [found] = rollouts.newest(conn, limit=1)
    return found


def figure(page: str, words: str) -> int:
    found = re.search(rf"<b>([\d,]+)</b>(?:(?!</a>|</div>).)*{words}", page, re.S)
    assert found, words
    return int(found[1])


def test_the_plan_partitions_the_group(browser: Browser, draft: str) -> None:
    page = browser.get(draft).text
    figures = [figure(page, words) for words in ("will move", "held for good", "left out")]
    assert figures == [4, 1, 2]
    assert "Canaries" in page
    for href, number in re.findall(rf'href="({draft}/nodes\?(?:hold|left)=[^"]+)" aria-label="[^"]*">(\d+)<', page):
        assert f'<span class="muted">{number} node' in browser.get(href.replace("&amp;", "&")).text, href
    waves = re.findall(rf'href="({draft}/nodes\?wave=\d+(?:-\d+)?)"', page)
    listed = [re.findall(r'class="name"><a href="/nodes/(\w+)"', browser.get(href).text) for href in waves]
    assert sum(map(len, {tuple(each) for each in listed})) == 4


def test_what_is_impossible_is_named_with_what_helps(browser: Browser, database: Database, draft: str) -> None:
    page = browser.get(draft).text
    assert "Services that make it impossible" in page
    assert page.count("has a single replica") == 1, "said once, not under the counts again"
    assert page.count("another replica") == 1, "nor what helps"
    assert "can never move unless somebody changes something, and so it never ends" in page
    allow = re.search(rf'href="({draft}/allow-single[^"]*)"', page)
    assert allow
    response = browser.fill(allow[1].replace("&amp;", "&"), "/allow-single", reason="it may be away at night")
    assert response.location == draft
    assert stored(database).allowances == {("shop", "ledger")}
    after = browser.get(draft).text
    assert "Services that make it impossible" not in after
    assert figure(after, "held for good") == 0
    assert "shop/ledger" in after, "that it may move is still said"


def test_alike_holds_of_several_nodes_are_one_reason(browser: Browser, database: Database, draft: str) -> None:
    with database.write() as change:
        change.conn.execute(update(schema.nodes).values(connection="offline", last_seen_at=NOW - 60))
    page = browser.get(draft).text
    assert page.count("is not connected") == 1
    assert figure(page, "held for good") == 5


def test_a_node_is_left_out(browser: Browser, database: Database, draft: str, fleet: dict[str, str]) -> None:
    browser.fill(f"{draft}/leave-out?node={fleet['ledger']}", "/leave-out", reason="not tonight")
    page = browser.get(draft).text
    assert figure(page, "left out") == 3
    assert figure(page, "held for good") == 0
    with database.read() as conn:
        told = rollouts.events(conn, stored(database).id)[0].text
    assert told == "ledger is left out by mb: “not tonight”", "by the name that people know"


def test_worst_moments_show_now_lowest_and_floor(browser: Browser, draft: str) -> None:
    row = re.search(
        r"<tr><td[^>]*>(?:<span[^>]*>shop/</span><wbr>)?checkout</td>(.*?)</tr>", browser.get(draft).text, re.S
    )
    assert row
    assert re.findall(r'<td class="num(?: tight)?"[^>]*>(\d+)', row[1]) == ["3", "2", "2"]


def test_the_plan_can_be_saved_and_is_explained_without_a_database(browser: Browser, draft: str) -> None:
    [link] = re.findall(r'href="(/rollouts/\d+/snapshot)" download', browser.get(draft).text)
    answer = browser.get(link)
    assert 'filename="rollout-1-snapshot.json"' in answer.headers["Content-Disposition"]
    saved = snapshot_file.load(answer.data)
    made = plan(saved)
    assert sum(len(wave.nodes) for wave in made.waves) == 4, "as many as its page says"
    said = render(made, saved)
    assert "ledger" in said and said.count("rollout 1: ") == 1
    stranger = Browser(browser.db, browser.settings, name="")
    assert stranger.get(link).status_code in (302, 303, 401), "who may not see the page may not have the file"


@pytest.mark.parametrize(
    ("nodes", "group", "fleet", "words"),
    [
        (1, 1, 1, ""),
        (11, 12, 12, "11 of 12 nodes of the group"),
        (12, 12, 22, "all 12 nodes of the group"),
        (11, 22, 22, ""),
        (12, 22, 22, "12 of 22 nodes of the group"),
        (11, 22, 12, "11 of 12 nodes of the fleet"),
        (11, None, 22, ""),
        (12, None, 22, "12 of 22 nodes of the fleet"),
        (51, 1000, 5000, "51 nodes, more than 50"),
    ],
)
def test_what_is_broad_and_why(nodes: int, group: int | None, fleet: int, words: str) -> None:
    found = broad_words(nodes, group, fleet)
    assert words in found and bool(words) == bool(found)


def test_starting_a_part_must_be_meant(browser: Browser, database: Database, draft: str) -> None:
    refused = browser.fill(f"{draft}/start", "/start", confirm="web")
    assert refused.status_code == 409
    assert "could never move" in refused.text
    assert stored(database).state is RolloutState.DRAFT
    assert "It is about 5 of 7 nodes of the group." in browser.get(f"{draft}/start").text
    form = browser.form(f"{draft}/start", "/start")
    form.values |= {"anyway": "yes", "confirm": "web"}
    assert browser.submit(draft, form).location == draft
    assert stored(database).state is RolloutState.RUNNING
    assert "Pause" in browser.get(draft).text


def test_starting_a_whole_group_asks_for_its_name(browser: Browser, database: Database, fleet: dict[str, str]) -> None:
    with database.write() as change:
        rollout_kit.add_group(change.conn, "pair", selector="pair=yes")
        for _ in range(2):
            kit.add_node(change.conn, labels={"pair": "yes"}, gateway_id=fleet["gateway"])
    path = browser.fill("/rollouts/new?group=pair", "/new", target="version:2.0", reason="x").location
    wrong = browser.fill(f"{path}/start", "/start", confirm="web")
    assert wrong.status_code == 422
    assert "Type pair to start it" in wrong.text
    assert stored(database).state is RolloutState.DRAFT
    browser.fill(f"{path}/start", "/start", confirm="pair")
    assert stored(database).state is RolloutState.RUNNING


def test_an_abandoned_draft_changes_nothing_and_stays_to_be_read(
    browser: Browser, database: Database, draft: str
) -> None:
    browser.fill(f"{draft}/abort", "/abort", reason="another version is better")
    assert stored(database).state is RolloutState.ABORTED
    assert browser.get(draft).status_code == 200
    assert browser.get(f"{draft}/start").text.count("Not possible now.") == 1


def test_break_glass_is_toggled(browser: Browser, database: Database, draft: str) -> None:
    for wanted in (True, False):
        browser.fill(f"{draft}/break-glass", "/break-glass", reason="the fix must go out")
        assert stored(database).break_glass is wanted
        assert ("break-glass: passes freezes" in browser.get(draft).text) is wanted


def test_the_same_wish_twice_is_one(browser: Browser, database: Database, draft: str) -> None:
    """Two people, or one with two tabs."""
    asked = [browser.form(f"{draft}/break-glass", "/break-glass") for _ in range(2)]
    for form in asked:
        browser.submit(f"{draft}/break-glass", form, reason="the fix must go out")
    assert stored(database).break_glass


def test_a_wave_that_is_none_sends_nobody_back(browser: Browser, database: Database, running: str) -> None:
    form = browser.form(f"{running}/roll-back", "/roll-back")
    form.values["wave"] = "1x"
    answer = browser.submit(f"{running}/roll-back", form, reason="slow")
    assert "is no wave" in answer.text and stored(database).state is RolloutState.RUNNING


# --- while it runs ------------------------------------------------------------------------------------------


@pytest.fixture
def running(browser: Browser, database: Database, draft: str) -> str:
    form = browser.form(f"{draft}/start", "/start")
    form.values |= {"anyway": "yes", "confirm": "web"}
    browser.submit(draft, form)
    with database.write() as change:
        rollout = stored(database)
        rows = rollout_nodes.all_of(change.conn, rollout.id)
        moved, others = rows[0], rows[1:]
        rollout_nodes.change(change.conn, moved, state="done", moving_at=NOW, ended_at=NOW + 5)
        new = {"version": "2.0", "booted_digest": kit.digest_of("2.0"), "slots": kit.two_slots("2.0")}
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == moved.node_id).values(new))
        for row in others[:1]:
            rollout_nodes.change(change.conn, row, state="ordered", ordered_at=NOW)
        change.touch(f"rollout:{rollout.id}")
    return draft


@pytest.mark.parametrize("action", ["pause", "abort", "roll-back"])
def test_each_stop_says_what_stops_and_what_finishes(browser: Browser, running: str, action: str) -> None:
    page = browser.get(f"{running}/{action}").text
    assert "Stops now:" in page
    if action == "roll-back":
        assert 'Back to <b class="mono">1.0</b>' in page
        assert "must be downloaded" in page, "the passive slot of these nodes is empty"
    else:
        assert "Will still finish:" in page


def test_pause_resume_and_abort(browser: Browser, database: Database, running: str) -> None:
    browser.fill(f"{running}/pause", "/pause", reason="a look at the logs")
    assert stored(database).state is RolloutState.PAUSED
    page = browser.get(running).text
    assert "a look at the logs" in page
    browser.fill(f"{running}/resume", "/resume")
    assert stored(database).state is RolloutState.RUNNING
    refused = browser.fill(f"{running}/abort", "/abort", reason=" ")
    assert refused.status_code == 422
    browser.fill(f"{running}/abort", "/abort", reason="enough")
    assert stored(database).state is RolloutState.ABORTED


def test_roll_back_of_the_whole(browser: Browser, database: Database, running: str) -> None:
    assert browser.fill(f"{running}/roll-back", "/roll-back", reason="latency").location == running
    assert stored(database).state is RolloutState.ROLLING_BACK


def test_what_the_state_forbids_is_said_before_anything_is_typed(browser: Browser, running: str) -> None:
    page = browser.get(f"{running}/reverse")
    assert "Not possible now." in page.text
    assert "<form class" not in page.text
    assert browser.get(f"{running}/explode").status_code == 404
    assert browser.get(f"{running}/leave-out?node=nobody").status_code == 404
    assert browser.get(f"{running}/allow-single").status_code == 409


def test_a_stale_button_changes_nothing(browser: Browser, database: Database, running: str) -> None:
    form = browser.form(f"{running}/pause", "/pause")
    browser.fill(f"{running}/abort", "/abort", reason="enough")
    late = browser.submit(running, form)
    assert late.status_code == 409
    assert "nothing was changed" in late.text
    assert stored(database).state is RolloutState.ABORTED


def test_an_allowance_is_for_a_service_that_there_is(browser: Browser, database: Database, draft: str) -> None:
    real = f"{draft}/allow-single?scope=shop&name=ledger"
    assert "1 expected, floor 1." in browser.get(real).text
    form = browser.form(real, "/allow-single")
    assert browser.get(f"{draft}/allow-single?scope=shop&name=lodger").status_code == 404
    assert browser.submit(real, form, name="lodger", reason="a slip of the finger").status_code == 404
    assert stored(database).allowances == frozenset()
    assert browser.submit(real, form, reason="at night").status_code == 303
    assert stored(database).allowances == {("shop", "ledger")}


def test_the_range_is_held_against_the_windows(browser: Browser, database: Database, draft: str) -> None:
    """Soak, canary soak and a window of ten hours; the reader's clock is that of UTC. Some of its nodes never move."""

    def plan(windows: list[dict[str, Any]], **more: Any) -> str:
        policy = {"canary_soak_s": 60.0, "windows": windows, **more}
        with database.write() as change:
            change.conn.execute(update(schema.groups).values(policy=policy))
            change.touch("groups")
        return browser.get(draft).text

    then = datetime.fromtimestamp(NOW, UTC)

    def window(opens_h: int, closes_h: int) -> dict[str, Any]:
        opens, closes = (f"{then + timedelta(hours=hours):%H}:00" for hours in (opens_h, closes_h))
        return {
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "opens": opens,
            "closes": closes,
            "zone": "UTC",
        }

    closes = f"{then + timedelta(hours=20):%a %Y-%m-%d %H}:00 UTC"
    assert "its window" not in plan([])
    through = f"What can move is through before its window closes, {closes}."
    assert through in plan([window(-1, 20)], max_unavailable={"count": 4})
    assert "What can move is not through before its window closes" in plan([window(-1, 1)], timing={"soak_s": 7200.0})
    assert f"its window opens {then + timedelta(hours=2):%a %Y-%m-%d %H}:00 UTC" in plan([window(2, 3)])
    browser.fill(f"{draft}/break-glass", "/break-glass", reason="it must be now")
    assert "its window" not in plan([window(2, 3)])


def test_a_freeze_without_an_end_is_named_once(browser: Browser, draft: str) -> None:
    browser.fill("/freezes/new", "/freezes/new", reason="quarter end")
    page = browser.get(draft).text
    assert "The whole fleet is frozen by mb: “quarter end”" in page
    assert "the fleet the whole fleet" not in page.lower()
    assert page.count("the whole fleet is frozen by mb") <= 2


def test_who_keeps_its_way_back_is_counted_and_names_what_keeps_it(
    browser: Browser, database: Database, fleet: dict[str, str], draft: str
) -> None:
    with database.write() as change:
        keeper = rollout_kit.add_rollout(change.conn, state="paused", version="1.0")
        for name in ("a", "idle"):
            ended = {"state": "ended", "result": "succeeded", "ended_at": NOW, "rollout_id": keeper}
            made = kit.add_operation(change.conn, fleet[name], target_version="1.0", **ended)
            rollout_kit.add_rollout_node(
                change.conn, keeper, fleet[name], state="done", operation_id=made, moving_at=NOW - 60
            )
    page = re.sub(r"\s+", " ", browser.get(draft).text)
    held = page.partition('id="held-for-good"')[2].partition("</section>")[0]
    assert "Keeps its way back" in held and ">2<" in held and "finishing or aborting the rollout" in held
    with database.read() as conn:
        number = rollouts.get(conn, keeper).number  # type: ignore[union-attr]
    assert f"keeps its way back for rollout {number}, which is not over" in held.lower()
