"""What a node is to be sent: its desired state, and the answer to its lease request. Reads only."""

from __future__ import annotations

from sqlalchemy import Connection

from app.config import Settings
from app.core.errors import NotFound
from app.core.nodes import Admission, Node, Operation
from app.core.policy import Policy
from app.services.image_urls import signed_url
from app.store import images, leases, nodes
from wire.limits import FAILED_VERSIONS
from wire.messages import Desired, Hold, Image, LeaseGrant, LeaseWait
from wire.messages import Operation as Instruction


def desired_for(conn: Connection, node_id: str, settings: Settings, now: float) -> Desired:
    """The newest desired state; NotFound. A node that may not be commanded has nothing to do."""
    node = nodes.get(conn, node_id)
    if node is None:
        raise NotFound("node", node_id)
    return wish_of(conn, node, settings, now)


def wish_of(conn: Connection, node: Node, settings: Settings, now: float) -> Desired:
    """`desired_for` of a node that has been read."""
    cleared = [failed.digest for failed in node.failed if failed.cleared_at is not None]
    operation = _desired(node)
    return Desired(
        order=node.order,
        operation=None if operation is None else _instruction(conn, node, operation, settings, now),
        cleared_digests=cleared[:FAILED_VERSIONS],
    )


def lease_answer(conn: Connection, node_id: str, now: float) -> LeaseGrant | LeaseWait | None:
    """What the node's newest lease request is answered with; None while nobody has decided."""
    node = nodes.get(conn, node_id)
    return None if node is None else answer_of(conn, node)


def answer_of(conn: Connection, node: Node) -> LeaseGrant | LeaseWait | None:
    """`lease_answer` of a node that has been read."""
    operation = _desired(node)
    if operation is None or operation.lease_nonce is None or operation.cancel_asked_at is not None:
        return None
    lease = leases.of_operation(conn, operation.id)
    if lease is not None and lease.nonce == operation.lease_nonce:
        return LeaseGrant(lease_id=lease.id, operation_id=operation.id, nonce=lease.nonce, duration_s=lease.duration_s)
    hold = operation.hold
    if hold is None or hold.get("nonce") != operation.lease_nonce:
        return None
    return LeaseWait(
        operation_id=operation.id,
        nonce=operation.lease_nonce,
        hold=Hold(code=str(hold["code"]), text=str(hold["text"])),
        retry_s=float(hold["retry_s"]),
    )


def _desired(node: Node) -> Operation | None:
    commanded = node.admission is Admission.ADMITTED and node.conflict is None
    operation = node.operation
    if not commanded or operation is None or operation.id != node.desired_operation_id:
        return None
    return operation


def _instruction(conn: Connection, node: Node, operation: Operation, settings: Settings, now: float) -> Instruction:
    policy = Policy(**operation.policy)
    return Instruction(
        id=operation.id,
        kind=operation.kind,
        image=_image(conn, node, operation, settings, now),
        soak_s=policy.soak_s,
        confirm_s=policy.confirm_s,
        keep_way_back_s=policy.keep_way_back_s,
        author=operation.actor,
        reason=operation.reason,
        override_failed=operation.override_failed,
        drain=operation.delivery.drain,
        drain_s=operation.delivery.drain_s,
        mirrors=list(operation.delivery.mirrors),
        bandwidth_bytes_s=operation.delivery.bandwidth_bytes_s,
    )


def _image(conn: Connection, node: Node, operation: Operation, settings: Settings, now: float) -> Image | None:
    """The image to fetch; for a roll back to the passive slot only its name, for nothing is fetched."""
    if operation.image_id is None:
        if not operation.target_digest:
            return None
        return Image(
            os=node.os_id, arch=node.arch, version=operation.target_version, digest=operation.target_digest, size=0
        )
    image = images.get(conn, operation.image_id)
    assert image is not None, "operations refer to images that exist"
    return Image(
        os=image.os,
        arch=image.arch,
        version=image.version,
        digest=image.digest,
        size=image.size,
        url=signed_url(settings, image.digest, node.id, now) if image.stored else image.url,
        signature=image.signature,
        key_id=image.key_id,
    )
