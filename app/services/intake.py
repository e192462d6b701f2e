"""Store what nodes report: one transaction for a batch of nodes, sections first, then what happened, in order.

A report counts only while the node's row names the connection it came over, and not in an identity conflict. A node
whose report the database refuses is set apart, so that the others of its batch are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import msgspec
import structlog

from app.core.texts import for_index
from app.services import claims, operations
from app.store import intake as store
from app.store.database import Change, Database, Priority
from app.store.epochs import told_columns
from app.store.outage import is_away
from wire.messages import (
    Activity,
    Container,
    Facts,
    Health,
    LeaseRequest,
    LeaseReturn,
    NodeEvent,
    OperationReport,
    Placement,
    Slot,
)

log = structlog.get_logger(__name__)

Happening = NodeEvent | OperationReport | LeaseRequest | LeaseReturn


@dataclass(slots=True)
class Sections:
    """The sections of a status that are to be stored; None: not reported since, or unchanged."""

    facts: Facts | None = None
    slots: list[Slot] | None = None
    health: Health | None = None
    placement: Placement | None = None
    activity: Activity | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one connection said since the last batch: the newest state, and each happening in order."""

    node_id: str
    connection_id: str
    seen_at: float
    sections: Sections = field(default_factory=Sections)
    happenings: Sequence[Happening] = ()


class Fate(Enum):
    STORED = auto()
    SUPERSEDED = auto()
    """Another connection speaks for the node."""
    HELD = auto()
    """Identity conflict: nothing is applied."""
    REJECTED = auto()
    """The database refuses it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one report; `acked`: everything up to this sequence number is committed, None when nothing was numbered."""

    fate: Fate
    acked: int | None = None


def apply(db: Database, reports: Sequence[Report], now: float) -> list[Outcome]:
    """Store the reports (at most one of each node); the outcomes in their order.

    Raises what the database raises when it is away: nothing was stored then, apply the same again.
    """
    try:
        return _apply_together(db, reports, now)
    except Exception as error:
        if is_away(error):
            raise
        if len(reports) == 1:
            log.error("report-refused", node=reports[0].node_id, exc_info=True)
            return [Outcome(Fate.REJECTED)]
        log.warning("batch-refused", nodes=len(reports), error=str(error)[:200])
    return [outcome for report in reports for outcome in apply(db, [report], now)]


def _apply_together(db: Database, reports: Sequence[Report], now: float) -> list[Outcome]:
    with db.write(Priority.BACKGROUND) as change:
        standings = store.lock(change.conn, [report.node_id for report in reports])
        fates = [_fate(report, standings.get(report.node_id)) for report in reports]
        heard = [report for report, fate in zip(reports, fates, strict=True) if fate is Fate.STORED]
        _store_sections(change, heard)
        acked = {report.node_id: _store_happenings(change, report, standings[report.node_id], now) for report in heard}
        for report in heard:
            if report.sections.activity is not None:
                operations.observe(change, report.node_id, report.sections.activity, now)
        shows = [report.node_id for report in heard if report.sections.facts or report.sections.health]
        if shows:
            claims.watch(change, shows, now)
    return [Outcome(fate, acked.get(report.node_id)) for report, fate in zip(reports, fates, strict=True)]


def _fate(report: Report, standing: store.Standing | None) -> Fate:
    if standing is None or standing.connection_id != report.connection_id:
        return Fate.SUPERSEDED
    return Fate.HELD if standing.conflict else Fate.STORED


# --- sections -----------------------------------------------------------------------------------------------


def _store_sections(change: Change, reports: Sequence[Report]) -> None:
    changed: set[str] = set()
    for name, columns in _COLUMNS.items():
        rows = []
        for report in reports:
            section = getattr(report.sections, name)
            if section is not None:
                rows.append({"id": report.node_id, "last_seen_at": report.seen_at, **columns(section)})
        store.update_nodes(change.conn, rows)
        changed.update(row["id"] for row in rows)
    placed = {r.node_id: r.sections.placement for r in reports if r.sections.placement and r.sections.placement.known}
    _store_containers(change, placed)
    if changed:
        change.touch("nodes", "fleet", *(f"node:{node_id}" for node_id in changed))


def _facts(facts: Facts) -> dict[str, Any]:
    return {
        "agent_version": facts.agent.version,
        "agent_mode": facts.agent.mode,
        "evidence": facts.evidence.value,
        "os_id": facts.os.id,
        "os_name": facts.os.name,
        "os_version": facts.os.version,
        "kernel": facts.os.kernel,
        "arch": facts.os.arch,
        "driver": facts.os.driver,
        "boot_id": facts.boot.id,
        "booted_at": facts.boot.at,
    }


