"""Orders as nodes tell them, against those that the database gave: rule 8's proof that the database is an old one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, func, or_, select, update

from app.core.events import EventKind
from app.store.schema import events, fleet, nodes
from wire.messages import Order

MOST_EPOCHS = 2**30
"""What fits the columns; beyond it a number is made up."""
MOST_LOST = 1_000
"""One begins when a backup was restored: no database lost more of them. So no lie can bring the fleet to numbers at
which the truth would not be believed any more."""

_CREDIBLE = nodes.c.told_epoch <= select(fleet.c.epoch).scalar_subquery() + MOST_LOST
_NEWER = and_(
    _CREDIBLE,
    or_(
        nodes.c.told_epoch > nodes.c.order_epoch,
        and_(nodes.c.told_epoch == nodes.c.order_epoch, nodes.c.told_generation > nodes.c.order_generation),
    ),
)


@dataclass(frozen=True, slots=True)
class Newer:
    """A node that knows a newer order than the database gave it."""

    node_id: str
    name: str
    told: Order
    given: Order


def told_columns(told: Order | None) -> dict[str, int]:
    """What the node's row keeps of the order that its newest activity names."""
    if told is None or told.epoch > MOST_EPOCHS:
        return {"told_epoch": 0, "told_generation": 0}
    return {"told_epoch": told.epoch, "told_generation": told.generation}


def note(conn: Connection, node_id: str, told: Order) -> None:
    """The node told this order; an older one than it told before changes nothing, and an absurd one neither."""
    if told.epoch > MOST_EPOCHS:
        return
    older = or_(
        nodes.c.told_epoch < told.epoch,
        and_(nodes.c.told_epoch == told.epoch, nodes.c.told_generation < told.generation),
    )
    conn.execute(update(nodes).where(nodes.c.id == node_id, older).values(**told_columns(told)))


_FOUND = (
    select(
        nodes.c.id,
        nodes.c.name,
        nodes.c.told_epoch,
        nodes.c.told_generation,
        nodes.c.order_epoch,
        nodes.c.order_generation,
    )
    .where(_NEWER, nodes.c.admission != "retired")
    .order_by(nodes.c.id)
)


def newer(conn: Connection, frozen_at: float | None = None) -> list[Newer]:
    """Nodes of the fleet that know newer orders, by id. `frozen_at`: since when an epoch waits for an operator; who has
    begun one since proves nothing more, so that a node that lies costs one epoch for each time somebody looks."""
    query = _FOUND
    if frozen_at is not None:
        has_begun = events.c.node_id == nodes.c.id, events.c.kind == EventKind.EPOCH_STARTED.value
        query = query.where(~exists().where(*has_begun, events.c.at >= frozen_at))
    rows = conn.execute(query)
    return [Newer(row[0], row[1], Order(row[2], row[3]), Order(row[4], row[5])) for row in rows]


def begin(conn: Connection) -> int:
    """A new epoch, newer than any that was given or told; every node's orders go on in it. The fleet's row is held.

    Gateways send the new orders by their sweeps.
    """
    highest: int = max(
        conn.execute(select(fleet.c.epoch)).scalar_one(),
        conn.execute(select(func.coalesce(func.max(nodes.c.told_epoch), 0)).where(_CREDIBLE)).scalar_one(),
    )
    conn.execute(update(fleet).values(epoch=highest + 1))
    conn.execute(select(nodes.c.id).order_by(nodes.c.id).with_for_update(key_share=True)).all()  # in everybody's order
    conn.execute(update(nodes).values(order_epoch=highest + 1, order_generation=nodes.c.order_generation + 1))
    return highest + 1
