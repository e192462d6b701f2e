"""The benchmarks' browser understands the pages as they are, and their sums are right."""

from __future__ import annotations

import pytest

from app.config import Settings
from app.store.database import Database
from bench.browser import parts_of
from bench.change_to_page import share_within
from tests.server_kit import NOW
from tests.web.console_kit import Browser
from tests.web.seed import seed


@pytest.mark.parametrize(("path", "part"), [("/", "fleet"), ("/nodes", "list"), ("/nodes?q=label:zone%3Da", "list")])
def test_the_live_part_of_a_page_is_found(database: Database, settings: Settings, path: str, part: str) -> None:
    seed(database, 3, NOW)
    [found] = parts_of(Browser(database, settings).get(path).text)
    assert (found.id, found.path) == (part, path)
    assert len(found.topics) == len(found.revisions) > 0
    assert found.etag.startswith('W/"')


def test_a_node_page_watches_its_node(database: Database, settings: Settings) -> None:
    node_id = seed(database, 1, NOW)[0]
    [found] = parts_of(Browser(database, settings).get(f"/nodes/{node_id}").text)
    assert f"node:{node_id}" in found.topics


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_the_time_that_a_share_is_within(share: float, expected: float) -> None:
    assert share_within([float(number) for number in range(100, 0, -1)], share) == expected


def test_of_one_time_every_share_is_within_it() -> None:
    assert share_within([7.0], 0.99) == 7.0
