"""Orders as nodes tell them, against those that the database gave: rule 8's proof that the database is an old one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select, update

from app.store.schema import fleet, nodes
from wire.messages import Order

MOST_EPOCHS = 1_000_000
"""One begins when a backup was restored: whoever tells more has made them up."""

_NEWER = or_(
    nodes.c.told_epoch > nodes.c.order_epoch,
    and_(nodes.c.told_epoch == nodes.c.order_epoch, nodes.c.told_generation > nodes.c.order_generation),
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


def newer(conn: Connection) -> list[Newer]:
    """Nodes of the fleet that know newer orders, by id."""
    query = select(
        nodes.c.id,
        nodes.c.name,
        nodes.c.told_epoch,
        nodes.c.told_generation,
        nodes.c.order_epoch,
        nodes.c.order_generation,
    )
    rows = conn.execute(query.where(_NEWER, nodes.c.admission != "retired").order_by(nodes.c.id))
    return [Newer(row[0], row[1], Order(row[2], row[3]), Order(row[4], row[5])) for row in rows]


def begin(conn: Connection) -> int:
    """A new epoch, newer than any that was given or told; every node's orders go on in it. The fleet's row is held.

    Gateways send the new orders by their sweeps.
    """
    highest: int = max(
        conn.execute(select(fleet.c.epoch)).scalar_one(),
        conn.execute(select(func.coalesce(func.max(nodes.c.told_epoch), 0))).scalar_one(),
    )
    conn.execute(update(fleet).values(epoch=highest + 1))
    conn.execute(select(nodes.c.id).order_by(nodes.c.id).with_for_update(key_share=True)).all()  # in everybody's order
    conn.execute(update(nodes).values(order_epoch=highest + 1, order_generation=nodes.c.order_generation + 1))
    return highest + 1
