"""What nodes are to be sent: their desired state, and the answers to their lease requests. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.config import Settings
from app.core.errors import NotFound
from app.core.nodes import Admission
from app.core.policy import Policy
from app.services.image_urls import signed_url
from app.store import desired as store
from app.store import images
from app.store.operations import delivery_of, durations_of
from wire.limits import FAILED_VERSIONS
from wire.messages import Desired, Hold, Image, LeaseGrant, LeaseWait, OperationKind, Order
from wire.messages import Operation as Instruction

Answer = LeaseGrant | LeaseWait | None
"""To a lease request; None while nobody has decided."""


def desired_for(conn: Connection, node_id: str, settings: Settings, now: float) -> Desired:
    """The newest desired state; NotFound. A node that may not be commanded has nothing to do."""
    found = told(conn, [node_id], settings, now).get(node_id)
    if found is None:
        raise NotFound("node", node_id)
    return found[0]


def lease_answer(conn: Connection, node_id: str) -> Answer:
    """What the node's newest lease request is answered with."""
    return next((_answer(row) for row in store.rows(conn, [node_id])), None)


def told(
    conn: Connection, node_ids: Sequence[str], settings: Settings, now: float
) -> dict[str, tuple[Desired, Answer]]:
    """Both, of each of these nodes that exists. A handful of queries, however many they are."""
    rows = store.rows(conn, node_ids)
    cleared = store.cleared(conn, node_ids)
    known = images.of_ids(conn, {row.image_id for row in rows if row.image_id is not None})
    return {
        row.id: (
            Desired(
                order=Order(epoch=row.order_epoch, generation=row.order_generation),
                operation=_instruction(row, known, settings, now) if _is_commanded(row) else None,
                cleared_digests=cleared.get(row.id, [])[:FAILED_VERSIONS],
            ),
            _answer(row),
        )
        for row in rows
    }


def _is_commanded(row: Any) -> bool:
    return row.admission == Admission.ADMITTED.value and not row.in_conflict and row.operation_id is not None


def _answer(row: Any) -> Answer:
    if not _is_commanded(row) or row.lease_nonce is None or row.cancel_asked_at is not None:
        return None
    if row.granted_nonce == row.lease_nonce:
        return LeaseGrant(
            lease_id=row.lease_id, operation_id=row.operation_id, nonce=row.granted_nonce, duration_s=row.duration_s
        )
    hold = row.hold
    if hold is None or hold.get("nonce") != row.lease_nonce:
        return None
    return LeaseWait(
        operation_id=row.operation_id,
        nonce=row.lease_nonce,
        hold=Hold(code=str(hold["code"]), text=str(hold["text"])),
        retry_s=float(hold["retry_s"]),
    )


def _instruction(row: Any, known: Mapping[str, images.Image], settings: Settings, now: float) -> Instruction:
    policy, delivery = Policy(**durations_of(row.policy)), delivery_of(row.policy)
    return Instruction(
        id=row.operation_id,
        kind=OperationKind(row.kind),
        image=_image(row, known, settings, now),
        soak_s=policy.soak_s,
        confirm_s=policy.confirm_s,
        keep_way_back_s=policy.keep_way_back_s,
        author=row.actor,
        reason=row.reason,
        override_failed=row.override_failed,
        drain=delivery.drain,
        drain_s=delivery.drain_s,
        mirrors=list(delivery.mirrors),
        bandwidth_bytes_s=delivery.bandwidth_bytes_s,
    )


def _image(row: Any, known: Mapping[str, images.Image], settings: Settings, now: float) -> Image | None:
    """The image to fetch; for a roll back to the passive slot only its name, for nothing is fetched."""
    if row.image_id is None:
        if not row.target_digest:
            return None
        return Image(os=row.os_id, arch=row.arch, version=row.target_version, digest=row.target_digest, size=0)
    image = known[row.image_id]  # operations refer to images that exist
    return Image(
        os=image.os,
        arch=image.arch,
        version=image.version,
        digest=image.digest,
        size=image.size,
        url=signed_url(settings, image.digest, row.id, now) if image.stored else image.url,
        signature=image.signature,
        key_id=image.key_id,
    )
