"""Lists of nodes count by the zone's own column, and in indexes alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, update

from app.core.query import parse
from app.store import node_list, schema
from app.store.database import Database, open_database
from app.store.node_query import Condition, Known, condition
from tests import server_kit as kit
from tests.server_kit import NOW


def where(text: str) -> Condition:
    return condition(parse(text), Known(NOW))


def test_zones_are_counted_among_the_nodes_that_match(database: Database) -> None:
    with database.write() as change:
        for zone in ("a", "b", "b"):
            kit.add_node(change.conn, labels={"zone": zone})
        kit.add_node(change.conn, labels={"zone": "b"}, health_state="degraded")
        kit.add_node(change.conn, labels={"role": "web"})
    with database.read() as conn:
        assert node_list.facets(conn, where("")).zones == [("b", 3), ("a", 1)]
        assert node_list.facets(conn, where("health:degraded")).zones == [("b", 1)]
        assert node_list.facets(conn, where("label:zone=a")).total == 1
        assert node_list.facets(conn, where("not label:zone")).total == 1


def test_the_zone_follows_the_labels(database: Database) -> None:
    with database.write() as change:
        node_id = kit.add_node(change.conn, labels={"zone": "a"})
        change.conn.execute(update(schema.nodes).where(schema.nodes.c.id == node_id).values(labels={"zone": "b"}))
    with database.read() as conn:
        assert node_list.facets(conn, where("label:zone=b")).zones == [("b", 1)]
        assert node_list.facets(conn, where("label:zone=a")).zones == []


@pytest.fixture
def embedded(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """SQLite only: plans of PostgreSQL depend on its statistics."""
    db = open_database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'twinroot.db')}")
    yield db
    db.close()


@pytest.mark.parametrize("text", ["", "health:degraded", "label:zone=a"])
def test_searching_reads_indexes_not_nodes(embedded: Database, text: str) -> None:
    asked: list[tuple[str, object]] = []

    def note(_conn: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(embedded.engine, "before_cursor_execute", note)
    with embedded.read() as conn:
        node_list.facets(conn, where(text))
        node_list.page(conn, where(text), node_list.Order(), after=None, limit=51)
        plans = {
            str(row[3])
            for statement, parameters in [pair for pair in asked if "FROM nodes" in pair[0]]
            for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
        }
    assert any("ix_nodes_facets" in step for step in plans)
    assert any("ix_nodes_listed" in step for step in plans)
    assert not any("TEMP B-TREE" in step for step in plans), plans
