"""A rollout on its time line: every moment has an address, and the last one is what the rollout's page shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from app.core.rollout_progress import Passage, Progress
from app.core.rollouts import RolloutNodeState
from app.store import schema
from app.store.database import Database
from app.web.rollout_replay import FRAMES, TimeLine, curves
from tests import rollout_kit
from tests import server_kit as kit
from tests.server_kit import NOW
from tests.web.console_kit import Browser


@pytest.fixture
def path(browser: Browser, database: Database) -> str:
    """Of a rollout of two nodes that took an hour: one was done after half of it, one failed at its end."""
    with database.write() as change:
        id = rollout_kit.add_rollout(change.conn, number=77, state="aborted", started_at=NOW, ended_at=NOW + 3600)
        way = {"ordered_at": NOW, "staged_at": NOW + 60, "moving_at": NOW + 900}
        ends = (("a-done", "done", NOW + 1800), ("b-failed", "failed", NOW + 3600))
        for name, state, ended in ends:
            node = kit.add_node(change.conn, name)
            rollout_kit.add_rollout_node(change.conn, id, node, state=state, ended_at=ended, **way)
        rollout_kit.add_rollout_event(change.conn, id, "canaries-soaked", "The canaries have soaked", at=NOW + 1800)
    return "/rollouts/77/replay"


def shown(browser: Browser, path: str) -> list[str]:
    """Progress of each cell."""
    return re.findall(r'class="p-([a-z-]+)" title', browser.get(path).text)


def test_nodes_stand_where_they_stood(browser: Browser, path: str) -> None:
    assert shown(browser, path) == ["staging", "staging"], "it begins at the start"
    assert shown(browser, f"{path}?at={NOW + 60:.0f}") == ["staged", "staged"]
    assert shown(browser, f"{path}?at={NOW + 1800:.0f}") == ["done", "moving"]
    assert shown(browser, f"{path}?at={NOW + 3601:.0f}") == ["done", "failed"]


def test_frames_lead_from_the_start_to_the_end_and_back(browser: Browser, path: str) -> None:
    line = TimeLine(int(NOW), int(NOW) + 3601)
    at: int | None = line.start
    frames = []
    while at is not None:
        frames.append(at)
        at = line.after(at)
    assert len(frames) == FRAMES + 2, "of 75 s each, and the second that rounding leaves"
    assert (frames[0], frames[-1]) == (line.start, line.end)
    assert line.before(line.start) is None
    page = browser.get(f"{path}?at={frames[1]}").text
    assert f'href="{path}?at={frames[2]}" rel="next"' in page
    assert f'href="{path}?at={frames[0]}" rel="prev"' in page


def test_the_start_is_on_the_line_and_days_are_named_where_there_are_several(
    browser: Browser, database: Database, path: str
) -> None:
    with database.write() as change:
        [id] = change.conn.execute(select(schema.rollouts.c.id)).scalars()
        rollout_kit.add_rollout_event(change.conn, id, "drafted", "Drafted by mb", at=NOW - 600)
        rollout_kit.add_rollout_event(change.conn, id, "started", "Started by mb", at=NOW - 0.4)
        change.conn.execute(update(schema.rollouts).values(started_at=NOW - 0.4))
    page = browser.get(path).text
    assert "Started by mb</span></li>" in page
    assert "Drafted by mb" not in page
    day = f"{datetime.fromtimestamp(NOW, UTC):%a %d %b}"
    assert day not in page.partition('class="axis"')[2]
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(ended_at=NOW + 2 * 86_400))
    assert day in browser.get(f"{path}?at=0").text.partition('class="axis"')[2]


def test_an_event_leads_to_its_moment(browser: Browser, path: str) -> None:
    assert f'href="{path}?at={NOW + 1800:.0f}"' in browser.get(path).text
    assert "The canaries have soaked</span>\n" in browser.get(f"{path}?at={NOW + 1800:.0f}").text


def test_what_happened_to_many_nodes_hides_neither_the_start_nor_the_stop(
    browser: Browser, database: Database, path: str
) -> None:
    with database.write() as change:
        [id] = change.conn.execute(select(schema.rollouts.c.id)).scalars()
        rollout_kit.add_rollout_event(change.conn, id, "started", "Started by mb", at=NOW)
        rollout_kit.add_rollout_event(change.conn, id, "aborted", "Aborted by mb", at=NOW + 60)
        for number in range(250):
            said = {"at": NOW + 61, "node_id": f"node_{number}"}
            rollout_kit.add_rollout_event(change.conn, id, "node-left", f"web-{number} left: it is gone", **said)
    page = browser.get(path).text
    assert page.count("left: it is gone") == 200
    assert "Started by mb</span>\n" in page, "what had happened at its first moment"
    assert "Aborted by mb</span></li>" in page
    shown = browser.get(path.removesuffix("/replay")).text
    assert "What happened before, in the replay" in shown


def test_moments_of_a_short_rollout_are_told_apart_by_seconds(browser: Browser, database: Database, path: str) -> None:
    clock = f"{datetime.fromtimestamp(NOW + 1800, UTC):%H:%M}"
    assert f">{clock}</a>" in browser.get(path).text, "an hour has minutes enough"
    with database.write() as change:
        change.conn.execute(update(schema.rollouts).values(started_at=NOW + 1780, ended_at=NOW + 1880))
    assert f">{clock}:{datetime.fromtimestamp(NOW + 1800, UTC):%S}</a>" in browser.get(path).text


def test_the_chart_says_what_its_colours_are(browser: Browser, path: str) -> None:
    legend = browser.get(path).text.partition('class="legend')[2].partition("</section>")[0]
    assert re.findall(r"<i class=\"p-(\w+)\"", legend) == ["done", "failed"]
    assert "of 2 nodes" in legend


@pytest.mark.parametrize("at", ["", "x", "-1", "0", "99999999999", "9" * 40])
def test_moments_outside_the_line_are_its_ends(browser: Browser, path: str, at: str) -> None:
    assert browser.get(f"{path}?at={at}").status_code == 200


def test_a_draft_has_nothing_to_replay(browser: Browser, database: Database) -> None:
    with database.write() as change:
        id = rollout_kit.add_rollout(change.conn, state="draft", started_at=None)
    assert browser.get(f"/rollouts/{id}/replay").status_code == 409


def test_curves_fall_when_nodes_go_back() -> None:
    line = TimeLine(0, 120)
    way = Passage(RolloutNodeState.DONE, False, 0, ended_at=30, back_at=90)
    (reached, points), (_, failed) = curves([way], line)
    heights = [float(point.partition(",")[2]) for point in points.split()]
    assert reached is Progress.DONE
    assert [heights[place + 1] for place in (0, 29, 30, 89, 90, 120)] == [72, 72, 0, 0, 72, 72]
    assert set(failed.split()[1].split(",")[1:]) == {"72.00"}
