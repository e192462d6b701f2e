"""What is away now, read again inside the transaction that grants leases: never from anything that was remembered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, not_, or_, select

from app.core.nodes import Admission
from app.core.nodes import Connection as Standing
from app.core.snapshot import ServiceKey
from app.store import services
from app.store.schema import nodes
from app.store.snapshot import ON_TRIAL, RESERVED
from wire.messages import HealthState


def up(fresh_gateways: Collection[str]) -> ColumnElement[bool]:
    """A node that serves: heard through a gateway that is alive, on a confirmed slot, not about to go down by our
    doing (core.snapshot.NodeView.up in SQL)."""
    return and_(
        nodes.c.admission == Admission.ADMITTED.value,
        nodes.c.connection == Standing.ONLINE.value,
        nodes.c.gateway_id.is_not(None),  # so that this is never NULL, and its contrary never either
        nodes.c.gateway_id.in_(sorted(fresh_gateways)),
        nodes.c.lost_at.is_(None),
        not_(ON_TRIAL),
        not_(RESERVED),
    )


def serving(conn: Connection, up: ColumnElement[bool], keys: Sequence[ServiceKey]) -> list[Row[Any]]:
    """Healthy replicas of these services on nodes that are up and whose placement is known, as told over the present
    connection: see services.serving."""
    return services.serving(conn, and_(up, nodes.c.placement_told, nodes.c.placement_known), keys)


def declared(conn: Connection, up: ColumnElement[bool]) -> list[Any]:
    """What operators declare of nodes that are up and cannot say themselves: [[scope, name, replicas], …] of each."""
    cannot_say = and_(nodes.c.placement_told, not_(nodes.c.placement_known))
    query = select(nodes.c.declared).where(up, cannot_say, nodes.c.declared.is_not(None))
    return list(conn.execute(query).scalars())


def not_serving(conn: Connection, up: ColumnElement[bool]) -> list[str]:
    """Members that are not up, or are unhealthy, in the order of their ids; declared lost ones are none."""
    away = or_(not_(up), nodes.c.health_state == HealthState.UNHEALTHY.value)
    query = select(nodes.c.id).where(nodes.c.admission == Admission.ADMITTED.value, nodes.c.lost_at.is_(None), away)
    return list(conn.execute(query.order_by(nodes.c.id)).scalars())