def _slots(slots: list[Slot]) -> dict[str, Any]:
    booted = next((slot for slot in slots if slot.booted), None)
    return {
        "slots": msgspec.to_builtins(slots),
        "booted_slot": booted.name if booted else "",
        "booted_digest": (booted.digest or "") if booted else "",
        "version": for_index(booted.version or "") if booted else "",
    }


def _health(health: Health) -> dict[str, Any]:
    return {"health_state": health.state.value, "health": msgspec.to_builtins(health)}


def _activity(activity: Activity) -> dict[str, Any]:
    return {
        "phase": activity.phase.value,
        "on_trial": activity.trial is not None and not activity.trial.confirmed,
        "activity": msgspec.to_builtins(activity),
        **told_columns(activity.order),
    }


def _placement(placement: Placement) -> dict[str, Any]:
    return {
        "placement_known": placement.known,
        "placement_told": True,
        "placement_reason": placement.reason,
        "engine": placement.engine,
    }


def _counted(placement: Placement) -> dict[str, Any]:
    return {"containers_running": sum(container.state == "running" for container in placement.containers)}


_COLUMNS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "facts": _facts,
    "slots": _slots,
    "health": _health,
    "placement": _placement,
    "activity": _activity,
}
"""Section -> the columns derived from it."""


def _store_containers(change: Change, placed: Mapping[str, Placement]) -> None:
    """Only what differs is written. An unknown placement keeps the last known one: unknown is not empty."""
    if not placed:
        return
    stored = store.containers_of(change.conn, list(placed))
    gone: list[tuple[str, str]] = []
    new: list[tuple[str, str, store.ContainerValues]] = []
    for node_id, placement in placed.items():
        before = stored[node_id]
        after = {container.id: _values(container) for container in placement.containers}
        gone += [(node_id, id) for id, values in before.items() if after.get(id) != values]
        new += [(node_id, id, values) for id, values in after.items() if before.get(id) != values]
    store.remove_containers(change.conn, gone)
    store.add_containers(change.conn, new)
    store.update_nodes(change.conn, [{"id": node_id, **_counted(placement)} for node_id, placement in placed.items()])


def _values(container: Container) -> store.ContainerValues:
    """In the order of store.CONTAINER_COLUMNS."""
    return (
        container.name,
        container.image,
        container.scope,
        container.service,
        container.state,
        container.health,
        container.started_at,
        container.replicas,
        container.per_node,
    )


# --- happenings ---------------------------------------------------------------------------------------------


def _store_happenings(change: Change, report: Report, standing: store.Standing, now: float) -> int | None:
    """Each numbered one once; returns up to which number everything is stored, None when none was numbered."""
    last = standing.last_seq
    numbered = False
    rows: list[dict[str, Any]] = []
    for happening in report.happenings:
        if isinstance(happening, NodeEvent | OperationReport):
            numbered = True
            if happening.seq <= last:
                continue  # said again, because our word for it was lost
            last = happening.seq
        if isinstance(happening, NodeEvent):
            rows.append(_event_row(report.node_id, happening, now))
        else:
            store.add_events(change.conn, rows)  # what came before stays before it in the history
            rows = []
            _apply_to_operations(change, report.node_id, happening, now)
    store.add_events(change.conn, rows)
    if last > standing.last_seq:
        store.update_nodes(change.conn, [{"id": report.node_id, "last_seq": last}])
        change.touch(f"node:{report.node_id}", "events")
    return last if numbered else None


def _apply_to_operations(
    change: Change, node_id: str, happening: OperationReport | LeaseRequest | LeaseReturn, now: float
) -> None:
    match happening:
        case OperationReport():
            operations.finish(change, happening, node_id, now)
        case LeaseRequest():
            operations.ask_lease(change, node_id, happening, now)
        case LeaseReturn():
            operations.return_lease(change, node_id, happening, now)


def _event_row(node_id: str, event: NodeEvent, now: float) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "at": now,
        "node_at": event.at,
        "seq": event.seq,
        "kind": event.kind,
        "text": event.text,
        "cause": event.cause.value if event.cause else None,
        "operation_id": event.operation_id,
        "boot_id": event.boot_id,
        "checks": msgspec.to_builtins(event.checks) if event.checks else None,
    }
