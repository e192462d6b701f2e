"""Nodes and operations as values, for tests of pure rules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.core.nodes import Admission, Connection, Node, Operation, OperationState, Pin, Target
from app.core.policy import Policy
from tests.server_kit import NOW, digest_of
from wire.messages import Activity, EvidenceClass, Health, HealthState, OperationKind, Order, Phase, Slot


def slot(name: str, version: str | None, **given: Any) -> Slot:
    values: dict[str, Any] = {"booted": False, "next_boot": False, "version": version}
    if version is not None:
        values["digest"] = digest_of(version)
    return Slot(name=name, **(values | given))


def booted(version: str | None = "1.0", name: str = "A", **given: Any) -> Slot:
    return slot(name, version, **({"booted": True, "next_boot": True, "good": True} | given))


def node(**given: Any) -> Node:
    """Admitted, online, idle, healthy, on 1.0 in slot A with an empty slot B."""
    values: dict[str, Any] = {
        "id": "node_1",
        "name": "web-03",
        "admission": Admission.ADMITTED,
        "labels": {},
        "machine_id": "machine",
        "hardware": "hardware",
        "replaces_id": None,
        "replaced_by_id": None,
        "joined_at": NOW,
        "admitted_at": NOW,
        "retired_at": None,
        "order": Order(epoch=1, generation=3),
        "desired_operation_id": None,
        "operation": None,
        "channel_id": None,
        "channel_name": None,
        "pin": None,
        "agent_version": "0.1.0",
        "agent_mode": "agent",
        "evidence": EvidenceClass.AGENT_WITH_PLACEMENT.value,
        "os_id": "demo",
        "os_name": "Demo OS",
        "os_version": "1.0",
        "kernel": "",
        "arch": "amd64",
        "driver": "files",
        "boot_id": "boot-1",
        "booted_at": NOW,
        "booted_slot": "A",
        "booted_digest": digest_of("1.0"),
        "version": "1.0",
        "slots": (booted(), slot("B", None)),
        "health_state": "healthy",
        "health": Health(state=HealthState.HEALTHY),
        "phase": "idle",
        "on_trial": False,
        "activity": Activity(),
        "placement_known": True,
        "placement_reason": "",
        "engine": "podman",
        "containers_running": 0,
        "connection": Connection.ONLINE,
        "gateway_id": "gateway_1",
        "gateway_heartbeat_at": NOW,
        "remote": "192.0.2.7",
        "connected_at": NOW - 600,
        "last_seen_at": NOW,
        "conflict": None,
        "previous": None,
        "failed": (),
    }
    return Node(**(values | given))


def operation(kind: OperationKind = OperationKind.ACTIVATE, phase: Phase = Phase.IDLE, **given: Any) -> Operation:
    """Open, from 1.0 in slot A to 2.0."""
    values: dict[str, Any] = {
        "id": "op_1",
        "node_id": "node_1",
        "kind": kind,
        "image_id": "image_2",
        "target_version": "2.0",
        "target_digest": digest_of("2.0"),
        "order": Order(epoch=1, generation=3),
        "state": OperationState.OPEN,
        "phase": phase,
        "result": None,
        "result_text": "",
        "failed_checks": (),
        "actor": "mb",
        "reason": "",
        "override_failed": False,
        "policy": asdict(Policy()),
        "old_boot_id": "boot-1",
        "old_slot": "A",
        "old_version": "1.0",
        "old_digest": digest_of("1.0"),
        "heard_s": 0.0,
        "clock_at": NOW,
        "lease_nonce": None,
        "lease_nonce_at": None,
        "lease_asked_at": None,
        "hold": None,
        "created_at": NOW,
        "phase_at": NOW,
        "cancel_asked_at": None,
        "ended_at": None,
    }
    return Operation(**(values | given))


def image(version: str = "2.0", **given: Any) -> Target:
    values: dict[str, Any] = {
        "id": f"image_{version}",
        "os": "demo",
        "arch": "amd64",
        "version": version,
        "digest": digest_of(version),
        "withdrawn": False,
    }
    return Target(**(values | given))


def pin(**given: Any) -> Pin:
    values: dict[str, Any] = {
        "channel_id": None,
        "channel_name": None,
        "image_id": "image_1.0",
        "version": "1.0",
        "actor": "ana",
        "reason": "fair",
        "at": NOW,
        "until": None,
    }
    return Pin(**(values | given))
