"""What the control plane's database holds, read beside it: tests compare it with what the pages show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from sqlalchemy import create_engine, select
from sqlalchemy.pool import NullPool

from app.store.schema import (
    events,
    failed_versions,
    images,
    join_attempts,
    join_tokens,
    leases,
    nodes,
    operations,
    rollout_nodes,
    rollouts,
)

Row = Mapping[str, Any]


class Ledger:
    """Every question reads anew, so that nothing is held open while a control plane is killed."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """That of an SQLite file, which is only read."""
        return cls(f"sqlite:///file:{file}?mode=ro&uri=true")

    def _all(self, statement: Any) -> list[Row]:
        with self._engine.connect() as conn:
            return [dict(row._mapping) for row in conn.execute(statement)]

    def node(self, node_id: str) -> Row:
        return self._all(select(nodes).where(nodes.c.id == node_id))[0]

    def nodes(self) -> list[Row]:
        return self._all(select(nodes))

    def images(self) -> list[Row]:
        return self._all(select(images))

    def image_id(self, version: str) -> str:
        return str(self._all(select(images.c.id).where(images.c.version == version))[0]["id"])

    def operation(self, operation_id: str) -> Row:
        return self._all(select(operations).where(operations.c.id == operation_id))[0]

    def operations(self, node_id: str) -> list[Row]:
        """Of a node, oldest first."""
        return self._all(
            select(operations).where(operations.c.node_id == node_id).order_by(operations.c.order_generation)
        )

    def events(self, node_id: str, kind: str = "", operation_id: str = "") -> list[Row]:
        """Of a node, oldest first, of one kind and about one operation where given."""
        found = self._all(select(events).where(events.c.node_id == node_id).order_by(events.c.id))
        return [
            event
            for event in found
            if kind in ("", event["kind"]) and operation_id in ("", event["operation_id"] or "no operation")
        ]

    def leases(self, operation_id: str) -> list[Row]:
        return self._all(select(leases).where(leases.c.operation_id == operation_id))

    def failed_versions(self, node_id: str) -> list[Row]:
        """That are not cleared."""
        wanted = (failed_versions.c.node_id == node_id) & failed_versions.c.cleared_at.is_(None)
        return self._all(select(failed_versions).where(wanted))

    def join_tokens(self) -> list[Row]:
        """The youngest last."""
        return self._all(select(join_tokens).order_by(join_tokens.c.created_at))

    def join_attempts(self) -> list[Row]:
        return self._all(select(join_attempts).order_by(join_attempts.c.id))

    def rollout(self, number: int) -> Row:
        return self._all(select(rollouts).where(rollouts.c.number == number))[0]

    def rollout_nodes(self, number: int) -> dict[str, Row]:
        """By the name of the node."""
        query = (
            select(rollout_nodes, nodes.c.name.label("name"))
            .join(rollouts, rollouts.c.id == rollout_nodes.c.rollout_id)
            .join(nodes, nodes.c.id == rollout_nodes.c.node_id)
            .where(rollouts.c.number == number)
        )
        return {row["name"]: row for row in self._all(query)}
