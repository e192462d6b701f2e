"""The end of an operation: once, with its event; the node's desired state forgets it. Within the caller's change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.events import EventKind
from app.core.nodes import Node, Operation
from app.store import events, nodes, operations
from app.store.database import Change
from wire.messages import OperationKind, Result

_KIND = {
    OperationKind.STAGE: "Staging",
    OperationKind.ACTIVATE: "Update",
    OperationKind.ROLLBACK: "Roll back",
    OperationKind.REBOOT: "Reboot",
    OperationKind.DISARM: "Disarming",
    OperationKind.RESCUE: "Rescue",
}

_RESULT = {
    Result.SUCCEEDED: "succeeded",
    Result.FELL_BACK: "fell back",
    Result.NEVER_SWITCHED: "never switched over",
    Result.STAGE_FAILED: "could not be staged",
    Result.REFUSED: "was refused by the node",
    Result.CANCELLED: "was cancelled",
    Result.UNHEALTHY: "switched over and did not stay healthy",
    Result.UNREACHABLE: "went back because nothing could be reached",
    Result.TIMED_OUT: "took too long",
    Result.UNKNOWN: "ended in a way that is not known",
}


def name_of(operation: Operation) -> str:
    """“Update to 2.0”, as texts name an operation."""
    return words_of(operation.kind, operation.target_version)


def words_of(kind: OperationKind, target_version: str) -> str:
    """As `name_of`, of what is known of it."""
    aims = kind in (OperationKind.STAGE, OperationKind.ACTIVATE, OperationKind.ROLLBACK)
    return f"{_KIND[kind]} to {target_version}" if aims and target_version else _KIND[kind]


def ended_as(operation: Operation, result: Result) -> str:
    """“Update to 2.0 fell back”."""
    return f"{name_of(operation)} {_RESULT[result]}"


def end_operation(
    change: Change,
    node: Node,
    operation: Operation,
    result: Result,
    text: str,
    now: float,
    *,
    evidence: dict[str, Any] | None = None,
    failed_checks: Sequence[dict[str, Any]] = (),
    actor: str | None = None,
) -> bool:
    """End an open operation; False, and nothing is changed, when it has ended before."""
    if not operations.end(change.conn, operation, result, text, now, evidence=evidence, failed_checks=failed_checks):
        return False
    nodes.forget_operation(change.conn, node.id, operation.id)
    events.append(
        change.conn,
        node_id=node.id,
        at=now,
        kind=EventKind.OPERATION_ENDED,
        text=f"{ended_as(operation, result)}{f': {text}' if text else ''}",
        actor=actor,
        operation_id=operation.id,
        boot_id=node.boot_id or None,
        checks=failed_checks,
    )
    change.touch(f"node:{node.id}", "nodes", "fleet", "events", "operations", f"desired:{node.id}")
    return True
